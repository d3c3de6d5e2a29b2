/** @file What is shown while there is nothing to rate: why, and for how long; and the end. */

import { call, sleep } from "./api.js";
import { byId, expose, h } from "./dom.js";

const POLL_MS = [1500, 2500, 4000, 6000, 10_000];
/** By how a phase's name begins: what it is called here, what it means for whoever waits, and whether it is the end. */
const PHASES = [
  { begins: ["sampl"], title: "New pictures are being painted", words: "The model draws the next pictures from what it has learnt." },
  { begins: ["train"], title: "The model is learning from your votes", words: "New pictures follow as soon as it is ready." },
  { begins: ["eval", "report"], title: "The model is being tested", words: "It draws pictures for prompts it has not practised." },
  { begins: ["blind"], title: "The last answers are coming in", words: "Then the report is written." },
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
  #spell = 0;
  /** @type {{phase: string, message: string, round: number|null}|null} how things stood when last asked */
  #me = null;
  #card = h("div", { class: "card" });

  /** @param {import("./queue.js").Queue} queue */
  constructor(queue) {
    this.#queue = queue;
  }

  /** @param {import("./view.js").Stage} stage */
  begin(stage) {
    if (!this.#card.isConnected) stage.say(this.#card);
    if (!this.#on) this.#me = null;
    this.#draw();
    if (this.#on) return;
    this.#on = true;
    this.#poll(++this.#spell);
  }

  /** There is a question again. Returns whether there was none before. */
  end() {
    const was = this.#on;
    this.#on = false;
    this.#card.remove();
    return was;
  }

  /** Asks gently, and not at all while nobody looks. */
  async #poll(spell) {
    const mine = () => this.#on && spell === this.#spell;
    for (let i = 0; mine(); i++) {
      await sleep(POLL_MS[Math.min(i, POLL_MS.length - 1)] * (0.8 + 0.4 * Math.random()));
      if (!mine() || document.hidden) continue;
      this.#me = await call("GET", "/v1/me").catch(() => this.#me);
      if (mine()) this.#draw();
      await this.#queue.refill();
    }
  }

  #draw() {
    const phase = this.#me?.phase ?? this.#queue.progress?.phase ?? "";
    const { message = "", round = null } = this.#me ?? {};
    const { title, words, end, begins } = describe(phase);
    const news = begins.length && !phase.startsWith("blind") ? message : ""; // while others rate, the trainer's words are not about whoever waits
    const away = this.#queue.trouble !== null && !end; // a run that is over takes its page away
    expose({ state: end ? "done" : "waiting", phase });
    if (away) return this.#tell("The server cannot be reached", "Your votes are kept. The page goes on by itself.", true);
    if (!this.#queue.dry && !end) return this.#tell("Loading pictures", "", true);
    this.#tell(title, news || words, !end, round === null || end ? "" : `Round ${round}`);
  }

  #tell(title, words, busy, where = "") {
    const dots = busy ? h("div", { class: "dots", "aria-hidden": "true" }, h("i"), h("i"), h("i")) : h("div", { class: "tick", "aria-hidden": "true" }, "✓");
    const parts = [dots, h("h2", {}, title), words ? h("p", {}, words) : null, where ? h("p", { class: "quiet" }, where) : null];
    if (this.#card.textContent === parts.map((part) => part?.textContent ?? "").join("")) return;
    this.#card.replaceChildren(...parts.filter((part) => part !== null));
    byId("status").replaceChildren(h("span", { class: "hidden" }, `${title}. ${words}`));
  }
}
