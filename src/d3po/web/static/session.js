/** @file A rating session: the current question, the answers given, and undo. */

import { uuid } from "./api.js";
import { decode } from "./queue.js";

const MOST_UNDOS = 500;
const PICTURES_KEPT = 6;
const DAY_MS = 24 * 60 * 60 * 1000;

/**
 * @typedef {object} Past
 * @property {string} vote    the vote's id
 * @property {import("./queue.js").Item} item
 * @property {string} glyph   the answer as one symbol
 * @property {string} said    the answer in words
 * @property {HTMLImageElement[]} [pictures] while they are still in memory
 */

/** Fires `turn` when the current question changes, also to none. */
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

  /** Makes the next question the current one. */
  advance() {
    const had = this.current;
    this.current = this.#queue.take();
    this.#queue.refill(this.current?.item.assignment ?? "");
    if (had || this.current) this.dispatchEvent(new Event("turn"));
  }

  /**
   * Answers the current question and advances to the next one.
   * @param {object} answer  the body that the server expects, without ids
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

  /** Withdraws the last answer and makes its question the current one again. Returns the withdrawn answer. */
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
    this.past.splice(0, this.past.length - MOST_UNDOS);
    this.past.slice(0, -PICTURES_KEPT).forEach((past) => delete past.pictures);
    clearTimeout(this.#saving);
    this.#saving = setTimeout(() => this.#save(), 200); // later, because the next pictures come first
  }

  #save() {
    try {
      const kept = this.past.map(({ pictures: _, ...past }) => past);
      sessionStorage.setItem(`d3po.past.${this.#who}`, JSON.stringify(kept));
    } catch {
      /* the browser stores nothing: answers can be undone until the page is left */
    }
  }
}

/** The value that this tab stores under a name, or a new one. */
function remembered(name, fresh) {
  try {
    const kept = JSON.parse(sessionStorage.getItem(name) ?? "null") ?? fresh();
    sessionStorage.setItem(name, JSON.stringify(kept));
    return kept;
  } catch {
    return fresh();
  }
}
