/** @file The dashboard: what the trainer is doing, results, annotators, and controls. */

import { ApiError, SIGNED_OUT, call, sleep } from "./api.js";
import { bars, curve, short } from "./charts.js";
import { confirmed } from "./confirm.js";
import { byId, count, expose, h, letDialogsClose } from "./dom.js";
import { startInvitations } from "./invitations.js";
import { ago, fill, people, rounds, samples } from "./tables.js";

const REFRESH_MS = 4000;
const CURVES = {
  people: { title: "People prefer it to the base model", unit: true, middle: 0.5 },
  win_rate: { title: "Win rate over the base model", unit: true, middle: 0.5 },
  agreement: { title: "Agreement of people, by round", middle: 0 },
};
const QUESTIONS = {
  stop: ["Stop the run?", "Everything done so far is kept. The run can be continued later from the command line.", "Stop the run"],
  end_test: ["End the blind test?", "No more answers are collected. The report is written with the answers so far.", "End the test"],
  train_now: ["Train on the votes so far?", "No more votes are collected in this round. Training begins with the votes so far.", "Train now"],
};

/** The data that each part of the page shows, so that only changed parts are redrawn: focus and scroll positions stay. */
const drawn = new Map();

async function start() {
  letDialogsClose();
  for (const button of document.querySelectorAll("[data-control]")) button.addEventListener("click", () => control(button.dataset.control));
  byId("page").querySelector("details").addEventListener("toggle", showAudit);
  startInvitations();
  for (;;) {
    if (!document.hidden && !(await refresh())) return;
    await sleep(REFRESH_MS);
  }
}

/** Fetches and shows everything. Returns whether to refresh again later. */
async function refresh() {
  try {
    show(await call("GET", "/v1/dashboard"));
    lamp("good", "Live");
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.passing) return lamp("away", "Cannot reach the server, trying again");
    turnAway(error);
    return false;
  }
  return true;
}

function lamp(status, words) {
  byId("link").dataset.status = status;
  byId("link").textContent = words;
  return true;
}

function turnAway(error) {
  lamp("bad", "Closed");
  byId("page").hidden = true;
  byId("trouble").hidden = false;
  const words = error.signedOut ? SIGNED_OUT : "This page is for administrators. You can still rate pictures.";
  byId("trouble").replaceChildren(h("h2", {}, "No access"), h("p", {}, words), h("a", { class: "answer", href: "/rate" }, "Rate pictures"));
  expose({ state: "refused" });
}

function show(data) {
  byId("page").hidden = false;
  once("now", [data.phase, data.control, Math.floor(data.now / 60_000)], () => showNow(data));
  once("tiles", [data.votes, data.votes_per_minute.at(-1), data.agreement, data.cost, data.curves, data.measured_by], () => byId("tiles").replaceChildren(...tiles(data)));
  once("alarms", data.alarms, () => showAlarms(data.alarms));
  once("curves", [data.curves, data.measured_by, data.rounds, data.votes_per_minute], () => byId("curves").replaceChildren(...curves(data)));
  once("samples", data.samples, () => {
    byId("samples-panel").hidden = data.samples.length === 0;
    fill("samples", samples(data.samples));
  });
  once("rounds", data.rounds, () => fill("rounds", rounds(data.rounds)));
  once("people", data.annotators, () => fill("people", people(data.annotators)));
  expose({ state: "shown", votes: data.votes, phase: data.phase?.phase ?? "", paused: data.control.paused, stop: data.control.stop });
}

/** Draws a part of the page only if its data has changed. */
function once(name, data, draw) {
  const key = JSON.stringify(data);
  if (drawn.get(name) === key) return;
  drawn.set(name, key);
  draw();
}

function showNow({ phase, control: requested, now }) {
  const round = phase?.round ?? null;
  const doing = phase?.phase ? `${phase.phase[0].toUpperCase()}${phase.phase.slice(1)}` : "Not started";
  byId("now-title").textContent = round === null ? doing : `${doing}, round ${round}`;
  const since = phase?.since ? `since ${ago(now - phase.since)}` : "";
  const commands = [requested.stop && "told to stop", requested.paused && "paused", requested.train_now_round !== null && requested.train_now_round === round && "told to train now"];
  byId("now-words").textContent = [phase?.message, since, ...commands].filter(Boolean).join(" · ");
  byId("page").querySelector(".now").classList.toggle("held", requested.paused || requested.stop);
  setButton("pause", !requested.paused, requested.stop);
  setButton("resume", requested.paused, false);
  const testing = phase?.phase === "blind test";
  setButton("end_test", testing, requested.stop);
  setButton("train_now", !testing, requested.stop || round === null || requested.train_now_round === round);
  setButton("stop", true, requested.stop);
}

function setButton(name, visible, off) {
  const button = document.querySelector(`[data-control="${name}"]`);
  button.hidden = !visible;
  button.disabled = off;
}

async function control(action) {
  const question = QUESTIONS[action];
  if (question && !(await confirmed(...question))) return;
  try {
    await call("POST", "/v1/control", { action });
    await refresh();
  } catch (error) {
    lamp("bad", error.message);
  }
}

function tiles({ votes, votes_per_minute: minutes, agreement, curves: all, cost, measured_by: measured }) {
  const recent = minutes.slice(-6, -1);
  const speed = recent.reduce((sum, minute) => sum + minute.votes, 0) / Math.max(1, recent.length);
  const last = (figure) => all.find(({ name }) => name === figure)?.points.findLast(({ rounds }) => rounds !== 0); // the base model's win rate over itself is not shown
  const wins = last("win_rate");
  const alpha = agreement?.alpha ?? null;
  return [
    ...(measured ? [peoples(last("people"))] : []),
    tile("Votes", short(votes), `${short(speed)} a minute`),
    tile(measured ? `Win rate by ${measured}` : "Win rate", wins ? percent(wins.value) : "–", wins ? interval(wins, percent) : "after the first round"),
    tile("Agreement", alpha === null ? "–" : alpha.toFixed(2), alpha === null ? "needs two annotators" : interval(agreement, (v) => v.toFixed(2))),
    tile("Cost so far", spent(cost.seconds), [`${count(cost.updates, "update")}`, `${short(cost.network_rows)} forward passes`].join(", ")),
  ];
}

/** What people said of the newest policy, blind: the figure that the others stand behind. @param {any} said */
function peoples(said) {
  const note = said
    ? `${interval(said, percent)}, from ${count(said.answers, "blind answer")} about the model after round ${said.rounds - 1}`
    : "blind questions come after the first round";
  return tile("People prefer it to the base model", said ? percent(said.value) : "–", note, "tile headline");
}

function tile(name, value, note, look = "tile") {
  return h("div", { class: look }, h("p", { class: "quiet" }, name), h("p", { class: "figure" }, value), h("p", { class: "quiet" }, note));
}

const percent = (value) => `${Math.round(100 * value)} %`;
const interval = ({ low, high }, words) => (low === null || high === null ? "" : `95 % interval ${words(low)} to ${words(high)}`);
const spent = (seconds) => (seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`);

function showAlarms(alarms) {
  byId("alarms").hidden = alarms.length === 0;
  const rows = alarms.slice(0, 8).map(({ at, round, message, stops }) =>
    h("li", {}, h("strong", {}, stops ? "Stopped: " : "Warning: "), message, h("span", { class: "quiet" }, ` round ${round ?? "–"}, ${new Date(at).toLocaleString()}`)),
  );
  byId("alarms").replaceChildren(h("h2", {}, "Alarms"), h("ul", {}, ...rows));
}

function curves({ curves: all, rounds: counts, votes_per_minute: minutes, measured_by: measured }) {
  const ofReward = measured ? { win_rate: `Win rate by ${measured}`, mean_score: `Mean ${measured}` } : {};
  const order = Object.keys(CURVES);
  const rank = ({ name }) => (order.indexOf(name) + order.length + 1) % (order.length + 1);
  const drawings = [...all, agreementByRound(counts)].filter(({ points }) => points.length).sort((a, b) => rank(a) - rank(b)).map(({ name, points }) => {
    const how = CURVES[name] ?? { title: named(name) };
    return curve(ofReward[name] ?? how.title, points.map(point), how);
  });
  return [...drawings.slice(0, 1), bars("Votes a minute", minutes), ...drawings.slice(1)];
}

/** A point for every round in which two or more people compared the same pair. The table of rounds says why others have none. */
function agreementByRound(counts) {
  const measured = counts.filter(({ agreement }) => agreement !== null && agreement.alpha !== null);
  return { name: "agreement", points: measured.map(({ round, agreement: { alpha, low, high } }) => ({ rounds: round + 1, round, value: alpha, low, high })) };
}

function point({ rounds: after, round, value, low, high }, index) {
  const x = after ?? (round === null ? index : round + 1);
  return { x, label: x === 0 ? "base" : `round ${x - 1}`, value, low, high };
}

const named = (name) => `${name[0].toUpperCase()}${name.slice(1)}`.replaceAll("_", " ");

async function showAudit(event) {
  if (!event.target.open) return;
  const { entries, intact } = await call("GET", "/v1/audit").catch(() => ({ entries: [], intact: null }));
  const verdict = intact === null ? "The log cannot be read at the moment." : intact ? "The log is intact." : "The log was changed: its chain of hashes is broken.";
  const rows = entries.slice(0, 50).map(({ at, actor, action, detail }) => h("li", {}, `${new Date(at).toLocaleString()} · ${actor} · ${action} ${brief(detail)}`));
  byId("audit").replaceChildren(h("p", { class: "quiet" }, verdict), h("ul", {}, ...rows));
}

const brief = (detail) => Object.entries(detail).map(([name, value]) => `${name} ${value}`).join(", ");

start();
