/** @file Two pictures: which is better? */

import { frame } from "../view.js";

const modes = ["pair"];

/** @type {import("./index.js").Mode} */
export const pair = {
  ask: "Which picture is better?",
  actions: [
    { name: "pair.left", label: "Left", other: "Upper", key: "ArrowLeft", modes, button: true },
    { name: "pair.tie", label: "Equally good", key: "ArrowUp", modes, button: true },
    { name: "pair.both_bad", label: "Both bad", key: "ArrowDown", modes, button: true },
    { name: "pair.right", label: "Right", other: "Lower", key: "ArrowRight", modes, button: true },
  ],
  open({ item, pictures, stage, answer }) {
    const choose = (i) => answer({ outcome: "win", position: item.images[i].position }, i === 0 ? "←" : "→", i === 0 ? "Left" : "Right");
    const sides = ["Left picture", "Right picture"];
    const frames = pictures.map((picture, i) => frame(picture, { label: `${sides[i]}: choose it`, press: () => !stage.moved && choose(i) }));
    stage.show(pictures, frames);
    return {
      "pair.left": () => choose(0),
      "pair.right": () => choose(1),
      "pair.tie": () => answer({ outcome: "tie" }, "=", "Equally good"),
      "pair.both_bad": () => answer({ outcome: "both_bad" }, "✕", "Both bad"),
    };
  },
};
