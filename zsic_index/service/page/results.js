// One card per image: its thumbnail and its results, with one or two sets of templates.

import { element } from "./shared/dom.js";
import { percent } from "./shared/text.js";

const MAX_PENDING_LINES = 8;

/**
 * Create the card of an image, without results yet.
 *
 * @param image with a name and an object URL.
 * @param remove called when the user removes the image.
 */
export function createCard(image, remove) {
  const button = element("button", { type: "button", className: "remove plain", textContent: "×",
    attributes: { "aria-label": `Remove ${image.name}` } });
  button.addEventListener("click", remove);
  const answers = element("div", { className: "answers" });
  const item = element("li", { className: "card" },
    element("div", { className: "picture" }, thumbnail(image)),
    element("h3", { textContent: image.name, title: image.name }), button, answers);
  return { item, answers, button, state: [] };
}

/** The heading of the similarities; for screen readers each line names its own. */
const legend = () => element("span", {
  className: "legend", textContent: "similarity", attributes: { "aria-hidden": "true" } });

function thumbnail(image) {
  const picture = element("img", { alt: "", decoding: "async", src: image.url });
  const release = () => URL.revokeObjectURL(image.url);
  picture.addEventListener("load", release);
  picture.addEventListener("error", () => {
    release();
    // The service reads some formats that the browser does not.
    const ending = /\.(\w{1,5})$/.exec(image.name)?.[1] ?? "?";
    picture.replaceWith(element("span", { className: "ending", textContent: ending,
      attributes: { "aria-hidden": "true" } }));
  });
  return picture;
}

/**
 * Show results in a card.
 *
 * @param card returned by createCard.
 * @param columns one or two, each with a title, a result (undefined while it is pending), and the
 *   number of labels that were asked for.
 */
export function showCard(card, columns) {
  const state = columns.flatMap(({ title, result, lines }) => [title, result, lines]);
  const isSame = (value, position) => value === card.state[position];
  if (state.length === card.state.length && state.every(isSame)) return;
  card.state = state;
  const [own, other] = columns;
  card.item.classList.toggle("compared", columns.length > 1);
  const predictions = columns.flatMap(({ result }) => result?.predictions ?? []);
  // While results are pending, the layout stays as it was.
  if (predictions.length) {
    card.item.classList.toggle("similar", predictions[0].similarity !== undefined);
  }
  card.answers.replaceChildren(...columns.map((column) => {
    const against = columns.length > 1 ? (column === own ? other : own).result : undefined;
    return section(column, against, column === other);
  }));
}

function section({ title, result, lines }, against, isOther) {
  const answer = element("section", { className: "answer" });
  const heading = title ? [element("h4", { textContent: title })] : [];
  answer.append(element("div", { className: "under" }, ...heading, legend()));
  if (!result) {
    if (lines) answer.setAttribute("aria-busy", "true");
    answer.append(pending(lines));
  } else if (result.error) {
    answer.append(element("p", { className: "error" },
      element("b", { textContent: `Refused (${result.error.status})` }),
      ` ${result.error.detail}`));
  } else {
    answer.append(...predictionLines(result, against, isOther));
  }
  return answer;
}

function pending(lines) {
  const count = Math.min(lines, MAX_PENDING_LINES);
  return element("div", { className: "pending" },
    ...Array.from({ length: count }, () => element("span")));
}

function predictionLines(result, against, isOther) {
  const reason = result.none_of_these ?? (result.predictions.length ? null : "nothing is probable");
  const none = reason === null ? [] : [element("p", { className: "none" },
    element("b", { textContent: "None of these" }), ` ${reason}`)];
  const ranks = against?.predictions
    && new Map(against.predictions.map((prediction, rank) => [key(prediction), rank]));
  const lines = result.predictions.map((prediction, rank) =>
    line(prediction, ranks && move(ranks.get(key(prediction)), rank, isOther)));
  return [...none, element("ol", { className: "labels", attributes: { role: "list" } }, ...lines)];
}

/** Return what identifies a label or node. */
const key = (prediction) => prediction.label_id ?? prediction.key ?? prediction.label;

/** Describe how a label's rank differs from its rank in the other column; null when it does not. */
function move(before, now, isOther) {
  if (before === undefined) return { mark: "only here", words: "" };
  // The second column says how far; in the first column the label is only marked.
  if (!isOther || before === now) return before === now ? null : { mark: "", words: "" };
  const distance = Math.abs(before - now);
  return before > now
    ? { mark: `▲\u2009${distance}`, words: "higher than in the other column" }
    : { mark: `▼\u2009${distance}`, words: "lower than in the other column" };
}

/** Count the pairs of results, and those whose first labels differ. */
export function countChanges(pairs) {
  const both = pairs.filter(([own, other]) => own?.predictions?.length && other?.predictions?.length);
  const first = both.filter(([own, other]) => key(own.predictions[0]) !== key(other.predictions[0]));
  return { total: both.length, first: first.length };
}

function line(prediction, moved) {
  const item = element("li", {});
  item.append(element("span", { className: "name", textContent: prediction.label }));
  if (moved) {
    item.classList.add("moved");
    item.append(element("span", { className: "mark", textContent: moved.mark },
      element("span", { className: "unseen", textContent: ` ${moved.words}` })));
  }
  item.append(element("span", {
    className: "percent", textContent: percent(prediction.probability) }));
  if (prediction.similarity !== undefined) {
    item.append(element("span", { className: "similarity", title: "similarity" },
      element("span", { className: "unseen", textContent: "similarity " }),
      prediction.similarity.toFixed(4)));
  }
  item.append(bar(prediction.probability));
  const more = details(prediction);
  if (more) item.append(element("span", { className: "more", textContent: more }));
  return item;
}

function bar(probability) {
  const filled = element("span", {});
  filled.style.width = `${probability * 100}%`;
  return element("span", { className: "bar", attributes: { "aria-hidden": "true" } }, filled);
}

function details(prediction) {
  const { path, interval, probability, index_probability: overIndex } = prediction;
  const parts = [];
  if (path?.length > 1) parts.push(path.slice(0, -1).join(" › "));
  const [low, high] = (interval ?? []).map(percent);
  // When both bounds read the same, the probability is exact in the digits shown.
  if (low !== high) parts.push(`95\u00a0% interval ${low} to ${high}`);
  if (overIndex != null && overIndex !== probability) {
    parts.push(`${percent(overIndex)} over the index`);
  }
  return parts.join(" · ");
}
