// The list of labels, and the open one.

import { notify } from "./notices.js";
import { loadPhotos } from "./photos.js";
import { select } from "./selection.js";
import { ask } from "./server.js";
import { byId, element } from "./shared/dom.js";
import { number, plural } from "./shared/text.js";
import { VERDICTS, state } from "./state.js";
import { setThreshold, showThresholds } from "./threshold.js";

let latestSearch = 0, latestLabel = 0;

/** Load the first labels that match the search, or more of them. */
export async function loadLabels(more = false) {
  const turn = (latestSearch += 1);
  const start = more ? state.labels.length : 0;
  const words = encodeURIComponent(byId("search").value);
  const { labels, total } = await ask(`/api/labels?search=${words}&start=${start}`);
  if (turn !== latestSearch) return;
  state.labels = more ? [...state.labels, ...labels] : labels;
  state.totalLabels = total;
  showLabels();
}

function showLabels() {
  byId("label-total").textContent = `${plural(state.totalLabels, "label")}, by tagged photos`;
  byId("labels").replaceChildren(...state.labels.map(createItem));
  byId("more-labels").hidden = state.labels.length >= state.totalLabels;
}

function createItem(label) {
  const counts = element("span", { className: "counts" });
  const descriptions = [`${plural(label.tagged, "photo")} tagged`];
  for (const [verdict, { mark }] of Object.entries(VERDICTS)) {
    if (!label[verdict]) continue;
    counts.append(element("span", { className: verdict, textContent: `${mark}${label[verdict]}` }));
    descriptions.push(`${label[verdict]} ${verdict}`);
  }
  counts.append(element("span", { textContent: number(label.tagged) }));
  const button = element(
    "button", { type: "button", title: descriptions.join(", ") },
    element("span", { className: "name", textContent: label.name }), counts,
  );
  if (label.path.length) {
    const path = label.path.join(" › ");
    button.append(element("span", { className: "path", textContent: path }));
  }
  if (label.id === state.label?.id) button.setAttribute("aria-current", "true");
  return element("li", {}, button);
}

/** Show the counts of a label again, if it is in the list. */
export function refreshLabel(id) {
  const position = state.labels.findIndex((label) => label.id === id);
  if (position >= 0) {
    byId("labels").children[position].replaceWith(createItem(state.labels[position]));
  }
}

export async function openLabel(id) {
  const turn = (latestLabel += 1);
  const [label, probabilities] = await Promise.all([
    ask(`/api/labels/${id}`), ask(`/api/labels/${id}/probabilities`),
  ]);
  if (turn !== latestLabel) return;
  Object.assign(state, { label, probabilities });
  openPicker(false);
  byId("label").hidden = false;
  byId("label-name").textContent = label.name;
  byId("label-path").textContent = label.path.join(" › ");
  document.title = `${label.name} - Review`;
  byId("threshold-note").textContent = "";
  showLabels();
  document.querySelector("#labels [aria-current]")?.scrollIntoView({ block: "nearest" });
  showThresholds();
  setThreshold(label.threshold ?? 1);
  await loadPhotos();
  if (!byId("search").matches(":focus")) select(0);
}

/** Open the next label of the list (step 1), or the previous one (-1). */
export async function stepLabel(step) {
  const current = state.labels.findIndex((label) => label.id === state.label?.id);
  const isAtEnd = current + step >= state.labels.length;
  if (isAtEnd && state.labels.length < state.totalLabels) await loadLabels(true);
  const label = state.labels[current + step];
  if (label) await openLabel(label.id);
  else notify(step > 0 ? "That was the last label." : "This is the first label.");
}

/** Show or hide the list of labels where the window is too narrow for both. */
export function openPicker(isOpen) {
  byId("picker").classList.toggle("open", isOpen);
  byId("open-labels").setAttribute("aria-expanded", String(isOpen));
}
