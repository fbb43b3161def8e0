// Messages to the user.

import { byId } from "./shared/dom.js";
import { number } from "./shared/text.js";

const VISIBLE_MS = 3000;

let timer;

/** Show a message for a while; screen readers read it out. */
export function notify(text) {
  byId("notice").textContent = text;
  byId("notice").classList.add("visible");
  clearTimeout(timer);
  timer = setTimeout(() => byId("notice").classList.remove("visible"), VISIBLE_MS);
}

/** Return an action that shows the message of an error instead of throwing it. */
export const notifying = (action) => async (...parameters) => {
  try {
    return await action(...parameters);
  } catch (error) {
    return notify(error.message);
  }
};

/** Show the number of verdicts and thresholds that have not been applied. */
export function showChanges(changes) {
  byId("changes").textContent = changes ? number(changes) : "";
  byId("changes").hidden = !changes;
}
