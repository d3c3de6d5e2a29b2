/**
 * @file The stage: shows pictures as large as they fit, zooms and moves all of them together, or lays them over each other for comparison.
 */

import { expose, h } from "./dom.js";

const SMALL = 160;
const LARGEST_ZOOM = 16;
const BLINK_MS = 350;
const CALM_BLINK_MS = 1000;
const GAP = 12;

/** The area in which pictures are shown. */
export class Stage {
  zoom = 1;
  #x = 0;
  #y = 0;
  #pictures = /** @type {HTMLImageElement[]} */ ([]);
  #frames = /** @type {HTMLElement[]} */ ([]);
  #shelf = /** @type {HTMLElement} */ (h("div", { class: "pictures" }));
  #blink = 0;
  #fingers = new Map();

  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    new ResizeObserver(() => this.#fit()).observe(root);
    root.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    root.addEventListener("pointerdown", (event) => this.#down(event));
    root.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) root.addEventListener(end, (event) => this.#up(event));
  }

  /**
   * Shows the pictures of a question, all at once.
   * @param {HTMLImageElement[]} pictures  decoded
   * @param {HTMLElement[]} frames         one for each picture, which it already contains
   * @param {HTMLElement} [below]          an element to show below them
   */
  show(pictures, frames, below) {
    const focused = this.#frames.findIndex((frame) => frame.contains(document.activeElement));
    this.#pictures = pictures;
    this.#frames = frames;
    this.#shelf = h("div", { class: "pictures" }, h("div", { class: "sheet" }, ...frames));
    this.compare(false);
    this.reset();
    this.root.replaceChildren(this.#shelf, ...(below ? [below] : []));
    this.#fit();
    if (focused >= 0) frames[Math.min(focused, frames.length - 1)].focus({ preventScroll: true });
  }

  /** Shows a message instead of pictures. @param {HTMLElement} message */
  say(message) {
    this.#frames = [];
    this.#pictures = [];
    this.root.replaceChildren(message);
  }

  /** Zooms in or out, about a point of the pictures; (0, 0) is their middle, 0.5 their edge. */
  zoomBy(factor, x = 0, y = 0) {
    const zoom = Math.min(LARGEST_ZOOM, Math.max(1, this.zoom * factor));
    this.#x = x - ((x - this.#x) * zoom) / this.zoom;
    this.#y = y - ((y - this.#y) * zoom) / this.zoom;
    this.zoom = zoom;
    this.#apply();
  }

  /** Moves all pictures by a share of their size. */
  pan(x, y) {
    this.#x += x;
    this.#y += y;
    this.#apply();
  }

  /** Shows whole pictures again. */
  reset() {
    this.zoom = 1;
    this.#apply();
  }

  /** Lays the pictures over each other and alternates between them while `on`. @param {boolean} on */
  compare(on) {
    clearInterval(this.#blink);
    const several = on && this.#frames.length > 1;
    this.#shelf.classList.toggle("compare", several);
    expose({ compare: several });
    this.#turn(several ? 0 : -1);
    if (!several) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    let at = 0;
    this.#blink = setInterval(() => this.#turn((at = (at + 1) % this.#frames.length)), calm ? CALM_BLINK_MS : BLINK_MS);
  }

  #turn(front) {
    this.#frames.forEach((frame, index) => frame.classList.toggle("front", index === front));
  }

  #apply() {
    const reach = (this.zoom - 1) / 2;
    this.#x = Math.min(reach, Math.max(-reach, this.#x));
    this.#y = Math.min(reach, Math.max(-reach, this.#y));
    this.root.style.setProperty("--zoom", String(this.zoom));
    this.root.style.setProperty("--x", `${this.#x * 100}%`);
    this.root.style.setProperty("--y", `${this.#y * 100}%`);
    this.root.classList.toggle("zoomed", this.zoom > 1);
    expose({ zoom: this.zoom.toFixed(2) });
  }

  /** Chooses the number of columns that makes the pictures largest. */
  #fit() {
    const [first] = this.#pictures;
    if (!first || !this.#shelf.isConnected) return;
    const { clientWidth: width, clientHeight: height } = this.#shelf;
    const one = this.#pictures.every((p) => p.naturalWidth * first.naturalHeight === first.naturalWidth * p.naturalHeight);
    const aspect = one ? first.naturalWidth / first.naturalHeight : 1;
    const n = this.#pictures.length;
    const best = Array.from({ length: n }, (_, i) => room(width, height, aspect, i + 1, n)).reduce((a, b) => (b.size > a.size ? b : a));
    const size = wellScaled(best.size, first.naturalWidth);
    this.#shelf.style.setProperty("--columns", String(best.columns));
    this.#shelf.style.setProperty("--width", `${size}px`);
    this.#shelf.style.setProperty("--height", `${size / aspect}px`);
    this.root.classList.toggle("pixels", first.naturalWidth <= SMALL);
    expose({ columns: best.columns });
  }

  #wheel(event) {
    event.preventDefault();
    const [x, y] = this.#place(event);
    this.zoomBy(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), x, y);
  }

  /** The position of the pointer in its picture, relative to the middle, as a share of the picture's size. */
  #place(event) {
    const frame = this.#frames.find((f) => f.contains(event.target)) ?? this.#frames[0];
    if (!frame) return [0, 0];
    const box = frame.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width - 0.5, (event.clientY - box.top) / box.height - 0.5];
  }

  #down(event) {
    this.#fingers.set(event.pointerId, event);
    this.moved = false;
  }

  /** One finger moves the pictures; two fingers zoom. */
  #move(event) {
    const before = this.#fingers.get(event.pointerId);
    if (!before) return;
    this.#fingers.set(event.pointerId, event);
    const box = this.#frames[0]?.getBoundingClientRect();
    const other = [...this.#fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
    if (!box) return;
    if (other) this.zoomBy(distance(event, other) / Math.max(1, distance(before, other)), ...this.#place(event));
    else if (this.zoom > 1) this.pan((event.clientX - before.clientX) / box.width, (event.clientY - before.clientY) / box.height);
    else return;
    this.moved = true;
  }

  #up(event) {
    this.#fingers.delete(event.pointerId);
  }
}

/** The width of a picture if `n` pictures are shown in this many columns. */
function room(width, height, aspect, columns, n) {
  const rows = Math.ceil(n / columns);
  const wide = (width - GAP * (columns - 1)) / columns;
  const high = ((height - GAP * (rows - 1)) / rows) * aspect;
  return { columns, size: Math.max(1, Math.min(wide, high)) };
}

/** Scales small pictures by whole factors, so that their pixels stay square, and large ones to at most twice their size. */
function wellScaled(size, natural) {
  if (natural <= SMALL && size >= natural) return Math.floor(size / natural) * natural;
  return Math.floor(Math.min(size, 2 * natural));
}

const distance = (a, b) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);

/**
 * Makes a button that contains a picture.
 * @param {HTMLImageElement} picture
 * @param {{label: string, press: () => void, badge?: string, pressed?: boolean}} how
 */
export function frame(picture, { label, press, badge, pressed }) {
  const onclick = (event) => {
    if (event.detail) event.currentTarget.blur(); // so that keys go to the page again after a click
    press();
  };
  const attributes = { type: "button", class: "frame", "aria-label": label, "aria-pressed": pressed === undefined ? null : String(pressed), onclick };
  return h("button", attributes, h("span", { class: "hold" }, picture), badge ? h("span", { class: "badge", "aria-hidden": "true" }, badge) : null);
}
