/** @file Elements without a framework. What comes from outside only ever becomes text, never markup. */

/**
 * Makes an element. `class` and `on…` listeners, booleans and plain attributes are told apart by name and type.
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...(Node|string|null|undefined)} children
 * @returns {any} the element; `any`, for its type hangs on the tag
 */
export function h(tag, props = {}, ...children) {
  return dress(document.createElement(tag), props, children);
}

/**
 * The same for a drawing.
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
 * The page's element with this id, which must be there.
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

/** What the page says about itself to tests and styles. @param {Record<string, string|number|boolean>} facts */
export function expose(facts) {
  for (const [name, value] of Object.entries(facts)) document.body.dataset[name] = String(value);
}

/** Opens a dialog anew. @param {any} dialog */
export function openDialog(dialog) {
  if (!dialog.open) dialog.showModal();
}

/** Makes the close button of every dialog work; without forms, which the page's security policy forbids to go anywhere. */
export function letDialogsClose() {
  for (const button of document.querySelectorAll("dialog [data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
}

/** "3 votes", "1 vote". @param {number} n @param {string} word */
export function count(n, word) {
  return `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
}
