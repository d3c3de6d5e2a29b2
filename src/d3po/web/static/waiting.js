/** @file What is shown while there is nothing to rate: why, and for how long; and the end. */

import { call, sleep } from "./api.js";
import { byId, expose, h } from "./dom.js";

const POLL_MS = [1500, 2500, 4000, 6000, 10_000];
/** By how a phase's name begins: what it is called here, what it means for whoever waits, and whether it is the end. */
const PHASES = [
  { begins: ["sampl"], title: "New pictures are being painted", words: "The model draws the next pictures from what it has learnt." },
  { begins: ["train"], title: "The model is learning from your votes", words: "New pictures follow as soon as it is ready." },
  { begins: ["eval", "report"], title: "The model is being tested", words: "It draws pictures for prompts it has not practised." },
  { begins: ["pause"], title: "A short pause", words: "The run has been paused; it goes on by itself." },
  { begins: ["done", "finish", "end"], title: "All done. Thank you!", words: "This run is complete, and every answer counted.", end: true },
  { begins: ["stop", "fail"], title: "That was it. Thank you!", words: "This run has been ended; all your votes are kept.", end: true },
];
const QUIET = {
  begins: [],
  title: "Nothing to rate just now",
  words: "You have answered everything there is. If there is more, it appears here by itself.",
  end: false,
};

/** @param {string} [phase] */
export function describe(phase = "") {
  return PHASES.find(({ begins }) => begins.some((start) => phase.startsWith(start))) ?? QUIET;
}

/** The state without a question. */
export class Waiting {
  #queue;
  #on = false;
  #card = h("div", { class: "card" });

  /** @param {import("./queue.js").Queue} queue */
  constructor(queue) {
    this.#queue = queue;
  }

  /** @param {import("./view.js").Stage} stage */
  begin(stage) {
    if (!this.#card.isConnected) stage.say(this.#card);
    this.#draw(this.#queue.standing?.phase, "");
    if (this.#on) return;
    this.#on = true;
    this.#poll();
  }

  /** There is a question again. Returns whether there was none before. */
  end() {
    const was = this.#on;
    this.#on = false;
    this.#card.remove();
    return was;
  }

  /** Asks gently, and not at all while nobody looks. */
  async #poll() {
    for (let i = 0; this.#on; i++) {
      await sleep(POLL_MS[Math.min(i, POLL_MS.length - 1)] * (0.8 + 0.4 * Math.random()));
      if (!this.#on || document.hidden) continue;
      const me = await call("GET", "/v1/me").catch(() => null);
      if (me && this.#on) this.#draw(me.phase, me.message, me.round);
      await this.#queue.refill();
    }
  }

  #draw(phase, message, round) {
    expose({ state: "waiting" });
    if (this.#queue.trouble) return this.#tell("The server cannot be reached", "Your votes are kept. The page goes on by itself.", true);
    const { title, words, end } = describe(phase);
    if (!this.#queue.dry && !end) return this.#tell("Loading pictures", "", true);
    const where = round === undefined || round === null || end ? "" : `Round ${round}`;
    this.#tell(title, message || words, !end, where);
    expose({ state: end ? "done" : "waiting", phase: phase ?? "" });
  }

  #tell(title, words, busy, where = "") {
    const dots = busy ? h("div", { class: "dots", "aria-hidden": "true" }, h("i"), h("i"), h("i")) : h("div", { class: "tick", "aria-hidden": "true" }, "✓");
    const parts = [dots, h("h2", {}, title), words ? h("p", {}, words) : null, where ? h("p", { class: "quiet" }, where) : null];
    if (this.#card.textContent === parts.map((part) => part?.textContent ?? "").join("")) return;
    this.#card.replaceChildren(...parts.filter((part) => part !== null));
    byId("status").textContent = `${title}. ${words}`;
  }
}
