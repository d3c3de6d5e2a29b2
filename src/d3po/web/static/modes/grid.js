/** @file Many pictures: mark those that are distorted. */

import { count } from "../dom.js";
import { frame } from "../view.js";

const modes = ["grid"];

/** @type {import("./index.js").Mode} */
export const grid = {
  ask: "Mark the distorted pictures.",
  actions: [{ name: "grid.done", label: "Done", key: "Enter", modes, button: true, strong: true }],
  open({ item, pictures, stage, answer, say, cap }) {
    const marked = new Set();
    const frames = pictures.map((picture, i) =>
      frame(picture, { label: `Picture ${i + 1}`, badge: cap(`pick.${i + 1}`), pressed: false, press: () => !stage.moved && toggle(i) }),
    );
    const toggle = (i) => {
      if (!marked.delete(i)) marked.add(i);
      frames[i].classList.toggle("marked", marked.has(i));
      frames[i].setAttribute("aria-pressed", String(marked.has(i)));
      say(`Picture ${i + 1} ${marked.has(i) ? "marked" : "not marked"}; ${marked.size} in all.`);
    };
    const done = () => {
      const positions = Object.fromEntries([...marked].map((i) => [item.images[i].position, 1]));
      answer({ outcome: "marks", positions }, `${marked.size}`, `${count(marked.size, "picture")} marked`);
    };
    stage.show(pictures, frames);
    return { ...Object.fromEntries(pictures.map((_, i) => [`pick.${i + 1}`, () => toggle(i)])), "grid.done": done };
  },
};
