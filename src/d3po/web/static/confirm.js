/** @file Asks for confirmation of actions that cannot be undone. */

import { byId, openDialog } from "./dom.js";

/**
 * Asks, and returns whether the person confirmed.
 * @param {string} title
 * @param {string} words  what will happen
 * @param {string} yes    what the button says
 * @returns {Promise<boolean>}
 */
export function confirmed(title, words, yes) {
  const dialog = byId("confirm");
  byId("confirm-title").textContent = title;
  byId("confirm-words").textContent = words;
  byId("confirm-yes").textContent = yes;
  openDialog(dialog);
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(false);
    byId("confirm-yes").onclick = () => {
      resolve(true);
      dialog.close();
    };
  });
}
