/**
 * @file The next questions. They are fetched and decoded before they are needed, so that a key press shows the next pictures at once.
 */

import { ApiError, call, clockSkew } from "./api.js";

const DEPTH = 4;
const MOST_AT_ONCE = 16;
const FETCH_AGAIN_MS = [1000, 2000, 5000, 10_000];

/**
 * @typedef {object} Picture
 * @property {number} position
 * @property {string} url
 * @property {number|null} width   pixels; null if the server cannot read the file
 * @property {number|null} height
 *
 * @typedef {object} Item
 * @property {string} assignment
 * @property {"pair"|"best_worst"|"rank"|"grid"|"thumb"|"score"} kind
 * @property {string} prompt
 * @property {Picture[]} images
 * @property {number} lease_expires_at
 * @property {string} [instruction]
 *
 * @typedef {object} Ready
 * @property {Item} item
 * @property {HTMLImageElement[]} pictures  decoded, in the order shown
 * @property {boolean} broken               whether a picture is missing on the server
 * @property {number} [turn]                its number in the order in which the server gave the questions
 */

/** Fires `change` when a question is ready, or when the server has reported progress. */
export class Queue extends EventTarget {
  /** @type {Ready[]} */
  ready = [];
  /** @type {{done: number, left: number, phase: string}|null} */
  progress = null;
  /** @type {ApiError|null} why the last fetch failed */
  trouble = null;
  #loading = new Set();
  #answered = new Set();
  #fetching = false;
  #turns = 0;
  #failures = 0;
  #pending;

  /** @param {{has: (assignment: string) => boolean, count: () => number}} pending answers that are not sent yet */
  constructor(pending) {
    super();
    this.#pending = pending;
  }

  /** Whether nothing is ready, nothing is being loaded, and the server had no more questions. */
  get empty() {
    return this.ready.length === 0 && this.#loading.size === 0 && this.progress !== null && !this.trouble;
  }

  /** The next question, or nothing if none is ready. @returns {Ready|undefined} */
  take() {
    this.ready = this.ready.filter(({ item }) => !lapsed(item));
    const next = this.ready.shift();
    this.refill();
    return next;
  }

  /** Puts the current question back to the front of the queue, when an earlier answer is undone. @param {Ready} ready */
  putBack(ready) {
    this.ready.unshift({ ...ready, turn: 0 });
  }

  /** Never returns this question (again). @param {string} assignment */
  drop(assignment) {
    this.#answered.add(assignment);
    this.ready = this.ready.filter(({ item }) => item.assignment !== assignment);
  }

  /** Drops all questions that are ready: they are not asked any more. */
  clear() {
    for (const id of [...this.#loading, ...this.ready.map(({ item }) => item.assignment)]) this.drop(id);
  }

  /** Lets a question come again, after its answer was withdrawn. @param {string} assignment */
  allow(assignment) {
    this.#answered.delete(assignment);
  }

  /** Fetches as many questions as are missing. @param {string} [shown] the assignment that is shown now */
  async refill(shown = this.shown) {
    this.shown = shown;
    if (this.#fetching || this.ready.length + this.#loading.size >= DEPTH) return;
    this.#fetching = true;
    try {
      const ask = Math.min(MOST_AT_ONCE, DEPTH + 1 + this.#pending.count());
      const answer = await call("GET", `/v1/queue?n=${ask}`);
      this.#failures = 0;
      this.trouble = null;
      this.progress = { done: answer.done, left: answer.left, phase: answer.phase };
      for (const item of answer.items) this.#load(item);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#failed(error);
    } finally {
      this.#fetching = false;
    }
    this.dispatchEvent(new Event("change"));
  }

  /** Inserts a question in the server's order, whichever was decoded first. @param {Ready} ready */
  #insert(ready) {
    const behind = this.ready.findIndex(({ turn }) => turn > ready.turn);
    this.ready.splice(behind < 0 ? this.ready.length : behind, 0, ready);
  }

  #failed(error) {
    this.trouble = error;
    if (!error.passing) return;
    const wait = FETCH_AGAIN_MS[Math.min(this.#failures++, FETCH_AGAIN_MS.length - 1)];
    setTimeout(() => this.refill(), Math.max(wait, error.retryAfterMs));
  }

  /** @param {Item} item */
  async #load(item) {
    const id = item.assignment;
    const known = id === this.shown || this.#loading.has(id) || this.ready.some((r) => r.item.assignment === id);
    if (known || this.#answered.has(id) || this.#pending.has(id)) return;
    const turn = ++this.#turns;
    this.#loading.add(id);
    const ready = await decode(item);
    this.#loading.delete(id);
    if (ready && !this.#answered.has(id)) this.#insert({ ...ready, turn });
    if (!ready) setTimeout(() => this.refill(), FETCH_AGAIN_MS[1]);
    this.dispatchEvent(new Event("change"));
  }
}

/**
 * Loads and decodes all pictures of a question, so that they can be shown all at once.
 * @param {Item} item
 * @returns {Promise<Ready|undefined>} undefined if the server cannot be reached
 */
export async function decode(item) {
  const pictures = item.images.map(element);
  const outcomes = await Promise.allSettled(pictures.map((picture) => picture.decode()));
  if (outcomes.every((outcome) => outcome.status === "fulfilled")) return { item, pictures, broken: false };
  const gone = await Promise.allSettled(item.images.map((image) => call("GET", image.url)));
  const reached = gone.every((outcome) => outcome.status === "fulfilled" || !outcome.reason.passing);
  return reached ? { item, pictures, broken: true } : undefined;
}

/** @param {Picture} image @param {number} index @param {Picture[]} all */
function element(image, index, all) {
  const picture = new Image();
  picture.decoding = "sync";
  picture.draggable = false;
  picture.alt = all.length === 1 ? "The picture" : `Picture ${index + 1} of ${all.length}`;
  picture.src = image.url;
  return picture;
}

/** Whether a question's lease has expired, so that another annotator may have it now. @param {Item} item */
function lapsed(item) {
  return item.lease_expires_at < Date.now() + clockSkew;
}
