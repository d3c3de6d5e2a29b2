/** @file The ways in which a question can be asked. */

import { bestWorst } from "./best_worst.js";
import { grid } from "./grid.js";
import { pair } from "./pair.js";
import { rank } from "./rank.js";
import { score } from "./score.js";
import { thumb } from "./thumb.js";

/**
 * @typedef {import("../keys.js").Action & {button?: boolean, strong?: boolean, other?: string}} Choice
 *   `button`: it is also a button; `strong`: it is the main button; `other`: its label while the pictures are below each other
 *
 * @typedef {object} Turn
 * @property {import("../queue.js").Item} item
 * @property {HTMLImageElement[]} pictures
 * @property {import("../view.js").Stage} stage
 * @property {(answer: object, glyph: string, said: string) => void} answer  submits the answer; the words go to the status line
 * @property {(words: string) => void} say   shows a step in the status line, which screen readers announce
 * @property {(action: string, possible: boolean) => void} allow  enables or disables a button
 * @property {(action: string) => string} cap   the name of the action's key
 *
 * @typedef {object} Mode
 * @property {string} ask                the instruction, if the server sends none
 * @property {Choice[]} actions
 * @property {(turn: Turn) => Record<string, () => void>} open  shows the pictures and returns what each action does
 */

const PICKS = "1234567890qweryt";

/** The actions "Picture 1" to "Picture 16", shared by the modes in which pictures are picked one by one. @type {Choice[]} */
export const picks = Array.from(PICKS, (key, i) => ({
  name: `pick.${i + 1}`,
  label: `Picture ${i + 1}`,
  key,
  modes: ["best_worst", "rank", "grid"],
}));

/** @type {Record<string, Mode>} */
export const MODES = { pair, best_worst: bestWorst, rank, grid, thumb, score };
