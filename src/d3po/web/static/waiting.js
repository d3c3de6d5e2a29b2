/** @file Shows why there is nothing to rate at the moment, or that the run has ended. */

import { call, sleep } from "./api.js";
import { byId, expose, h } from "./dom.js";

const POLL_MS = [1500, 2500, 4000, 6000, 10_000];
/** For the beginnings of a phase's name: the title and the words to show, and whether the run has ended. */
const PHASES = [
  { begins: ["sampl"], title: "New pictures are being made", words: "The model is drawing the next pictures with what it has learnt." },
  { begins: ["train"], title: "The model is learning from your votes", words: "New pictures follow as soon as it is ready." },
  { begins: ["eval", "report"], title: "The model is being tested", words: "It is drawing pictures for prompts that it was not trained on." },
  { begins: ["blind"], title: "The last answers are being collected", words: "After that, the report is written." },
  { begins: ["pause"], title: "The run is paused", words: "This page continues automatically when the run does." },
  { begins: ["done", "finish", "end"], title: "All done. Thank you!", words: "This run is complete, and every answer counted.", end: true },
  { begins: ["stop", "fail"], title: "The run has ended. Thank you!", words: "All your votes are kept.", end: true },
];
const QUIET = {
  begins: [],
  title: "Nothing to rate at the moment",
  words: "You have answered all questions. New ones appear here automatically.",
  end: false,
};

/** @param {string} [phase] */
export function describe(phase = "") {
  return PHASES.find(({ begins }) => begins.some((start) => phase.startsWith(start))) ?? QUIET;
}

/** The state in which there is no question to show. */
export class Waiting {
  #queue;
  #on = false;
  #spell = 0;
  /** @type {{phase: string, message: string, round: number|null}|null} the server's last answer to /v1/me */
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

  /** Ends the waiting, because there is a question. Returns whether there was none before. */
  end() {
    const was = this.#on;
    this.#on = false;
    this.#card.remove();
    return was;
  }

  /** Asks the server at growing intervals, and not at all while the page is hidden. */
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
    const news = begins.length && !phase.startsWith("blind") ? message : ""; // while others rate, the trainer's message does not concern this annotator
    const away = this.#queue.trouble !== null && !end; // the page of a run that has ended is often not served any more
    expose({ state: end ? "done" : "waiting", phase });
    if (away) return this.#tell("The server cannot be reached", "Your votes are kept. The page continues automatically.", true);
    if (!this.#queue.empty && !end) return this.#tell("Loading pictures", "", true);
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
