/** @file K pictures: choose the best, then the worst. Two key presses give more comparisons than two pairs. */

import { frame } from "../view.js";

const modes = ["best_worst"];

/** @type {import("./index.js").Mode} */
export const bestWorst = {
  ask: "Pick the best picture, then the worst.",
  actions: [
    { name: "best_worst.tie", label: "All alike", key: "ArrowUp", modes, button: true },
    { name: "best_worst.both_bad", label: "All bad", key: "ArrowDown", modes, button: true },
  ],
  open({ item, pictures, stage, answer, say, cap }) {
    let best = -1;
    const frames = pictures.map((picture, i) =>
      frame(picture, { label: `Picture ${i + 1}`, badge: cap(`pick.${i + 1}`), pressed: false, press: () => !stage.moved && pick(i) }),
    );
    const mark = () => frames.forEach((f, i) => {
      f.classList.toggle("best", i === best);
      f.setAttribute("aria-pressed", String(i === best));
    });
    const pick = (i) => {
      if (best >= 0 && i !== best) return answer({ outcome: "best_worst", positions: ends(best, i) }, "±", `Best ${best + 1}, worst ${i + 1}`);
      best = i === best ? -1 : i;
      mark();
      say(best < 0 ? "Nothing picked." : `Best: picture ${best + 1}. Now the worst.`);
    };
    const ends = (top, bottom) => ({ [item.images[top].position]: 1, [item.images[bottom].position]: -1 });
    stage.show(pictures, frames);
    return {
      ...Object.fromEntries(pictures.map((_, i) => [`pick.${i + 1}`, () => pick(i)])),
      "best_worst.tie": () => answer({ outcome: "tie" }, "=", "All alike"),
      "best_worst.both_bad": () => answer({ outcome: "both_bad" }, "✕", "All bad"),
    };
  },
};
