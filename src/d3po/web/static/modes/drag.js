/** @file Dragging with mouse, pen or finger. Each mode also has keys that do the same. */

import { h } from "../dom.js";

const FAR_ENOUGH = 6;

/**
 * Makes an element draggable onto one of several targets.
 * @param {HTMLElement} handle
 * @param {object} how
 * @param {() => HTMLElement[]} how.targets
 * @param {() => boolean} how.may        whether it may be dragged now; called when a drag begins
 * @param {(target: number) => void} how.drop  called with the target's index
 */
export function draggable(handle, { targets, may, drop }) {
  handle.addEventListener("pointerdown", (down) => {
    if (down.button !== 0 || !down.isPrimary) return;
    let ghost = /** @type {HTMLElement|null} */ (null);
    const move = (event) => {
      if (!ghost && Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY) < FAR_ENOUGH) return;
      if (!ghost && !may()) return end();
      ghost ??= lift(handle);
      ghost.style.transform = `translate(${event.clientX}px, ${event.clientY}px) translate(-50%, -50%)`;
      const over = under(targets(), event);
      targets().forEach((target, i) => target.classList.toggle("over", i === over));
    };
    const up = (event) => {
      const at = under(targets(), event);
      const dragged = ghost !== null;
      end();
      if (!dragged) return;
      handle.blur(); // so that keys go to the page again after a drag
      swallowClick();
      if (event.type === "pointerup" && at >= 0) drop(at);
    };
    const end = () => {
      ghost?.remove();
      targets().forEach((target) => target.classList.remove("over"));
      removeEventListener("pointermove", move);
      for (const name of ["pointerup", "pointercancel"]) removeEventListener(name, up);
    };
    addEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) addEventListener(name, up);
  });
}

function lift(handle) {
  const picture = /** @type {HTMLImageElement} */ (handle.querySelector("img"));
  const ghost = h("div", { class: "ghost", "aria-hidden": "true" }, h("img", { src: picture.src, alt: "" }));
  document.body.append(ghost);
  return ghost;
}

function under(targets, event) {
  return targets.findIndex((target) => {
    const box = target.getBoundingClientRect();
    return event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
  });
}

/** Swallows the click event that a browser fires at the end of a drag. */
function swallowClick() {
  const swallow = (event) => event.stopPropagation();
  addEventListener("click", swallow, { capture: true, once: true });
  setTimeout(() => removeEventListener("click", swallow, { capture: true }), 0);
}
