/** @file Opening an invitation: the token leaves the address bar at once and becomes a session. */

import { ApiError, call } from "./api.js";
import { byId, expose } from "./dom.js";

const token = location.hash.slice(1);
history.replaceState(null, "", location.pathname);

/** @param {string} words @param {string} state */
function say(words, state) {
  byId("message").textContent = words;
  byId("again").hidden = state !== "failed";
  expose({ state });
}

async function join() {
  if (!token) return say("This link has no invitation in it. Ask whoever invited you for a new one.", "refused");
  say("Opening your invitation …", "joining");
  try {
    await call("POST", "/v1/session", { token });
    location.replace("/rate");
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.passing) say("The server cannot be reached just now.", "failed");
    else say("This invitation is used up, expired or was withdrawn. Ask whoever invited you for a new one.", "refused");
  }
}

byId("again").addEventListener("click", join);
join();
