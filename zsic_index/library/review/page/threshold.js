// The threshold of the open label: slider, percentage, count of photos above, fit.

import { notify, showChanges } from "./notices.js";
import { ask, inTurn } from "./server.js";
import { byId } from "./shared/dom.js";
import { percent, plural } from "./shared/text.js";
import { state } from "./state.js";
import { drawLine } from "./tiles.js";

// The slider moves in log-odds from 0.01 % to 99.99 %: small probabilities need as much room.
const STEPS = 1000, LOWEST = 1e-4, MAX_LOG_ODDS = Math.log((1 - LOWEST) / LOWEST);

function positionOf(probability) {
  const inside = Math.min(Math.max(probability, LOWEST), 1 - LOWEST);
  const logOdds = Math.log(inside / (1 - inside));
  return Math.round((logOdds / MAX_LOG_ODDS + 1) / 2 * STEPS);
}

function probabilityAt(position) {
  const logOdds = (position / STEPS * 2 - 1) * MAX_LOG_ODDS;
  return Number((1 / (1 + Math.exp(-logOdds))).toPrecision(3));
}

/** Return how many photos have at least this probability, by bisection. */
function countAbove(threshold) {
  let low = 0, high = state.probabilities.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (state.probabilities[middle] >= threshold) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Show a threshold in all controls but the one that the user is moving. */
export function setThreshold(threshold, source) {
  state.threshold = threshold;
  if (source !== byId("slider")) byId("slider").value = positionOf(threshold);
  if (source !== byId("percent")) {
    byId("percent").value = Number((threshold * 100).toPrecision(4));
  }
  byId("slider").setAttribute("aria-valuetext", percent(threshold));
  byId("above").textContent = `${plural(countAbove(threshold), "photo")} above`;
  byId("use").disabled = threshold === state.label.threshold;
  drawLine();
}

/** Take the threshold from the slider. */
export function onSlider() {
  setThreshold(probabilityAt(Number(byId("slider").value)), byId("slider"));
}

/** Take the threshold from the percentage; one out of range is ignored. */
export function onPercent() {
  const threshold = Number(byId("percent").value) / 100;
  if (threshold >= 0 && threshold <= 1) setThreshold(threshold, byId("percent"));
}

/** Show whether the label has a threshold of its own. */
export function showThresholds() {
  const { own, otherwise } = state.label;
  byId("reset").hidden = own === null;
  const common = otherwise === null ? "never" : percent(otherwise);
  byId("reset").textContent = `Back to ${common}`;
  byId("above").title = own === null ? "as all labels" : "this label's own threshold";
}

/** Give the label a threshold of its own; null removes it. */
export async function useThreshold(threshold) {
  const label = state.label.id;
  const thresholds = await inTurn(() => ask("/api/thresholds", { label, threshold }));
  Object.assign(state.label, thresholds);
  showThresholds();
  setThreshold(thresholds.threshold ?? 1);
  showChanges(thresholds.changes);
  byId("threshold-note").textContent = "";
  notify(threshold === null
    ? "As before." : `${state.label.name}: from ${percent(threshold)} on.`);
}

/** Fit the threshold to the accepted and rejected photos; it is shown, not used yet. */
export async function fitThreshold() {
  const precision = Number(byId("precision").value) / 100;
  const label = state.label.id;
  const fitted = await inTurn(() => ask("/api/fit", { label, precision }));
  if (label !== state.label.id) return;
  setThreshold(fitted.threshold);
  byId("threshold-note").textContent = `${percent(fitted.threshold)}: ${fitted.note}`;
}
