/** @file The dialog that lists all keyboard shortcuts and lets them be changed. */

import { byId, h, openDialog } from "./dom.js";
import { bindable, caption } from "./keys.js";

/** @typedef {{title: string, actions: import("./keys.js").Action[]}} Group */

/**
 * Fills and opens the dialog.
 * @param {import("./keys.js").Keys} keys
 * @param {Group[]} groups
 * @param {() => void} changed  called after a shortcut was changed
 */
export function openHelp(keys, groups, changed) {
  const dialog = byId("help");
  const redraw = (words = "") => {
    byId("bindings").replaceChildren(...groups.map((group) => section(keys, group, redraw, changed)));
    byId("binding-news").textContent = words;
  };
  byId("reset-keys").onclick = () => {
    keys.reset();
    redraw("All keys are reset.");
    changed();
  };
  redraw();
  openDialog(dialog);
}

function section(keys, { title, actions }, redraw, changed) {
  const rows = actions.map((action) => h("div", { class: "binding" }, h("dt", {}, action.label), h("dd", {}, cap(keys, action, redraw, changed))));
  return h("section", {}, h("h3", {}, title), h("dl", {}, ...rows));
}

function cap(keys, action, redraw, changed) {
  const key = caption(keys.of(action));
  const label = `${action.label}: ${key}. Change`;
  return h("button", { type: "button", class: "cap", "aria-label": label, onclick: (event) => listen(event.currentTarget) }, key);

  function listen(button) {
    button.textContent = "press a key";
    button.classList.add("listening");
    const stop = () => {
      removeEventListener("keydown", heard, true);
      button.removeEventListener("blur", stop);
      button.classList.remove("listening");
      button.textContent = caption(keys.of(action));
    };
    const heard = (event) => {
      if (event.key === "Tab") return stop();
      event.preventDefault();
      event.stopPropagation();
      if (event.key === "Escape") return stop();
      if (!bindable(event)) return;
      stop();
      const rival = keys.bind(action, event.key);
      redraw(rival ? `“${rival.label}” now uses ${caption(keys.of(rival))}.` : `“${action.label}” now uses ${caption(event.key)}.`);
      changed();
    };
    addEventListener("keydown", heard, true);
    button.addEventListener("blur", stop);
  }
}
