/**
 * @file The queue of answers that are sent to the server. An answer is first written to the browser's disk, then posted in the background,
 * again and again with the same id, until the server acknowledges it. No answer is ever dropped unless a person says so.
 */

import { ApiError, call, sleep } from "./api.js";
import { inMemory, openShelf } from "./store.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;

/**
 * @typedef {object} Entry
 * @property {number} [seq]        its number in the queue, given by the shelf
 * @property {string} id           the UUID that makes sending twice harmless
 * @property {string} who          the handle of the person who answered; no other person's session may send it
 * @property {string} assignment
 * @property {string} path
 * @property {object} body
 * @property {string} [refused]    why the server refused it
 */

/** Fires `change` whenever an entry is added or removed, or the connection to the server changes. */
export class Outbox extends EventTarget {
  /** @type {"online"|"offline"|"away"|"signed-out"} */
  net = "online";
  /** @type {Entry[]} in order of arrival: those on the shelf when it was last read, and those still being written */
  entries = [];
  #shelf;
  #who;
  #sending = false;
  #wake = () => {};
  #channel = new BroadcastChannel("d3po-outbox");

  /** @param {string} who @param {import("./store.js").Shelf} shelf */
  constructor(who, shelf) {
    super();
    this.#who = who;
    this.#shelf = shelf;
    this.#channel.onmessage = () => this.#refresh().then(() => this.send());
    addEventListener("online", () => this.#wake());
    document.addEventListener("visibilitychange", () => this.#wake());
  }

  /** The outbox of one annotator. @param {string} who */
  static async open(who) {
    const outbox = new Outbox(who, await openShelf());
    await outbox.#refresh();
    return outbox;
  }

  /** Whether answers survive a closed tab. */
  get durable() {
    return this.#shelf.durable;
  }

  get waiting() {
    return this.entries.filter((entry) => !entry.refused);
  }

  get refused() {
    return this.entries.filter((entry) => entry.refused);
  }

  /** Whether an answer to this assignment is still waiting. @param {string} assignment */
  holds(assignment) {
    return this.entries.some((entry) => entry.assignment === assignment && !entry.refused);
  }

  /**
   * Adds an answer. It counts at once, and is sent when it is on disk.
   * @param {{id: string, assignment: string, path: string, body: object}} what
   */
  async put(what) {
    const entry = { ...what, who: this.#who };
    this.entries.push(entry);
    this.#changed();
    try {
      entry.seq = await this.#shelf.put(entry);
    } catch {
      this.#shelf = await this.#moveToMemory(); // the disk is full or gone: continue in memory, and say so
    }
    await this.#refresh();
    this.#channel.postMessage("put");
    this.send();
  }

  /** Sends the waiting answers, oldest first: one request at a time, in one tab at a time. */
  async send() {
    if (this.#sending) return this.#wake();
    this.#sending = true;
    try {
      await this.#sendAll();
    } finally {
      this.#sending = false;
    }
  }

  async #sendAll() {
    let wait = FIRST_WAIT_MS;
    while (this.waiting.some((entry) => entry.seq !== undefined) && this.net !== "signed-out") {
      const trouble = await alone(() => this.#sendNext());
      if (!trouble) {
        wait = FIRST_WAIT_MS;
        continue;
      }
      await this.#rest(Math.max(trouble.retryAfterMs, wait * (0.75 + Math.random() / 2)));
      wait = Math.min(2 * wait, LONGEST_WAIT_MS);
    }
  }

  /** Deletes an answer that the server refused. @param {Entry} entry */
  async discard(entry) {
    await this.#shelf.remove(entry.seq ?? -1);
    await this.#refresh();
  }

  /** Posts the oldest entry. Returns the error if it has to be tried again. @returns {Promise<ApiError|undefined>} */
  async #sendNext() {
    await this.#refresh();
    const entry = this.waiting.find((e) => e.seq !== undefined);
    if (!entry) return;
    try {
      await call("POST", entry.path, entry.body);
      this.#reached("online");
      await this.#done(entry);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.passing) {
        this.#reached(error.status === 0 ? "offline" : "away");
        return error;
      }
      if (error.signedOut) this.#reached("signed-out");
      else await this.#refuse(entry, error);
    }
  }

  async #done(entry) {
    await this.#shelf.remove(entry.seq);
    this.entries = this.entries.filter((e) => e.id !== entry.id);
    this.#channel.postMessage("done");
    this.#changed();
    this.dispatchEvent(new Event("sent"));
  }

  /** Marks an entry as refused. A withdrawal of an answer that the server never stored is dropped instead: there is nothing to withdraw. */
  async #refuse(entry, error) {
    this.#reached("online");
    if (error.status === 404 && entry.path.endsWith("/retract")) return this.#done(entry);
    entry.refused = error.message;
    await this.#shelf.put(entry);
    this.#changed();
  }

  async #refresh() {
    const stored = await this.#shelf.all().catch(() => []);
    const writing = this.entries.filter((entry) => entry.seq === undefined);
    const known = new Set(stored.map((entry) => entry.id));
    this.entries = [...stored.filter((entry) => entry.who === this.#who), ...writing.filter((entry) => !known.has(entry.id))];
    this.#changed();
  }

  async #moveToMemory() {
    const memory = inMemory();
    for (const entry of this.entries) await memory.put(entry);
    return memory;
  }

  async #rest(ms) {
    await Promise.race([sleep(ms), new Promise((resolve) => (this.#wake = () => resolve(undefined)))]);
  }

  #reached(net) {
    this.net = net;
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** Runs work in only one tab of this browser at a time, if the browser supports locks. Sending the same id twice is harmless anyway. */
function alone(work) {
  return navigator.locks ? navigator.locks.request("d3po-outbox", work) : work();
}
