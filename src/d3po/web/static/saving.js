/** @file Shows where the answers are: on the server, waiting to be sent, or refused. */

import { byId, count, expose, h, openDialog } from "./dom.js";

/**
 * Updates the saving status.
 * @param {Pick<import("./outbox.js").Outbox, "net"|"durable"|"waiting"|"refused">} outbox
 */
export function showSaving(outbox) {
  const waiting = outbox.waiting.length;
  const { net, refused } = outbox;
  expose({ unsaved: waiting, refused: refused.length, net });
  const badge = byId("saving");
  badge.dataset.status = refused.length || net === "signed-out" ? "bad" : net === "online" ? (waiting > 1 ? "busy" : "good") : "away";
  const words = sentence(net, waiting, outbox.durable);
  if (badge.textContent !== words) badge.textContent = words;
  byId("show-refused").hidden = refused.length === 0;
  byId("show-refused").textContent = `${count(refused.length, "answer")} refused`;
  byId("show-refused").onclick = () => openRefused(outbox);
}

/** @param {string} net @param {number} waiting @param {boolean} durable */
function sentence(net, waiting, durable) {
  const unsaved = waiting ? `${waiting} unsaved` : "";
  const kept = durable ? "your votes are kept" : "keep this tab open";
  if (net === "signed-out") return `Signed out: open your link again; ${kept}${unsaved && ` · ${unsaved}`}`;
  if (net === "offline") return [`Offline, ${kept}`, unsaved].filter(Boolean).join(" · ");
  if (net === "away") return [`The server is busy, ${kept}`, unsaved].filter(Boolean).join(" · ");
  if (waiting > 1 || (waiting && !durable)) return unsaved;
  return waiting ? "Saving" : "All saved";
}

function openRefused(outbox) {
  const rows = outbox.refused.map((entry) => h("li", {}, entry.refused ?? "", " ", forget(outbox, entry)));
  byId("refused-list").replaceChildren(...rows);
  openDialog(byId("refused"));
}

function forget(outbox, entry) {
  const onclick = async (event) => {
    await outbox.discard(entry);
    event.target.closest("li").remove();
    if (outbox.refused.length === 0) byId("refused").close();
  };
  return h("button", { type: "button", onclick }, "Discard");
}
