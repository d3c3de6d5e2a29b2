/** @file K pictures: put them in order, the best first, by dragging them onto places, by clicks or by number keys. Ties are allowed. */

import { h } from "../dom.js";
import { frame } from "../view.js";
import { draggable } from "./drag.js";

const modes = ["rank"];

/** @type {import("./index.js").Mode} */
export const rank = {
  ask: "Put the pictures in order, the best first.",
  actions: [
    { name: "rank.tie", label: "All alike", key: "ArrowUp", modes, button: true },
    { name: "rank.both_bad", label: "All bad", key: "ArrowDown", modes, button: true },
    { name: "rank.equal", label: "Last two equal", key: "=", modes },
    { name: "rank.done", label: "Done", key: "Enter", modes, button: true, strong: true },
  ],
  open(turn) {
    const ranking = new Ranking(turn);
    return {
      ...Object.fromEntries(turn.pictures.map((_, i) => [`pick.${i + 1}`, () => ranking.toggle(i)])),
      "rank.equal": () => ranking.join(ranking.placed - 1),
      "rank.done": () => ranking.done(),
      "rank.tie": () => turn.answer({ outcome: "tie" }, "=", "All alike"),
      "rank.both_bad": () => turn.answer({ outcome: "both_bad" }, "✕", "All bad"),
    };
  },
};

/** The order so far: places from left to right, each empty or holding a picture's index. */
class Ranking {
  #turn;
  #places;
  #equal;
  #frames;
  #slots;
  #links;

  /** @param {import("./index.js").Turn} turn */
  constructor(turn) {
    const { pictures, stage, cap } = turn;
    this.#turn = turn;
    this.#places = /** @type {(number|null)[]} */ (pictures.map(() => null));
    this.#equal = pictures.map(() => false);
    this.#frames = pictures.map((picture, i) =>
      frame(picture, { label: `Picture ${i + 1}`, badge: cap(`pick.${i + 1}`), pressed: false, press: () => !stage.moved && this.toggle(i) }),
    );
    this.#slots = pictures.map((_, place) => h("button", { type: "button", class: "slot", onclick: () => this.#clear(place) }));
    this.#links = pictures.slice(1).map((_, i) => h("button", { type: "button", class: "link", onclick: () => this.join(i + 1) }));
    this.#frames.forEach((f, i) => this.#let(f, () => i));
    this.#slots.forEach((slot, place) => this.#let(slot, () => this.#places[place]));
    const row = this.#slots.flatMap((slot, place) => (place ? [this.#links[place - 1], slot] : [slot]));
    stage.show(pictures, this.#frames, h("div", { class: "shelf", role: "group", "aria-label": "Your order, best first" }, ...row));
    this.#draw();
  }

  /** How many pictures have a place. */
  get placed() {
    return this.#places.filter((picture) => picture !== null).length;
  }

  /** Puts a picture on the next free place, or takes it off its place. @param {number} picture */
  toggle(picture) {
    const place = this.#places.indexOf(picture);
    this.#places[place >= 0 ? place : this.#places.indexOf(null)] = place >= 0 ? null : picture;
    if (place < 0) this.#fillLast();
    this.#draw();
    this.#turn.say(place >= 0 ? `Picture ${picture + 1} removed.` : `Picture ${picture + 1} is number ${this.#places.indexOf(picture) + 1}.`);
  }

  /** Makes this place equal to the one before, or better than it again. @param {number} place */
  join(place) {
    if (place < 1) return;
    this.#equal[place] = !this.#equal[place];
    this.#draw();
    this.#turn.say(`Places ${place} and ${place + 1} are ${this.#equal[place] ? "equal" : "not equal"}.`);
  }

  /** Submits the order if it is complete. */
  done() {
    if (this.placed < this.#places.length) return this.#turn.say("Every picture needs a place first.");
    const { item, answer } = this.#turn;
    const positions = {};
    let value = 0;
    this.#places.forEach((picture, place) => {
      if (!this.#equal[place]) value = place + 1;
      positions[item.images[picture].position] = value;
    });
    answer({ outcome: "rank", positions }, "≡", `Order ${this.#places.map((picture) => picture + 1).join(", ")}`);
  }

  #let(handle, picture) {
    const may = () => this.#turn.stage.zoom === 1 && picture() !== null;
    draggable(handle, { targets: () => this.#slots, may, drop: (place) => this.#move(picture(), place) });
  }

  /** Puts a picture onto a place. A picture that was there gets the other's old place, or none. */
  #move(picture, place) {
    const from = this.#places.indexOf(picture);
    if (from >= 0) this.#places[from] = this.#places[place];
    this.#places[place] = picture;
    this.#fillLast();
    this.#draw();
    this.#turn.say(`Picture ${picture + 1} is number ${place + 1}.`);
  }

  #clear(place) {
    const picture = this.#places[place];
    if (picture !== null) this.toggle(picture);
  }

  /** Puts the last remaining picture onto the last free place. */
  #fillLast() {
    if (this.placed !== this.#places.length - 1) return;
    const missing = this.#frames.findIndex((_, i) => !this.#places.includes(i));
    this.#places[this.#places.indexOf(null)] = missing;
  }

  #draw() {
    this.#frames.forEach((f, i) => {
      const place = this.#places.indexOf(i);
      f.classList.toggle("placed", place >= 0);
      f.dataset.place = place >= 0 ? `${place + 1}.` : "";
      f.setAttribute("aria-pressed", String(place >= 0));
      f.setAttribute("aria-label", place >= 0 ? `Picture ${i + 1}, number ${place + 1}` : `Picture ${i + 1}`);
    });
    this.#slots.forEach((slot, place) => this.#fill(slot, place));
    this.#links.forEach((link, i) => this.#relate(link, i + 1));
    this.#turn.allow("rank.done", this.placed === this.#places.length);
  }

  #fill(slot, place) {
    const picture = this.#places[place];
    const label = picture === null ? `Place ${place + 1}, empty` : `Place ${place + 1}: picture ${picture + 1}; remove it`;
    slot.setAttribute("aria-label", label);
    slot.replaceChildren(picture === null ? `${place + 1}` : h("img", { src: this.#turn.pictures[picture].src, alt: "", draggable: "false" }));
  }

  #relate(link, place) {
    link.setAttribute("aria-label", `Places ${place} and ${place + 1} equal`);
    link.setAttribute("aria-pressed", String(this.#equal[place]));
    link.textContent = this.#equal[place] ? "=" : "›";
  }
}
