/** @file One picture: good or bad? */

import { h } from "../dom.js";

const modes = ["thumb"];

/** @type {import("./index.js").Mode} */
export const thumb = {
  ask: "Is this a good picture?",
  actions: [
    { name: "thumb.down", label: "Thumb down", key: "ArrowDown", modes, button: true },
    { name: "thumb.up", label: "Thumb up", key: "ArrowUp", modes, button: true },
  ],
  open({ pictures, stage, answer }) {
    stage.show(pictures, [alone(pictures[0])]);
    return {
      "thumb.up": () => answer({ outcome: "up" }, "↑", "Thumb up"),
      "thumb.down": () => answer({ outcome: "down" }, "↓", "Thumb down"),
    };
  },
};

/** A frame that cannot be pressed. @param {HTMLImageElement} picture */
export function alone(picture) {
  return h("div", { class: "frame" }, h("span", { class: "hold" }, picture));
}
