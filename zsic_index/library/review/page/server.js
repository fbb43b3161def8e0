// Requests to the review server.

import { request } from "./shared/http.js";

const UNREACHABLE = "The review has ended: start 'zsic-index review' again.";

/**
 * Return the content of a response: JSON, or the numbers of a binary one.
 *
 * @param path the address.
 * @param body an object, sent as JSON by POST; without one the request is a GET.
 */
export async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" },
  };
  const response = await request(path, options, UNREACHABLE);
  if (response.headers.get("Content-Type") === "application/octet-stream") {
    return new Float64Array(await response.arrayBuffer());
  }
  return response.json();
}

/** Return why a picture cannot be loaded, which the browser's error event does not say. */
export async function whyNot(url) {
  try {
    await request(url, {}, UNREACHABLE);
    return "The picture cannot be shown.";
  } catch (error) {
    return error.message;
  }
}

let last = Promise.resolve();

/** Run actions one after the other: an undo must arrive after the verdict that it takes back. */
export function inTurn(action) {
  const done = last.then(action, action);
  last = done.catch(() => {});
  return done;
}

/** Wait for the actions that run in turn. */
export const settled = () => last;
