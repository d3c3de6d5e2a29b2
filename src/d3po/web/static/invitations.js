/** @file Invites people, and withdraws invitations. */

import { call } from "./api.js";
import { confirmed } from "./confirm.js";
import { byId, h } from "./dom.js";
import { fill, table } from "./tables.js";

/** Connects the form, and shows the list. */
export function startInvitations() {
  byId("invite").addEventListener("submit", invite);
  byId("copy-link").addEventListener("click", copy);
  list();
}

async function list() {
  const { invitations } = await call("GET", "/v1/invitations").catch(() => ({ invitations: [] }));
  fill("invitations", table(["Handle", "Role", "Valid until", "Browsers", ""], invitations.map(row), "Nobody is invited yet."));
}

function row({ id, handle, role, expires_at: expires, revoked_at: revoked, sessions }) {
  const over = revoked !== null ? "withdrawn" : expires < Date.now() ? "expired" : new Date(expires).toLocaleDateString();
  const button = h("button", { type: "button", class: "tool", "aria-label": `Withdraw the invitation of ${handle}`, onclick: () => revoke(id, handle) }, "Withdraw");
  return [handle, role, over, String(sessions), revoked === null ? button : ""];
}

async function invite(event) {
  event.preventDefault();
  const form = event.target;
  const { handle, role, days } = Object.fromEntries(new FormData(form));
  try {
    const { link } = await call("POST", "/v1/invitations", { handle, role, days: Number(days) });
    byId("invited").hidden = false;
    byId("invited-link").textContent = link;
    news(`${handle} is invited.`);
    form.elements.handle.value = "";
  } catch (error) {
    news(`That did not work: ${error.message}`);
  }
  list();
}

async function revoke(id, handle) {
  if (!(await confirmed(`Withdraw ${handle}'s invitation?`, "Their open pages stop working. Their votes are kept.", "Withdraw"))) return;
  try {
    await call("DELETE", `/v1/invitations/${id}`);
    news(`${handle}'s invitation is withdrawn.`);
  } catch (error) {
    news(`That did not work: ${error.message}`);
  }
  list();
}

async function copy() {
  const link = byId("invited-link");
  try {
    await navigator.clipboard.writeText(link.textContent);
    news("The link is copied.");
  } catch {
    getSelection()?.selectAllChildren(link);
    news("The link is selected; copy it with Ctrl + C.");
  }
}

function news(words) {
  byId("invite-news").textContent = words;
}
