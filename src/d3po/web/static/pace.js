/** @file Measures the annotator's speed, and estimates the time left. */

const LOOK_BACK = 30;
const PAUSE_MS = 60_000;
const BREAK_EVERY = 100;

/** The annotator's speed over the last answers, without pauses. */
export class Pace {
  #times = /** @type {number[]} */ ([]);
  given = 0;

  /** @param {number} before votes per minute until now, as the server counts them */
  constructor(before) {
    this.before = before;
  }

  /** Counts an answer that was given now. */
  beat(now = performance.now()) {
    this.given += 1;
    this.#times = [...this.#times.slice(-LOOK_BACK), now];
  }

  /** Uncounts an answer that was undone. */
  back() {
    this.given = Math.max(0, this.given - 1);
    this.#times.pop();
  }

  /** Whether to suggest a break now. */
  get breakDue() {
    return this.given > 0 && this.given % BREAK_EVERY === 0;
  }

  /** Answers a minute, 0 if unknown. */
  get perMinute() {
    const gaps = this.#times.slice(1).map((time, i) => time - this.#times[i]);
    const working = gaps.filter((gap) => gap < PAUSE_MS);
    if (working.length < 4) return this.before;
    return (60_000 * working.length) / working.reduce((a, b) => a + b);
  }

  /** "about 12 min left", or nothing if unknown. @param {number} left */
  timeLeft(left) {
    if (!left || !this.perMinute) return "";
    const minutes = left / this.perMinute;
    return minutes < 1 ? "less than a minute left" : `about ${duration(Math.round(minutes))} left`;
  }
}

function duration(minutes) {
  return minutes < 90 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
}
