/** @file The dashboard's tables: rounds, annotators, pictures by round. */

import { short } from "./charts.js";
import { byId, count, h } from "./dom.js";

/** Replaces the content of a part of the page. @param {string} id @param {Node} content */
export function fill(id, content) {
  byId(id).replaceChildren(content);
}

/**
 * Makes a table.
 * @param {string[]} heads
 * @param {(Node|string)[][]} rows
 * @param {string} empty  the text to show if there are no rows
 */
export function table(heads, rows, empty) {
  if (rows.length === 0) return h("p", { class: "quiet" }, empty);
  const head = h("tr", {}, ...heads.map((name) => h("th", { scope: "col" }, name)));
  const body = rows.map(([first, ...others]) => h("tr", {}, h("th", { scope: "row" }, first), ...others.map((cell) => h("td", {}, cell))));
  return h("table", {}, h("thead", {}, head), h("tbody", {}, ...body));
}

/** The table of rounds. @param {any[]} list */
export function rounds(list) {
  const rows = [...list].reverse().map((round) => [
    `Round ${round.round}`,
    round.phases.at(-1)?.phase ?? "",
    h("span", {}, meter(round.answered, round.wanted), ` ${round.answered} of ${round.wanted}`),
    String(round.questions),
    agreed(round.agreement),
  ]);
  return table(["Round", "Last phase", "Answers", "Questions", "Agreement (alpha)"], rows, "No question has been asked yet.");
}

/** @param {{alpha: number|null, low: number, high: number, pairs: number}|null} agreement */
function agreed(agreement) {
  if (agreement === null) return "–";
  const { alpha, low, high, pairs } = agreement;
  if (pairs === 0) return h("span", { class: "quiet" }, "no pair was compared by two people");
  if (alpha === null) return h("span", { class: "quiet" }, `only ties on ${count(pairs, "pair")}`);
  return `${alpha.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)}), ${count(pairs, "pair")}`;
}

function meter(value, max) {
  return h("progress", { value, max: Math.max(1, max), "aria-label": `${value} of ${max} answers` });
}

/** The table of annotators. @param {any[]} list */
export function people(list) {
  const rows = list.map((one) => [
    one.handle,
    one.kind,
    short(one.votes),
    one.gold_asked ? `${one.gold_right} of ${one.gold_asked}${range(one.gold_low, one.gold_high)}` : "–",
    one.again_asked ? `${one.again_same} of ${one.again_asked}` : "–",
    one.left_share === null ? "–" : share(one.left_share),
    one.median_rt_ms === null ? "–" : `${(one.median_rt_ms / 1000).toFixed(1)} s`,
    one.fast_share === null ? "–" : share(one.fast_share),
    String(one.intransitive),
    one.suspicions.length ? h("span", { class: "warn" }, one.suspicions.join("; ")) : "",
  ]);
  const heads = ["Handle", "Kind", "Votes", "Gold right", "Same again", "Left", "Median time", "Under 0.3 s", "Intransitive", "To check"];
  return table(heads, rows, "Nobody has voted yet.");
}

const share = (value) => `${Math.round(100 * value)} %`;
const range = (low, high) => (low === null || high === null ? "" : ` (${share(low)}–${share(high)})`);

/**
 * The table of sample pictures, with a row for each prompt and a column for each round.
 * @param {{series: string, prompts: string[], images: number[][]}[]} grids
 */
export function samples(grids) {
  const sorted = [...grids].sort((a, b) => order(a.series) - order(b.series));
  const prompts = sorted[0]?.prompts ?? [];
  const rows = prompts.map((prompt, i) => [prompt, ...sorted.map((grid) => pictures(grid, i))]);
  return table(["Prompt", ...sorted.map(({ series }) => label(series))], rows, "No pictures yet.");
}

function pictures({ series, images, prompts }, row) {
  const all = (images[row] ?? []).map((id, i) => {
    const picture = h("img", { src: `/v1/images/${id}`, alt: `${label(series)}, ${prompts[row]}, ${i + 1}`, loading: "lazy", width: 72, height: 72 });
    picture.addEventListener("load", () => picture.classList.toggle("pixels", picture.naturalWidth <= 72));
    return picture;
  });
  return h("div", { class: "contact" }, ...all);
}

/** The name of a series for people: "held-out/round-000" becomes "round 0". */
function label(series) {
  const name = series.split("/").at(-1) ?? series;
  return name.replace(/round-0*(\d)/, "round $1");
}

const order = (series) => (/base$/.test(series) ? -1 : Number(/(\d+)\D*$/.exec(series)?.[1] ?? 0));

/** A duration in words, such as "3 min" or "2 h". @param {number} ms */
export function ago(ms) {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return "less than a minute";
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}
