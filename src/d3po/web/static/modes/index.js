/** @file The ways in which a question can be asked. */

import { bestWorst } from "./best_worst.js";
import { grid } from "./grid.js";
import { pair } from "./pair.js";
import { rank } from "./rank.js";
import { score } from "./score.js";
import { thumb } from "./thumb.js";

/**
 * @typedef {import("../keys.js").Action & {button?: boolean, strong?: boolean, other?: string}} Choice
 *   `button`: also a button; `strong`: the one that completes; `other`: its label while the pictures stand below each other
 *
 * @typedef {object} Turn
 * @property {import("../queue.js").Item} item
 * @property {HTMLImageElement[]} pictures
 * @property {import("../view.js").Stage} stage
 * @property {(answer: object, glyph: string, said: string) => void} answer  hands in the answer; the words go to the status line
 * @property {(words: string) => void} say   tells a screen reader about a step
 * @property {(action: string, possible: boolean) => void} allow  greys a button out
 * @property {(action: string) => string} cap   what is on the key cap
 *
 * @typedef {object} Mode
 * @property {string} ask                what to ask when the server has no words of its own
 * @property {Choice[]} actions
 * @property {(turn: Turn) => Record<string, () => void>} open  shows the pictures, returns what each action does
 */

const PICKS = "1234567890qweryt";

/** "Picture 1" to "Picture 16", shared by the modes where pictures are picked one by one. @type {Choice[]} */
export const picks = Array.from(PICKS, (key, i) => ({
  name: `pick.${i + 1}`,
  label: `Picture ${i + 1}`,
  key,
  modes: ["best_worst", "rank", "grid"],
}));

/** @type {Record<string, Mode>} */
export const MODES = { pair, best_worst: bestWorst, rank, grid, thumb, score };
