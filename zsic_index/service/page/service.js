// Requests to the service: with the token, and sent again while the service is busy.

import { byId } from "./shared/dom.js";
import { Refused, request } from "./shared/http.js";

/** Maximum number of times that a request is sent. */
const MAX_TRIES = 40;

/** Seconds until the next try when the service does not say. */
const PAUSE = 2;

const BUSY = 429, TIMED_OUT = 504, UNAUTHORIZED = 401;

const UNREACHABLE = "The service cannot be reached, or a file has changed.";

/** The token, kept for the tab, or for the page where the browser has no storage. */
const token = {
  name: `zsic-index ${location.pathname}`,
  value: null,
  get() {
    try {
      return this.value ?? sessionStorage.getItem(this.name);
    } catch {
      return this.value;
    }
  },
  set(value) {
    this.value = value;
    try {
      if (value === null) sessionStorage.removeItem(this.name);
      else sessionStorage.setItem(this.name, value);
    } catch {
      // No storage: the page keeps it.
    }
    byId("forget").hidden = value === null;
  },
};

export const hasToken = () => token.get() !== null;

export const forgetToken = () => token.set(null);

/**
 * Return the JSON of a response; send the request again while the service is busy.
 *
 * @param path relative to the page, which may be below any path of a proxy.
 * @param body a form, sent by POST; without one the request is a GET.
 * @param signal aborts the request and the waiting.
 * @param patient whether to send the request again after a timeout, too.
 * @param onWait called with a message while waiting, then with "".
 */
export async function ask(path, { body, signal, patient = false, onWait = () => {} } = {}) {
  for (let tries = 1; ; tries += 1) {
    const sent = token.get();
    const headers = sent === null ? {} : { Authorization: `Bearer ${sent}` };
    try {
      const options = { method: body ? "POST" : "GET", body, headers, signal };
      return await (await request(path, options, UNREACHABLE)).json();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === UNAUTHORIZED) {
        if (!(await replaceToken(sent))) throw error;
        continue;
      }
      const isTemporary = error.status === BUSY || (patient && error.status === TIMED_OUT);
      if (!isTemporary || tries >= MAX_TRIES) throw error;
      const seconds = secondsUntil(error.headers.get("Retry-After"));
      if (error.status === BUSY) onWait(`The service is full: trying again in ${seconds} s.`);
      await pause(seconds, signal);
      onWait("");
    }
  }
}

/** Return the seconds that a Retry-After header asks for: a number, or a date. */
function secondsUntil(header) {
  const seconds = Number(header ?? PAUSE);
  const left = Number.isNaN(seconds) ? (Date.parse(header) - Date.now()) / 1000 : seconds;
  return Number.isNaN(left) ? PAUSE : Math.min(Math.max(Math.ceil(left), 1), 60);
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

let answer = null;

/** Ask the user for a token, once for all requests that need one; return whether there is one. */
function replaceToken(refused) {
  if (token.get() !== refused) return true; // another request has a new one already
  answer ??= askForToken(refused !== null).finally(() => (answer = null));
  return answer;
}

function askForToken(again) {
  const dialog = byId("token-dialog");
  byId("token-title").textContent = again
    ? "This token does not open the service" : "This service needs a token";
  byId("token").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const entered = byId("token").value.trim();
      byId("token").value = "";
      if (dialog.returnValue && entered) token.set(entered);
      resolve(Boolean(dialog.returnValue && entered));
    }, { once: true });
  });
}

byId("forget").hidden = !hasToken();
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  byId("token-dialog").close("entered");
});
byId("token-cancel").addEventListener("click", () => byId("token-dialog").close());
