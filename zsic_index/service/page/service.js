// Talking to the service: the token, patience while it is full, and problems as errors.

import { at } from "./texts.js";

/** Requests that are refused for now are sent so often at most. */
const MOST_TRIES = 40;

/** Seconds until the next try where the service does not say. */
const PAUSE = 2;

const FULL = 429, TOO_LATE = 504, UNAUTHORIZED = 401;

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `The service answers with status ${status}.`);
    this.status = status;
    this.results = problem.results ?? [];
  }
}

/** The token lives as long as the tab; where nothing may be kept, as long as the page. */
const token = {
  name: `zsic-index ${location.pathname}`,
  held: null,
  get() {
    try {
      return this.held ?? sessionStorage.getItem(this.name);
    } catch {
      return this.held;
    }
  },
  set(value) {
    this.held = value;
    try {
      if (value === null) sessionStorage.removeItem(this.name);
      else sessionStorage.setItem(this.name, value);
    } catch {
      // It is held, at least.
    }
    at("forget").hidden = value === null;
  },
};

export const hasToken = () => token.get() !== null;

export const forgetToken = () => token.set(null);

/**
 * Ask the service, again after a while when it is full.
 *
 * @param path below the page's own address, so that it works wherever a proxy has put it.
 * @param body a form; without one it is a GET.
 * @param signal ends the asking and the waiting.
 * @param patient whether not being done in time is worth another try, too.
 * @param told is called with what is being waited for, and with "" when that is over.
 */
export async function ask(path, { body, signal, patient = false, told = () => {} } = {}) {
  for (let tries = 1; ; tries += 1) {
    const sent = token.get();
    const answer = await reach(path, body, sent, signal);
    if (answer.ok) return answer.json();
    const refused = new Refused(answer.status, await answer.json().catch(() => ({})));
    if (answer.status === UNAUTHORIZED) {
      if (!(await givesToken(sent))) throw refused;
      continue;
    }
    const passes = answer.status === FULL || (patient && answer.status === TOO_LATE);
    if (!passes || tries >= MOST_TRIES) throw refused;
    const seconds = secondsUntil(answer.headers.get("Retry-After"));
    if (answer.status === FULL) told(`The service is full: trying again in ${seconds} s.`);
    await pause(seconds, signal);
    told("");
  }
}

async function reach(path, body, sent, signal) {
  const headers = sent === null ? {} : { Authorization: `Bearer ${sent}` };
  try {
    return await fetch(path, { method: body ? "POST" : "GET", body, headers, signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, { detail: "The service cannot be reached, or a file has changed." });
  }
}

function secondsUntil(header) {
  const seconds = Number(header ?? PAUSE);
  // It may be a date, too.
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

let asking = null;

/** Have the user give a token; requests that need one at the same time share the question. */
function givesToken(refused) {
  if (token.get() !== refused) return true; // another request has got a new one meanwhile
  asking ??= askForToken(refused !== null).finally(() => (asking = null));
  return asking;
}

function askForToken(again) {
  const dialog = at("token-dialog");
  at("token-title").textContent = again
    ? "This token does not open the service" : "This service needs a token";
  at("token").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const given = at("token").value.trim();
      at("token").value = "";
      if (dialog.returnValue && given) token.set(given);
      resolve(Boolean(dialog.returnValue && given));
    }, { once: true });
  });
}

at("forget").hidden = !hasToken();
at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  at("token-dialog").close("given");
});
at("token-cancel").addEventListener("click", () => at("token-dialog").close());
