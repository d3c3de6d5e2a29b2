/** @file One picture: from 1 to 5. */

import { alone } from "./thumb.js";

const modes = ["score"];
const WORDS = ["bad", "poor", "fair", "good", "great"];

/** @type {import("./index.js").Mode} */
export const score = {
  ask: "How good is this picture?",
  actions: WORDS.map((word, i) => ({ name: `score.${i + 1}`, label: word[0].toUpperCase() + word.slice(1), key: `${i + 1}`, modes, button: true })),
  open({ item, pictures, stage, answer }) {
    stage.show(pictures, [alone(pictures[0])]);
    const give = (value) => answer({ outcome: "score", positions: { [item.images[0].position]: value } }, `${value}`, `${value} of 5`);
    return Object.fromEntries(WORDS.map((_, i) => [`score.${i + 1}`, () => give(i + 1)]));
  },
};
