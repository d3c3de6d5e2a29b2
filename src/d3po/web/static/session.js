/** @file A sitting: the question on the table, the answers given, and the way back. */

import { uuid } from "./api.js";
import { decode } from "./queue.js";

const LONGEST_WAY_BACK = 500;
const PICTURES_KEPT = 6;
const DAY_MS = 24 * 60 * 60 * 1000;

/**
 * @typedef {object} Past
 * @property {string} vote    the id it was cast under
 * @property {import("./queue.js").Item} item
 * @property {string} glyph   the answer as one sign
 * @property {string} said    the answer in words
 * @property {HTMLImageElement[]} [pictures] while they are still at hand
 */

/** Fires `turn` when another question is on the table, or none. */
export class Session extends EventTarget {
  /** @type {import("./queue.js").Ready|undefined} */
  current;
  /** @type {Past[]} */
  past;
  #outbox;
  #queue;
  #who;
  #saving = 0;
  #client = remembered("d3po.tab", () => uuid());
  #others = new BroadcastChannel("d3po-session");

  /** @param {string} who @param {import("./outbox.js").Outbox} outbox @param {import("./queue.js").Queue} queue */
  constructor(who, outbox, queue) {
    super();
    this.#who = who;
    this.#outbox = outbox;
    this.#queue = queue;
    this.past = remembered(`d3po.past.${who}`, () => []);
    for (const { item } of this.past) queue.drop(item.assignment);
    this.#others.onmessage = ({ data }) => data.who === who && this.#heard(data);
    queue.addEventListener("change", () => !this.current && queue.ready.length > 0 && this.advance());
    addEventListener("pagehide", () => this.#save());
  }

  /** Lays the next question on the table. */
  advance() {
    const had = this.current;
    this.current = this.#queue.take();
    this.#queue.refill(this.current?.item.assignment ?? "");
    if (had || this.current) this.dispatchEvent(new Event("turn"));
  }

  /**
   * Answers the question on the table and goes on.
   * @param {object} answer  as the server wants it, without ids
   * @param {string} glyph
   * @param {string} said
   * @param {number} took    ms since the pictures were painted
   */
  answer(answer, glyph, said, took) {
    if (!this.current) return;
    const { item, pictures } = this.current;
    const vote = uuid();
    const body = { id: vote, assignment: item.assignment, ...answer, rt_ms: Math.min(DAY_MS, Math.round(took)), client: this.#client };
    this.#outbox.put({ id: vote, assignment: item.assignment, path: "/v1/votes", body });
    this.#queue.drop(item.assignment);
    this.past.push({ vote, item, glyph, said, pictures });
    this.#remember();
    this.#others.postMessage({ who: this.#who, answered: item.assignment });
    this.advance();
  }

  /** Takes the last answer back and lays its question on the table again. Returns what was taken back. */
  async undo() {
    const last = this.past.pop();
    if (!last) return undefined;
    this.#remember();
    const { item, vote } = last;
    const id = uuid();
    this.#outbox.put({ id, assignment: item.assignment, path: `/v1/votes/${vote}/retract`, body: { id } });
    this.#others.postMessage({ who: this.#who, withdrawn: item.assignment });
    this.#queue.allow(item.assignment);
    if (this.current) this.#queue.putBack(this.current);
    this.current = last.pictures ? { item, pictures: last.pictures, broken: false } : await this.#reload(item);
    this.#queue.refill(item.assignment);
    this.dispatchEvent(new Event("turn"));
    return last;
  }

  async #reload(item) {
    return (await decode(item)) ?? { item, pictures: [], broken: true };
  }

  #heard({ answered, withdrawn }) {
    if (withdrawn) return this.#queue.allow(withdrawn);
    this.#queue.drop(answered);
    if (this.current?.item.assignment === answered) this.advance();
  }

  #remember() {
    this.past.splice(0, this.past.length - LONGEST_WAY_BACK);
    this.past.slice(0, -PICTURES_KEPT).forEach((past) => delete past.pictures);
    clearTimeout(this.#saving);
    this.#saving = setTimeout(() => this.#save(), 200); // not now: the next pictures come first
  }

  #save() {
    try {
      const kept = this.past.map(({ pictures: _, ...past }) => past);
      sessionStorage.setItem(`d3po.past.${this.#who}`, JSON.stringify(kept));
    } catch {
      /* a browser that keeps nothing: the way back ends with the page */
    }
  }
}

/** What this tab remembers under a name, or a fresh start. */
function remembered(name, fresh) {
  try {
    const kept = JSON.parse(sessionStorage.getItem(name) ?? "null") ?? fresh();
    sessionStorage.setItem(name, JSON.stringify(kept));
    return kept;
  } catch {
    return fresh();
  }
}
