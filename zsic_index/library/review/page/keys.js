// Keyboard shortcuts.

import { openPicker, stepLabel } from "./labels.js";
import { notifying } from "./notices.js";
import { select, selectInRow } from "./selection.js";
import { byId } from "./shared/dom.js";
import { VERDICTS, state } from "./state.js";
import { decide, undo } from "./verdicts.js";

const next = () => select(state.selected + 1);
const previous = () => select(state.selected - 1);

const VERDICT_ACTIONS = Object.fromEntries(Object.entries(VERDICTS).map(
  ([verdict, { key }]) => [key, notifying(() => decide(state.selected, verdict, next))]));

/** Actions while the dialog with one photo is open. */
const LARGE_ACTIONS = {
  ...VERDICT_ACTIONS,
  ArrowRight: next,
  ArrowLeft: previous,
  ArrowDown: next,
  ArrowUp: previous,
  z: notifying(undo),
};

/** Actions while no dialog is open. */
const ACTIONS = {
  ...LARGE_ACTIONS,
  ArrowDown: () => selectInRow(1),
  ArrowUp: () => selectInRow(-1),
  n: notifying(() => stepLabel(1)),
  p: notifying(() => stepLabel(-1)),
  "?": () => byId("help").showModal(),
  "/": () => { openPicker(true); byId("search").focus(); },
};

export function onKey(event) {
  if (event.altKey || event.isComposing) return;
  const isTyping = event.target.matches("input[type=search], input[type=number]");
  const isCombined = event.ctrlKey || event.metaKey;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  let action;
  if (isTyping) return;
  if (isCombined) {
    if (key === "z") action = notifying(undo);
  } else {
    const dialog = document.querySelector("dialog[open]");
    if (dialog && dialog !== byId("large")) return;
    if (event.target === byId("slider") && key.startsWith("Arrow")) return;
    action = (dialog ? LARGE_ACTIONS : ACTIONS)[key];
  }
  if (!action) return;
  event.preventDefault();
  action();
}
