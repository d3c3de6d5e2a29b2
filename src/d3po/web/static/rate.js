/** @file The rating page: connects the queue of questions, the outbox of answers, the keyboard and the stage. */

import { ApiError, SIGNED_OUT, call, sleep } from "./api.js";
import { byId, count, expose, h, letDialogsClose, openDialog } from "./dom.js";
import { openHelp } from "./help.js";
import { Keys, caption } from "./keys.js";
import { MODES, picks } from "./modes/index.js";
import { Outbox } from "./outbox.js";
import { Pace } from "./pace.js";
import { Queue } from "./queue.js";
import { showSaving } from "./saving.js";
import { Session } from "./session.js";
import { openShelf } from "./store.js";
import { Stage } from "./view.js";
import { Waiting } from "./waiting.js";

const IGNORE_MS = 150; // a key pressed this soon after new pictures appeared was meant for the ones before
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 10_000;
const PAN_STEP = 0.1;
const ZOOM_STEP = 1.5;
const PANS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/** @type {import("./modes/index.js").Choice[]} */
const COMMON = [
  { name: "skip", label: "Skip", key: "s" },
  { name: "flag", label: "Report", key: "x" },
  { name: "undo", label: "Undo", key: "u" },
  { name: "compare", label: "Compare (hold)", key: "f" },
  { name: "zoom.in", label: "Zoom in", key: "+" },
  { name: "zoom.out", label: "Zoom out", key: "-" },
  { name: "zoom.reset", label: "Whole picture", key: "z" },
  { name: "help", label: "Keys and help", key: "?" },
];
/** Only in a blind test, of pairs. */
const END_TEST = { name: "end_test", label: "Skip the blind test", key: "t", modes: ["pair"] };
const TITLES = { pair: "Two pictures", best_worst: "Best and worst", rank: "Order", grid: "Mark", thumb: "Thumbs", score: "1 to 5" };

const keys = new Keys([...COMMON, END_TEST, ...picks, ...Object.values(MODES).flatMap((mode) => mode.actions)]);
const stage = new Stage(byId("stage"));
/** @type {Outbox} */ let outbox;
/** @type {Queue} */ let queue;
/** @type {Session} */ let session;
/** @type {Pace} */ let pace;
/** @type {Waiting} */ let waiting;
/** What the mode's actions do with the current question. @type {Record<string, () => void>} */
let moves = {};
let paintedAt = 0;
let shown = 0;
let barOf = "";
/** Whether who rates here may end a blind test. */
let mayEnd = false;

async function start() {
  expose({ state: "loading" });
  navigator.serviceWorker?.register("/worker.js").catch(() => {}); // without it, the page only cannot be reloaded while the server is unreachable
  const me = await whoRates().catch((error) => error);
  if (me instanceof Error) return showNoAccess(me);
  byId("handle").textContent = me.handle;
  mayEnd = me.role === "admin";
  byId("to-dashboard").hidden = !mayEnd;
  pace = new Pace(me.rate_per_minute ?? 0);
  outbox = await Outbox.open(me.handle);
  queue = new Queue({ has: (assignment) => outbox.holds(assignment), count: () => outbox.waiting.length });
  session = new Session(me.handle, outbox, queue);
  waiting = new Waiting(queue);
  outbox.addEventListener("change", () => showSaving(outbox));
  outbox.addEventListener("sent", () => queue.refill());
  queue.addEventListener("change", () => void (showProgress(), session.current || showNothing()));
  session.addEventListener("turn", show);
  showSaving(outbox);
  listen();
  queue.refill();
  outbox.send();
}

/** Asks the server who the annotator is, again and again while it cannot be reached. */
async function whoRates() {
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(2 * wait, LONGEST_WAIT_MS)) {
    try {
      return await call("GET", "/v1/me");
    } catch (error) {
      if (!(error instanceof ApiError && error.passing)) throw error;
      await showAway();
      await Promise.race([sleep(Math.max(wait, error.retryAfterMs)), new Promise((resolve) => addEventListener("online", resolve, { once: true }))]);
    }
  }
}

/** Says that the server cannot be reached. The page comes from the browser's cache, and the votes are kept in the browser. */
async function showAway() {
  const shelf = await openShelf();
  const entries = await shelf.all().catch(() => []);
  showSaving({ net: "offline", durable: true, waiting: entries.filter((entry) => !entry.refused), refused: [] });
  const words = "Your votes are kept in this browser. The page continues automatically.";
  byId("ask").textContent = "";
  stage.say(h("div", { class: "card" }, h("h2", {}, "The server cannot be reached"), h("p", {}, words)));
  expose({ state: "offline" });
}

function showNoAccess(error) {
  const gone = error.signedOut || error.status === 403;
  const words = gone ? SIGNED_OUT : `The page could not start: ${error.message}.`;
  byId("ask").textContent = "";
  stage.say(h("div", { class: "card" }, h("h2", {}, gone ? "You are not signed in" : "The page could not start"), h("p", {}, words)));
  expose({ state: gone ? "signed-out" : "failed" });
  if (!gone) setTimeout(() => location.reload(), 5000);
}

/** Shows the current question. */
function show() {
  const { current } = session;
  if (!current) return showNothing();
  const { item, pictures, broken } = current;
  if (waiting.end()) say("", `Here is a question: ${item.prompt}`);
  const mode = MODES[item.kind];
  byId("prompt").textContent = item.prompt;
  byId("ask").textContent = `${inTest() ? "Blind test: one of the two was drawn before training. " : ""}${item.instruction || mode.ask}`;
  drawBar(item.kind, mode.actions);
  moves = broken ? showBroken() : mode.open({ item, pictures, stage, answer, say, allow, cap });
  for (const choice of mode.actions) if (broken) allow(choice.name, false);
  showProgress();
  showTrail();
  expose({ state: "rating", kind: item.kind, assignment: item.assignment, broken });
  markPaint();
}

function showBroken() {
  const words = "One of these pictures is missing on the server. Skip the question, or report it.";
  stage.say(h("div", { class: "card" }, h("h2", {}, "A picture is missing"), h("p", {}, words)));
  return {};
}

function showNothing() {
  moves = {};
  barOf = "";
  byId("answers").replaceChildren();
  byId("prompt").textContent = "";
  byId("ask").textContent = "";
  waiting.begin(stage);
  showTrail();
}

/** Records when the pictures are on the screen. Until then answers are ignored. */
function markPaint() {
  paintedAt = Infinity;
  const turn = session.current;
  requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      if (session.current !== turn) return;
      paintedAt = performance.now();
      if (performance.getEntriesByName("answer").length) expose({ paintMs: performance.measure("answer-to-paint", "answer").duration.toFixed(1) });
      performance.clearMarks("answer");
      expose({ shown: ++shown });
    };
    channel.port2.postMessage(null);
  });
}

/** @param {object} given @param {string} glyph @param {string} said */
function answer(given, glyph, said) {
  if (!session.current || performance.now() - paintedAt < IGNORE_MS) return;
  const took = performance.now() - paintedAt;
  pace.beat();
  session.answer(given, glyph, said, took);
  const next = session.current ? `Next: ${session.current.item.prompt}` : "";
  say(pace.breakDue ? `${count(pace.given, "answer")} so far, thank you. This is a good moment for a short break.` : `${said}.`, next);
}

async function undo() {
  const past = await session.undo();
  if (!past) return say("There is nothing to undo.");
  pace.back();
  say(`Undone: ${past.said}. The question is shown again.`);
}

const inTest = () => queue.progress?.phase === "blind test";

/** Ends the blind test: the run continues with the answers so far. */
async function endTest() {
  if (!inTest() || !mayEnd) return;
  try {
    await call("POST", "/v1/control", { action: "end_test" });
  } catch (error) {
    return say(`The test could not be ended: ${error.message}. Try again.`);
  }
  queue.clear();
  session.advance();
  say("The test is over. Thank you.");
}

/** Carries out an action. @param {string} name */
function act(name) {
  const common = {
    skip: () => answer({ outcome: "skip" }, "·", "Skipped"),
    flag: openFlag,
    undo,
    compare: () => stage.compare(true),
    "zoom.in": () => stage.zoomBy(ZOOM_STEP),
    "zoom.out": () => stage.zoomBy(1 / ZOOM_STEP),
    "zoom.reset": () => (stage.zoom > 1 ? stage.reset() : stage.zoomBy(2)),
    end_test: endTest,
    help: () => openHelp(keys, helpGroups(), relabel),
  };
  (common[name] ?? moves[name])?.();
}

function actionsNow() {
  const kind = session.current?.item.kind;
  return [...COMMON, END_TEST, ...picks, ...(kind ? MODES[kind].actions : [])].filter((action) => !action.modes || action.modes.includes(kind ?? ""));
}

function helpGroups() {
  const kind = session.current?.item.kind ?? "pair";
  const here = { title: TITLES[kind], actions: MODES[kind].actions };
  const number = session.current?.pictures.length ?? 0;
  const picking = { title: "Picking", actions: picks.slice(0, number) };
  const others = Object.entries(MODES).filter(([name]) => name !== kind);
  return [
    here,
    ...(picks[0].modes?.includes(kind) ? [picking] : []),
    { title: "Always", actions: inTest() && mayEnd ? [...COMMON, END_TEST] : COMMON },
    ...others.map(([name, mode]) => ({ title: TITLES[name], actions: mode.actions })),
  ];
}

function listen() {
  addEventListener("keydown", onKey);
  addEventListener("keyup", (event) => keys.read(event, COMMON)?.name === "compare" && stage.compare(false));
  addEventListener("blur", () => stage.compare(false));
  addEventListener("beforeunload", (event) => outbox.waiting.length && event.preventDefault());
  for (const button of document.querySelectorAll("[data-act]")) listenTo(button);
  byId("flag-form").addEventListener("submit", sendFlag);
  letDialogsClose();
}

/** Makes a button carry out its action when it is pressed; "compare" lasts for as long as it is held. */
function listenTo(button) {
  const name = button.dataset.act;
  if (name !== "compare") return button.addEventListener("click", () => (note(), act(name)));
  button.addEventListener("pointerdown", () => act(name));
  for (const end of ["pointerup", "pointerleave", "pointercancel"]) button.addEventListener(end, () => stage.compare(false));
  button.addEventListener("click", (event) => event.detail === 0 && stage.compare(!button.closest("body").dataset.compare.startsWith("t")));
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  if (document.querySelector("dialog[open]") || event.target.closest?.("input, textarea, select")) return;
  if ((event.ctrlKey || event.metaKey) && event.key === "z") return event.preventDefault(), undo();
  if (event.shiftKey && stage.zoom > 1 && PANS[event.key]) return event.preventDefault(), stage.pan(...PANS[event.key].map((step) => step * PAN_STEP));
  if ((event.key === "Enter" || event.key === " ") && event.target.closest?.("button, a, summary")) return; // this key belongs to the focused control
  const action = keys.read(event, actionsNow()) ?? (event.key === "Backspace" ? COMMON[2] : undefined);
  if (!action) return;
  event.preventDefault();
  if (event.repeat) return;
  note(event.timeStamp);
  act(action.name);
}

/** Records when an answer was given, to measure how long the next pictures take to appear. */
function note(startTime = performance.now()) {
  performance.clearMarks("answer");
  performance.mark("answer", { startTime });
}

function drawBar(kind, actions) {
  for (const choice of actions) allow(choice.name, true);
  if (barOf === kind) return;
  barOf = kind;
  const buttons = actions.filter((choice) => choice.button).map((choice) => bigButton(choice));
  byId("answers").replaceChildren(...buttons);
  byId("answers").dataset.kind = kind;
  for (const hint of document.querySelectorAll("[data-act] kbd")) hint.textContent = cap(hint.closest("[data-act]").dataset.act);
}

/** Shows changed keys on the buttons and pictures. */
function relabel() {
  barOf = "";
  const kind = session.current?.item.kind;
  if (kind) drawBar(kind, MODES[kind].actions);
  document.querySelectorAll("#stage .badge").forEach((badge, i) => (badge.textContent = cap(`pick.${i + 1}`)));
}

function bigButton(choice) {
  const words = choice.other ? [h("span", { class: "beside" }, choice.label), h("span", { class: "stacked" }, choice.other)] : [choice.label];
  const button = h("button", { type: "button", class: choice.strong ? "answer strong" : "answer", "data-act": choice.name }, h("kbd", { "aria-hidden": "true" }, cap(choice.name)), h("span", {}, ...words));
  listenTo(button);
  return button;
}

function cap(name) {
  const action = keys.actions.find((a) => a.name === name);
  return action ? caption(keys.of(action)) : "";
}

function allow(name, possible) {
  const button = document.querySelector(`#answers [data-act="${name}"]`);
  button?.setAttribute("aria-disabled", String(!possible));
}

/** Shows a status message. @param {string} words @param {string} [aside] more words for screen readers */
function say(words, aside = "") {
  byId("status").replaceChildren(words, h("span", { class: "hidden" }, ` ${aside}`));
}

function showProgress() {
  const { progress } = queue;
  if (!progress) return;
  const here = outbox.waiting.filter((entry) => entry.path === "/v1/votes").length;
  const done = progress.done + here;
  const left = Math.max(0, progress.left - here);
  byId("progress").max = Math.max(1, done + left);
  byId("progress").value = done;
  byId("done").textContent = `${done.toLocaleString("en")} of ${(done + left).toLocaleString("en")}`;
  byId("rate").textContent = pace.perMinute ? `${Math.round(pace.perMinute)} a minute` : "";
  byId("time-left").textContent = pace.timeLeft(left);
  byId("end-test").hidden = !(inTest() && mayEnd && session.current);
  expose({ done, left, phase: progress.phase, queue: queue.ready.length });
}

/** Shows the last few answers, newest last. */
function showTrail() {
  byId("trail").replaceChildren(...session.past.slice(-6).map(({ glyph }) => h("span", {}, glyph)));
  byId("undo").setAttribute("aria-disabled", String(session.past.length === 0));
  expose({ past: session.past.length });
}

function openFlag() {
  if (!session.current) return;
  byId("flag-form").reset();
  openDialog(byId("flag"));
}

/** @param {SubmitEvent} event */
function sendFlag(event) {
  event.preventDefault();
  const form = new FormData(byId("flag-form"));
  const reason = [form.get("reason"), form.get("words")].map((part) => String(part ?? "").trim()).filter(Boolean).join(": ");
  byId("flag").close();
  note();
  answer({ outcome: "flag", reason }, "⚑", "Reported");
}

start();
