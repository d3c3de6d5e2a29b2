/** @file Small charts as inline SVG: a curve with its interval, and bars over time. */

import { h, svg } from "./dom.js";

const WIDTH = 460;
const HEIGHT = 190;
const EDGE = { left: 54, right: 24, top: 12, bottom: 28 };

/**
 * @typedef {{x: number, label: string, value: number, low: number|null, high: number|null}} Point
 *
 * Draws a curve through points, with a band from low to high where these are known.
 * @param {string} title
 * @param {Point[]} points
 * @param {{unit?: boolean, middle?: number}} [how]  `unit`: the axis is 0 to 1; `middle`: a line that means "no change"
 */
export function curve(title, points, { unit = false, middle } = {}) {
  const values = points.flatMap(({ value, low, high }) => [value, low ?? value, high ?? value]);
  const y = axis(unit ? [0, 1] : span(values, middle), HEIGHT - EDGE.bottom, EDGE.top);
  const x = axis([points[0].x, points[points.length - 1].x], EDGE.left + 8, WIDTH - EDGE.right);
  const at = (point, value) => `${x.to(point.x).toFixed(1)},${y.to(value).toFixed(1)}`;
  const band = [...points.map((p) => at(p, p.high ?? p.value)), ...[...points].reverse().map((p) => at(p, p.low ?? p.value))];
  return figure(title, summary(title, points), [
    ...rules(y),
    ...(middle === undefined ? [] : [rule(y.to(middle), "middle")]),
    svg("polygon", { class: "band", points: band.join(" ") }),
    svg("polyline", { class: "line", points: points.map((p) => at(p, p.value)).join(" ") }),
    ...points.map((p) => dot(p, x, y)),
    ...ticks(points, x),
  ]);
}

function dot(point, x, y) {
  const { value, low, high } = point;
  const interval = low === null || high === null ? "" : ` (${short(low)} to ${short(high)})`;
  const whisker = interval ? svg("line", { class: "whisker", x1: x.to(point.x), x2: x.to(point.x), y1: y.to(low), y2: y.to(high) }) : null;
  const mark = svg("circle", { class: "dot", cx: x.to(point.x), cy: y.to(value), r: 4 });
  return svg("g", {}, svg("title", {}, `${point.label}: ${short(value)}${interval}`), whisker, mark);
}

/**
 * Draws bars side by side, the newest on the right.
 * @param {string} title
 * @param {{at: number, votes: number}[]} minutes
 */
export function bars(title, minutes) {
  const most = Math.max(4, ...minutes.map(({ votes }) => votes));
  const y = axis([0, most], HEIGHT - EDGE.bottom, EDGE.top);
  const width = (WIDTH - EDGE.left - EDGE.right) / Math.max(1, minutes.length);
  const drawn = minutes.map(({ at, votes }, i) => {
    const box = { x: EDGE.left + i * width, y: y.to(votes), width: Math.max(1, width * 0.8), height: y.to(0) - y.to(votes) };
    return svg("rect", { class: "bar-of", ...box }, svg("title", {}, `${clock(at)}: ${votes}`));
  });
  const total = minutes.reduce((sum, { votes }) => sum + votes, 0);
  const ends = minutes.length ? [text(EDGE.left, "start", clock(minutes[0].at)), text(WIDTH - EDGE.right, "end", "now")] : [];
  return figure(title, `${title}: ${total} in the last ${minutes.length} minutes.`, [...rules(y), ...drawn, ...ends]);
}

function figure(title, description, parts) {
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": description }, ...parts);
  return h("figure", {}, h("figcaption", {}, title), drawing);
}

/** A linear map from numbers to pixels. */
function axis([from, to], start, end) {
  const size = to - from;
  return { from, upto: to, to: (value) => (size ? start + ((value - from) / size) * (end - start) : (start + end) / 2) };
}

/** Five horizontal grid lines with their numbers, with as many decimals as are needed to tell them apart. */
function rules(y) {
  const step = (y.upto - y.from) / 4;
  const decimals = step >= 0.1 ? 2 : Math.ceil(-Math.log10(step));
  const values = Array.from({ length: 5 }, (_, i) => y.from + step * i);
  return values.flatMap((value) => [
    rule(y.to(value), "rule"),
    svg("text", { x: EDGE.left - 7, y: y.to(value) + 4, "text-anchor": "end" }, step < 1 ? String(Number(value.toFixed(decimals))) : short(value)),
  ]);
}

/** Labels under the points, as many as there is room for. */
function ticks(points, x) {
  const every = Math.ceil(points.length / 8);
  return points.filter((_, i) => i % every === 0).map((point) => text(x.to(point.x), "middle", point.label));
}

/** The range of some values with a margin, including `middle`. It is never so narrow that rounding looks like a change. */
function span(values, middle) {
  const all = middle === undefined ? values : [...values, middle];
  const low = Math.min(...all);
  const high = Math.max(...all);
  const air = Math.max((high - low) * 0.1, Math.abs(high) * 0.05) || 1;
  return [low >= 0 && low - air < 0 ? 0 : low - air, high + air];
}

function summary(title, points) {
  const last = points[points.length - 1];
  return `${title}: ${short(last.value)} at ${last.label}, from ${short(points[0].value)} at ${points[0].label}.`;
}

const rule = (y, name) => svg("line", { class: name, x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y, y2: y });
const text = (x, anchor, words) => svg("text", { x, y: HEIGHT - 8, "text-anchor": anchor }, words);
const clock = (at) => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

/** Writes a number with two or three significant digits, and whole from 1000 on. @param {number} value */
export function short(value) {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(value !== 0 && Math.abs(value) < 1 ? 2 : 3)));
}
