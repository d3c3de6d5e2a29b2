/** @file Opens an invitation link: removes the token from the address bar at once, and exchanges it for a session. */

import { ApiError, call } from "./api.js";
import { byId, expose } from "./dom.js";

const token = location.hash.slice(1);
history.replaceState(null, "", location.pathname);

const AGAIN = "Ask the person who invited you for a new one. If you started the server, `d3po invite RUN owner` prints one.";

/** @param {string} words @param {string} state */
function say(words, state) {
  byId("message").textContent = words;
  byId("again").hidden = state !== "failed";
  byId("before").hidden = state !== "refused";
  expose({ state });
}

async function join() {
  if (!token) return say(`This link has no invitation in it. ${AGAIN}`, "refused");
  say("Opening your link …", "joining");
  try {
    await call("POST", "/v1/session", { token });
    location.replace("/rate");
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.passing) say("The server cannot be reached at the moment.", "failed");
    else say(`This link was already used, has expired or was withdrawn. ${AGAIN}`, "refused");
  }
}

byId("again").addEventListener("click", join);
join();
