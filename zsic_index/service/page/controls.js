// The controls: from the service's indexes to form controls, and from those to a query's fields.

import { ask } from "./service.js";
import { byId, element } from "./shared/dom.js";
import { number, plural } from "./shared/text.js";
import { debounce } from "./shared/timing.js";

const OWN = "\u0000own"; // no template set has this name
const MAX_TOP_K = 1000;
const VISIBLE_TEMPLATES = 2;

const state = { indexes: [], sets: {}, labels: [], onChange: () => {}, nodesOf: null };

const indexPath = (name) => `v1/indexes/${encodeURIComponent(name)}`;

/** Return the chosen index; undefined when there is none. */
export const chosenIndex = () => state.indexes.find(({ name }) => name === byId("index").value);

/** Set the function to call when the controls ask for another query. */
export function onChange(callback) {
  state.onChange = callback;
}

/** Load the list of indexes; choices that are still possible are kept. */
export async function loadIndexes() {
  const { indexes, template_sets: sets, max_template_sets: kept } = await ask("v1/indexes");
  const before = byId("index").value;
  Object.assign(state, { indexes, sets });
  fill(byId("index"), indexes.map(({ name }) => [name, name]), before);
  byId("index").disabled = indexes.length < 2;
  byId("compare-field").hidden = kept === 0;
  if (kept === 0) byId("compare").value = "";
  fill(byId("compare"), kept === 0 ? [["", "nothing"]] : [
    ["", "nothing"],
    ...Object.entries(sets).map(([name, count]) => [name, `${name} (${plural(count, "template")})`]),
    [OWN, "a template of your own"],
  ], byId("compare").value);
  showIndex(before !== byId("index").value);
}

function fill(select, options, chosen) {
  select.replaceChildren(
    ...options.map(([value, text]) => element("option", { value, textContent: text })));
  if (options.some(([value]) => value === chosen)) select.value = chosen;
}

function showIndex(isOther) {
  const index = chosenIndex();
  byId("facts").replaceChildren(...(index ? facts(index) : []));
  if (!index) return;
  // A list without a taxonomy has the single rank "depth 0", which is no choice.
  const ranks = index.ranks.length > 1 || index.ranks[0] !== "depth 0" ? index.ranks : [];
  byId("rank-field").hidden = ranks.length === 0;
  fill(byId("rank"), [["", "labels"], ...ranks.map((rank) => [rank, `nodes: ${rank}`])],
    byId("rank").value);
  byId("lang-field").hidden = index.languages.length === 0;
  fill(byId("lang"), [["", "as built"], ...index.languages.map((tag) => [tag, language(tag)])],
    byId("lang").value);
  byId("calibrated-field").hidden = !index.calibrated;
  if (isOther) {
    state.labels = [];
    byId("among").value = "";
    byId("under").value = "";
    showLabels();
  }
  showControls();
}

function language(tag) {
  try {
    return `${new Intl.DisplayNames(["en"], { type: "language" }).of(tag)} (${tag})`;
  } catch {
    return tag; // not a language tag
  }
}

function facts(index) {
  const lines = {
    Labels: [number(index.labels)],
    Model: [index.model_id ?? "none: it takes ready embeddings only"],
    Activation: [index.activation],
    ...(index.templates.length && { [index.templates.length > 1 ? "Templates" : "Template"]:
      quotedTemplates(index.templates) }),
    ...(index.kind !== "flat" && { Kind: [index.kind] }),
  };
  return Object.entries(lines).flatMap(([term, description]) => [
    element("dt", { textContent: term }), element("dd", {}, ...description)]);
}

function quotedTemplates(templates) {
  const quoted = (template) => element("q", { textContent: template });
  if (templates.length <= VISIBLE_TEMPLATES + 1) return templates.map(quoted);
  const folded = templates.slice(VISIBLE_TEMPLATES);
  return [...templates.slice(0, VISIBLE_TEMPLATES).map(quoted), element("details", {},
    element("summary", { textContent: `and ${folded.length} more` }), ...folded.map(quoted))];
}

/** Show the controls that apply to the current choices. */
function showControls() {
  const isByRank = byId("rank").value !== "";
  const among = isByRank ? "" : byId("among").value;
  byId("among").disabled = isByRank;
  byId("among-note").hidden = !isByRank;
  byId("under-field").hidden = among !== "under";
  byId("labels-field").hidden = among !== "labels";
  byId("none-below-field").hidden = isByRank || among !== "";
  byId("own-field").hidden = byId("compare").value !== OWN;
  byId("options-summary").textContent = changedOptions().map((text) => ` · ${text}`).join("");
}

/** Describe the options of the query, for when they are folded away. */
function changedOptions() {
  const options = queryFields().filter(([key]) => key !== "index")
    .map(([key, value]) => (key === "top_k" ? `best ${value}` : value === "true" ? key : value));
  const compared = comparison();
  return compared ? [...options, `also ${compared.title}`] : options;
}

// The query

const isVisible = (id) => !byId(id).hidden;

function topK() {
  const entered = Math.round(byId("top-k").valueAsNumber);
  return Number.isNaN(entered) ? 5 : Math.min(Math.max(entered, 1), MAX_TOP_K);
}

/** Return the form fields of a request, without its images. */
export function queryFields() {
  const fields = [["index", byId("index").value], ["top_k", String(topK())]];
  const add = (key, value) => value && fields.push([key, value]);
  if (isVisible("rank-field")) add("rank", byId("rank").value);
  if (isVisible("under-field")) add("under", byId("under").value.trim());
  if (isVisible("labels-field")) state.labels.forEach((label) => add("labels", label));
  if (isVisible("none-below-field")) add("none_below", noneBelow());
  if (isVisible("lang-field")) add("lang", byId("lang").value);
  if (isVisible("calibrated-field")) add("calibrated", byId("calibrated").checked ? "true" : "");
  return fields;
}

function noneBelow() {
  const entered = byId("none-below").valueAsNumber;
  return entered >= 0 && entered <= 100 ? String(Number((entered / 100).toPrecision(12))) : "";
}

/** Return the templates to compare with, their title and their number; null for none. */
export function comparison() {
  const chosen = byId("compare").value;
  const own = byId("own").value;
  const isInvalid = chosen === OWN && own.split("{}").length !== 2;
  if (isInvalid) byId("own").setAttribute("aria-invalid", "true");
  else byId("own").removeAttribute("aria-invalid");
  if (!chosen || isInvalid) return null;
  return chosen === OWN
    ? { templates: own, title: own, count: 1 }
    : { templates: chosen, title: `${chosen}: ${plural(state.sets[chosen], "template")}`,
      count: state.sets[chosen] };
}

/** Return the title of the column with the index's own templates. */
export function ownTitle() {
  const own = chosenIndex()?.templates ?? [];
  return own.length === 1 ? own[0] : `${plural(own.length, "template")} of the index`;
}

// A choice of labels

function addLabel() {
  const label = byId("add-label").value.trim();
  if (!label) return;
  byId("add-label").value = "";
  if (!state.labels.includes(label)) state.labels.push(label);
  showLabels();
  changed();
}

function showLabels() {
  byId("chosen-labels").replaceChildren(...state.labels.map((label) => {
    const remove = element("button", { type: "button", textContent: "×",
      attributes: { "aria-label": `Remove ${label}` } });
    remove.addEventListener("click", () => {
      state.labels = state.labels.filter((other) => other !== label);
      showLabels();
      byId("add-label").focus();
      changed();
    });
    return element("li", {}, element("span", { textContent: label }), remove);
  }));
}

/** Fill a datalist from the index's labels; without an answer there are no suggestions. */
async function suggest(list, parameters, names) {
  const index = chosenIndex()?.name;
  const { labels } = await ask(`${indexPath(index)}/labels?${parameters}`)
    .catch(() => ({ labels: [] }));
  if (index !== chosenIndex()?.name) return;
  const distinct = [...new Set(labels.flatMap(names))];
  list.replaceChildren(...distinct.map((value) => element("option", { value })));
}

const suggestLabels = debounce(() => {
  const words = byId("add-label").value.trim();
  if (!words) return;
  const parameters = `limit=20&q=${encodeURIComponent(words)}`;
  suggest(byId("label-suggestions"), parameters, (label) => label.label);
}, 200);

function suggestNodes() {
  if (state.nodesOf === chosenIndex()) return;
  state.nodesOf = chosenIndex();
  suggest(byId("nodes"), "limit=1000", (label) => label.path.slice(0, -1));
}

// Changes

function changed() {
  showControls();
  state.onChange();
}

const changedSoon = debounce(changed, 300);

for (const id of ["rank", "among", "lang", "calibrated", "compare", "top-k", "under", "none-below",
  "own"]) {
  byId(id).addEventListener("change", changed);
}
for (const id of ["top-k", "under", "none-below", "own"]) {
  byId(id).addEventListener("input", changedSoon);
}
byId("index").addEventListener("change", () => {
  showIndex(true);
  state.onChange();
});
byId("under").addEventListener("focus", suggestNodes);
byId("add-label").addEventListener("input", suggestLabels);
byId("add-label-now").addEventListener("click", addLabel);
byId("query").addEventListener("submit", (event) => event.preventDefault());
byId("add-label").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  addLabel();
});
// On a phone, open options would push the images out of sight.
byId("options").open = matchMedia("(min-width: 60rem)").matches;
