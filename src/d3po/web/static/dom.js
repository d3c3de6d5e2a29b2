/** @file Helpers to build elements without a framework. Data always becomes text, never markup. */

/**
 * Makes an HTML element. A property whose name begins with `on` is a listener; all others are attributes (true: without a value; false or null: left out).
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...(Node|string|null|undefined)} children
 * @returns {any} the element; `any`, because its type depends on the tag
 */
export function h(tag, props = {}, ...children) {
  return dress(document.createElement(tag), props, children);
}

/**
 * Makes an SVG element; see `h`.
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...(Node|string|null|undefined)} children
 * @returns {SVGElement}
 */
export function svg(tag, props = {}, ...children) {
  return dress(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

function dress(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/**
 * The page's element with this id, which must exist.
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

/** Sets data attributes of the body, which tests and styles read. @param {Record<string, string|number|boolean>} facts */
export function expose(facts) {
  for (const [name, value] of Object.entries(facts)) document.body.dataset[name] = String(value);
}

/** Opens a dialog if it is not open. @param {any} dialog */
export function openDialog(dialog) {
  if (!dialog.open) dialog.showModal();
}

/** Makes the close button of every dialog work, without forms, because the page's security policy forbids submitting them. */
export function letDialogsClose() {
  for (const button of document.querySelectorAll("dialog [data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
}

/** "3 votes", "1 vote". @param {number} n @param {string} word */
export function count(n, word) {
  return `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
}
