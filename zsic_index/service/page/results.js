// One card per image: its thumbnail, and what it was answered under one or two sets of templates.

import { element, percent } from "./texts.js";

const MOST_PENDING_LINES = 8;

/** Make the card of an image; it has no answers yet. */
export function card(image, remove) {
  const button = element("button", { type: "button", className: "remove plain", textContent: "×",
    attributes: { "aria-label": `Remove ${image.name}` } });
  button.addEventListener("click", remove);
  const answers = element("div", { className: "answers" });
  const made = element("li", { className: "card" },
    element("div", { className: "picture" }, thumbnail(image)),
    element("h3", { textContent: image.name, title: image.name }), button, answers);
  return { made, answers, button, shown: [] };
}

/** What the quieter number of each line is; lines say it themselves to those who hear them. */
const legend = () => element("span", {
  className: "legend", textContent: "similarity", attributes: { "aria-hidden": "true" } });

function thumbnail(image) {
  const shown = element("img", { alt: "", decoding: "async", src: image.url });
  const release = () => URL.revokeObjectURL(image.url);
  shown.addEventListener("load", release);
  shown.addEventListener("error", () => {
    release();
    // The service may know a format that the browser does not.
    const ending = /\.(\w{1,5})$/.exec(image.name)?.[1] ?? "?";
    shown.replaceWith(element("span", { className: "ending", textContent: ending,
      attributes: { "aria-hidden": "true" } }));
  });
  return shown;
}

/**
 * Show answers in a card.
 *
 * @param card of ``card``.
 * @param columns one or two, each with a title, an answer (undefined while there is none), and
 *   how many labels are asked for.
 */
export function show(card, columns) {
  const state = columns.flatMap(({ title, answer, lines }) => [title, answer, lines]);
  if (state.length === card.shown.length && state.every((one, at) => one === card.shown[at])) return;
  card.shown = state;
  const [own, other] = columns;
  card.made.classList.toggle("compared", columns.length > 1);
  const said = columns.flatMap(({ answer }) => answer?.predictions ?? []);
  // While there is no answer it is as the last one was, so that nothing moves about.
  if (said.length) card.made.classList.toggle("similar", said[0].similarity !== undefined);
  card.answers.replaceChildren(...columns.map((column) => {
    const against = columns.length > 1 ? (column === own ? other : own).answer : undefined;
    return section(column, against, column === other);
  }));
}

function section({ title, answer, lines }, against, isOther) {
  const made = element("section", { className: "answer" });
  const heading = title ? [element("h4", { textContent: title })] : [];
  made.append(element("div", { className: "under" }, ...heading, legend()));
  if (!answer) {
    if (lines) made.setAttribute("aria-busy", "true");
    made.append(pending(lines));
  } else if (answer.error) {
    made.append(element("p", { className: "error" },
      element("b", { textContent: `Refused (${answer.error.status})` }),
      ` ${answer.error.detail}`));
  } else {
    made.append(...predictions(answer, against, isOther));
  }
  return made;
}

function pending(lines) {
  const count = Math.min(lines, MOST_PENDING_LINES);
  return element("div", { className: "pending" },
    ...Array.from({ length: count }, () => element("span")));
}

function predictions(answer, against, isOther) {
  const reason = answer.none_of_these ?? (answer.predictions.length ? null : "nothing is probable");
  const said = reason === null ? [] : [element("p", { className: "none" },
    element("b", { textContent: "None of these" }), ` ${reason}`)];
  const places = against?.predictions && new Map(against.predictions.map((one, at) => [key(one), at]));
  const lines = answer.predictions.map((one, at) =>
    line(one, places && move(places.get(key(one)), at, isOther)));
  return [...said, element("ol", { className: "labels", attributes: { role: "list" } }, ...lines)];
}

/** What tells a label or node from all others. */
const key = (one) => one.label_id ?? one.key ?? one.label;

/** How a label's place differs from the one under the other templates; null when it does not. */
function move(before, now, isOther) {
  if (before === undefined) return { mark: "only here", words: "" };
  // One column says how far; the other one's labels have moved just as much.
  if (!isOther || before === now) return before === now ? null : { mark: "", words: "" };
  const by = Math.abs(before - now);
  return before > now ? { mark: `▲\u2009${by}`, words: "higher than in the other column" }
    : { mark: `▼\u2009${by}`, words: "lower than in the other column" };
}

/** How many pairs of answers there are, and in how many the first label differs. */
export function changes(pairs) {
  const both = pairs.filter(([own, other]) => own?.predictions?.length && other?.predictions?.length);
  const first = both.filter(([own, other]) => key(own.predictions[0]) !== key(other.predictions[0]));
  return { of: both.length, first: first.length };
}

function line(one, moved) {
  const made = element("li", {});
  made.append(element("span", { className: "name", textContent: one.label }));
  if (moved) {
    made.classList.add("moved");
    made.append(element("span", { className: "mark", textContent: moved.mark },
      element("span", { className: "unseen", textContent: ` ${moved.words}` })));
  }
  made.append(element("span", { className: "percent", textContent: percent(one.probability) }));
  if (one.similarity !== undefined) {
    made.append(element("span", { className: "similarity", title: "similarity" },
      element("span", { className: "unseen", textContent: "similarity " }),
      one.similarity.toFixed(4)));
  }
  made.append(bar(one.probability));
  const more = details(one);
  if (more) made.append(element("span", { className: "more", textContent: more }));
  return made;
}

function bar(probability) {
  const filled = element("span", {});
  filled.style.width = `${probability * 100}%`;
  return element("span", { className: "bar", attributes: { "aria-hidden": "true" } }, filled);
}

function details(one) {
  const parts = [];
  if (one.path?.length > 1) parts.push(one.path.slice(0, -1).join(" › "));
  const [low, high] = (one.interval ?? []).map(percent);
  // Bounds that read the same say that the probability is exact in the digits that are shown.
  if (low !== high) parts.push(`95\u00a0% interval ${low} to ${high}`);
  if (one.index_probability != null && one.index_probability !== one.probability) {
    parts.push(`${percent(one.index_probability)} over the index`);
  }
  return parts.join(" · ");
}
