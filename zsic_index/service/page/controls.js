// What is asked: from the service's indexes to controls, and from those to a request's fields.

import { ask } from "./service.js";
import { at, element, number, plural, settled } from "./texts.js";

const OWN = "\u0000own"; // no template set is called this
const MOST_TOP_K = 1000;
const SHOWN_TEMPLATES = 2;

const state = { indexes: [], sets: {}, labels: [], changed: () => {}, nodesOf: null };

const indexPath = (name) => `v1/indexes/${encodeURIComponent(name)}`;

/** The index that is chosen; undefined while there is none. */
export const chosenIndex = () => state.indexes.find((one) => one.name === at("index").value);

/** Call back whenever something else may be asked. */
export function onChange(changed) {
  state.changed = changed;
}

/** Ask which indexes there are; what was chosen stays so where it can. */
export async function loadIndexes() {
  const found = await ask("v1/indexes");
  const before = at("index").value;
  state.indexes = found.indexes;
  state.sets = found.template_sets;
  fill(at("index"), found.indexes.map(({ name }) => [name, name]), before);
  at("index").disabled = found.indexes.length < 2;
  fill(at("compare"), [
    ["", "nothing"],
    ...Object.entries(found.template_sets).map(([name, count]) => [
      name, `${name} (${plural(count, "template")})`]),
    [OWN, "a template of your own"],
  ], at("compare").value);
  showIndex(before !== at("index").value);
}

function fill(select, options, chosen) {
  select.replaceChildren(
    ...options.map(([value, text]) => element("option", { value, textContent: text })));
  if (options.some(([value]) => value === chosen)) select.value = chosen;
}

function showIndex(isOther) {
  const index = chosenIndex();
  at("facts").replaceChildren(...(index ? facts(index) : []));
  if (!index) return;
  // A plain list of labels has one rank, of no use.
  const ranks = index.ranks.length > 1 || index.ranks[0] !== "depth 0" ? index.ranks : [];
  at("rank-field").hidden = ranks.length === 0;
  fill(at("rank"), [["", "labels"], ...ranks.map((rank) => [rank, `nodes: ${rank}`])],
    at("rank").value);
  at("lang-field").hidden = index.languages.length === 0;
  fill(at("lang"), [["", "as built"], ...index.languages.map((tag) => [tag, language(tag)])],
    at("lang").value);
  at("calibrated-field").hidden = !index.calibrated;
  if (isOther) {
    state.labels = [];
    at("among").value = "";
    at("under").value = "";
    showLabels();
  }
  showControls();
}

function language(tag) {
  try {
    return `${new Intl.DisplayNames(["en"], { type: "language" }).of(tag)} (${tag})`;
  } catch {
    return tag; // not a language's tag
  }
}

function facts(index) {
  const lines = {
    Labels: [number(index.labels)],
    Model: [index.model_id ?? "none: it takes ready embeddings only"],
    Activation: [index.activation],
    ...(index.templates.length && { [index.templates.length > 1 ? "Templates" : "Template"]:
      templates(index.templates) }),
    ...(index.kind !== "flat" && { Kind: [index.kind] }),
  };
  return Object.entries(lines).flatMap(([what, said]) => [
    element("dt", { textContent: what }), element("dd", {}, ...said)]);
}

function templates(all) {
  const quoted = (text) => element("q", { textContent: text });
  const [shown, others] = all.length > SHOWN_TEMPLATES + 1
    ? [all.slice(0, SHOWN_TEMPLATES), all.slice(SHOWN_TEMPLATES)] : [all, []];
  const more = others.length ? [element("details", {},
    element("summary", { textContent: `and ${others.length} more` }), ...others.map(quoted))] : [];
  return [...shown.map(quoted), ...more];
}

/** Show the controls that go with each other. */
function showControls() {
  const ofNodes = at("rank").value !== "";
  const among = ofNodes ? "" : at("among").value;
  at("among").disabled = ofNodes;
  at("among-note").hidden = !ofNodes;
  at("under-field").hidden = among !== "under";
  at("labels-field").hidden = among !== "labels";
  at("none-below-field").hidden = ofNodes || among !== "";
  at("own-field").hidden = at("compare").value !== OWN;
  at("options-said").textContent = said().map((text) => ` · ${text}`).join("");
}

/** What differs from what is asked without any control, for when they are folded away. */
function said() {
  const asked = question().filter(([key]) => key !== "index")
    .map(([key, value]) => (key === "top_k" ? `best ${value}` : value === "true" ? key : value));
  const compared = comparison();
  return compared ? [...asked, `also ${compared.title}`] : asked;
}

// What is asked

const isShown = (id) => !at(id).hidden;

function topK() {
  const asked = Math.round(at("top-k").valueAsNumber);
  return Number.isNaN(asked) ? 5 : Math.min(Math.max(asked, 1), MOST_TOP_K);
}

/** The fields of a request, apart from its images. */
export function question() {
  const fields = [["index", at("index").value], ["top_k", String(topK())]];
  const add = (key, value) => value && fields.push([key, value]);
  if (isShown("rank-field")) add("rank", at("rank").value);
  if (isShown("under-field")) add("under", at("under").value.trim());
  if (isShown("labels-field")) state.labels.forEach((label) => add("labels", label));
  if (isShown("none-below-field")) add("none_below", noneBelow());
  if (isShown("lang-field")) add("lang", at("lang").value);
  if (isShown("calibrated-field")) add("calibrated", at("calibrated").checked ? "true" : "");
  return fields;
}

function noneBelow() {
  const asked = at("none-below").valueAsNumber;
  return asked >= 0 && asked <= 100 ? String(Number((asked / 100).toPrecision(12))) : "";
}

/** What the templates are that are compared with; null for none. */
export function comparison() {
  const chosen = at("compare").value;
  const own = at("own").value;
  const isWrong = chosen === OWN && own.split("{}").length !== 2;
  if (isWrong) at("own").setAttribute("aria-invalid", "true");
  else at("own").removeAttribute("aria-invalid");
  if (!chosen || isWrong) return null;
  return chosen === OWN
    ? { templates: own, title: own, count: 1 }
    : { templates: chosen, title: `${chosen}: ${plural(state.sets[chosen], "template")}`,
      count: state.sets[chosen] };
}

/** What the index's own templates are called. */
export function ownTitle() {
  const own = chosenIndex()?.templates ?? [];
  return own.length === 1 ? own[0] : `${plural(own.length, "template")} of the index`;
}

// Some of the labels

function addLabel() {
  const label = at("add-label").value.trim();
  if (!label) return;
  at("add-label").value = "";
  if (!state.labels.includes(label)) state.labels.push(label);
  showLabels();
  changed();
}

function showLabels() {
  at("chosen-labels").replaceChildren(...state.labels.map((label) => {
    const remove = element("button", { type: "button", textContent: "×",
      attributes: { "aria-label": `Remove ${label}` } });
    remove.addEventListener("click", () => {
      state.labels = state.labels.filter((one) => one !== label);
      showLabels();
      at("add-label").focus();
      changed();
    });
    return element("li", {}, element("span", { textContent: label }), remove);
  }));
}

/** Suggest what there is; nobody misses suggestions that do not come. */
async function suggest(list, query, names) {
  const index = chosenIndex()?.name;
  const found = await ask(`${indexPath(index)}/labels?${query}`).catch(() => ({ labels: [] }));
  if (index !== chosenIndex()?.name) return;
  const distinct = [...new Set(found.labels.flatMap(names))];
  list.replaceChildren(...distinct.map((value) => element("option", { value })));
}

const suggestLabels = settled(() => {
  const words = at("add-label").value.trim();
  if (words) suggest(at("known-labels"), `limit=20&q=${encodeURIComponent(words)}`, nameOf);
}, 200);

const nameOf = (label) => label.label;

function suggestNodes() {
  if (state.nodesOf === chosenIndex()) return;
  state.nodesOf = chosenIndex();
  suggest(at("nodes"), "limit=1000", (label) => label.path.slice(0, -1));
}

// Changes

function changed() {
  showControls();
  state.changed();
}

const changedSoon = settled(changed, 300);

for (const id of ["rank", "among", "lang", "calibrated", "compare", "top-k", "under", "none-below",
  "own"]) {
  at(id).addEventListener("change", changed);
}
for (const id of ["top-k", "under", "none-below", "own"]) {
  at(id).addEventListener("input", changedSoon);
}
at("index").addEventListener("change", () => {
  showIndex(true);
  state.changed();
});
at("under").addEventListener("focus", suggestNodes);
at("add-label").addEventListener("input", suggestLabels);
at("add-label-now").addEventListener("click", addLabel);
at("question").addEventListener("submit", (event) => event.preventDefault());
at("add-label").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  addLabel();
});
// On a phone they would push the images out of sight.
at("options").open = matchMedia("(min-width: 60rem)").matches;
