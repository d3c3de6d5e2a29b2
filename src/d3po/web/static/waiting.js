/** @file What is shown while there is nothing to rate: why, and for how long; and the end. */

import { call, sleep } from "./api.js";
import { byId, expose, h } from "./dom.js";

const POLL_MS = [1500, 2500, 4000, 6000, 10_000];
const ENDED = new Set(["done", "stopped"]);
const PHASES = {
  sample: ["New pictures are being painted", "The model draws the next pictures from what it has learnt."],
  train: ["The model is learning from your votes", "New pictures follow as soon as it is ready."],
  evaluate: ["The model is being tested", "It draws pictures for prompts it has not practised."],
  vote: ["Nothing to rate just now", "Others have the last questions. If one comes back, it appears here by itself."],
  done: ["All done. Thank you!", "Every question has been answered; this run is complete."],
  stopped: ["All done. Thank you!", "This run has been ended; all your votes are kept."],
};

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

  /** There is a question again. */
  end() {
    this.#on = false;
    this.#card.remove();
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
    if (this.#queue.trouble && !this.#queue.standing) return this.#tell("Just a moment", "The server cannot be reached; the page tries again by itself.", true);
    const ended = ENDED.has(phase ?? "");
    if (!this.#queue.dry && !ended) return this.#tell("Loading pictures", "", true);
    const [title, words] = PHASES[phase ?? "vote"] ?? PHASES.vote;
    const where = round === undefined || round === null || ended ? "" : `Round ${round + 1}`;
    this.#tell(title, message || words, !ended, where);
    expose({ state: ended ? "done" : "waiting", phase: phase ?? "" });
  }

  #tell(title, words, busy, where = "") {
    const dots = busy ? h("div", { class: "dots", "aria-hidden": "true" }, h("i"), h("i"), h("i")) : h("div", { class: "tick", "aria-hidden": "true" }, "✓");
    const parts = [dots, h("h2", {}, title), words ? h("p", {}, words) : null, where ? h("p", { class: "quiet" }, where) : null];
    if (this.#card.textContent === parts.map((part) => part?.textContent ?? "").join("")) return;
    this.#card.replaceChildren(...parts.filter((part) => part !== null));
    byId("status").textContent = `${title}. ${words}`;
  }
}
