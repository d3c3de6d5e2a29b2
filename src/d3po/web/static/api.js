/** @file Sends requests to the server: JSON in, JSON out, and an error that says what kind of problem it is. */

const TIMEOUT_MS = 15_000;

/** A request that did not succeed. `status` 0: the server could not be reached. */
export class ApiError extends Error {
  /** @param {number} status @param {string} message @param {number} [retryAfterMs] */
  constructor(status, message, retryAfterMs = 0) {
    super(message);
    this.status = status;
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether the same request may succeed later. */
  get passing() {
    return this.status === 0 || this.status === 408 || this.status === 425 || this.status === 429 || this.status >= 500;
  }

  /** Whether the session has ended. */
  get signedOut() {
    return this.status === 401;
  }
}

/** What to do without a session. */
export const SIGNED_OUT = "Open your link again. If you started the server, it printed the link; `d3po invite RUN owner` prints a new one.";

/** The server's clock minus this browser's, in ms. Leases expire by the server's clock. */
export let clockSkew = 0;

/**
 * Sends a request and reads the response.
 * @param {string} method
 * @param {string} path
 * @param {object} [body]
 * @returns {Promise<any>} null for an empty response
 * @throws {ApiError}
 */
export async function call(method, path, body) {
  const response = await reach(method, path, body);
  const date = Date.parse(response.headers.get("date") ?? "");
  if (date) clockSkew = date - Date.now();
  if (response.ok) return response.status === 204 ? null : await response.json().catch(() => null);
  const retryAfter = Number(response.headers.get("retry-after")) || 0;
  throw new ApiError(response.status, await complaint(response), retryAfter * 1000);
}

async function reach(method, path, body) {
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  const payload = body === undefined ? undefined : JSON.stringify(body);
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  try {
    return await fetch(path, { method, headers, body: payload, signal, credentials: "same-origin", cache: "no-store" });
  } catch {
    throw new ApiError(0, "the server cannot be reached");
  }
}

/** The server's error message as one line, whatever its form. */
async function complaint(response) {
  const answer = await response.json().catch(() => null);
  const detail = answer?.detail ?? answer?.error ?? response.statusText;
  if (Array.isArray(detail)) return detail.map((d) => `${(d.loc ?? []).at(-1)}: ${d.msg}`).join("; ");
  return typeof detail === "string" && detail ? detail : `the server responded with status ${response.status}`;
}

/** A random UUID, version 4. `crypto.randomUUID` is not available over plain http. */
export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** @param {number} ms */
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
