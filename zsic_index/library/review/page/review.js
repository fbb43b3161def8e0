// One label at a time: its photos by probability, decisions by keys, mouse and touch.
"use strict";

const VERDICTS = {
  accepted: { key: "a", mark: "✓", word: "Accepted" },
  rejected: { key: "r", mark: "✕", word: "Rejected" },
  unsure: { key: "u", mark: "?", word: "Unsure" },
};
const FILTERS = {
  all: "All", undecided: "Undecided", near: "Near the threshold", accepted: "Accepted",
  rejected: "Rejected", unsure: "Unsure",
};
// The slider goes by log-odds, from 0.01 % to 99.99 %: small probabilities need as much room.
const STEPS = 1000, MOST_LOG_ODDS = Math.log(0.9999 / 0.0001);

const at = (id) => document.getElementById(id);
const state = {
  session: null, labels: [], total: 0, label: null, sorted: new Float64Array(0), threshold: 0.5,
  shown: "all", photos: [], asked: 0, matching: 0, more: false, selected: 0, enlarged: 0, loading: false,
};

// Talking to the server

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" },
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The review has ended: start 'zsic-index review' again.");
  }
  if (answer.headers.get("Content-Type") === "application/octet-stream") {
    return new Float64Array(await answer.arrayBuffer());
  }
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

let saidTimer;
function say(text) {
  at("said").textContent = text;
  at("said").classList.add("shown");
  clearTimeout(saidTimer);
  saidTimer = setTimeout(() => at("said").classList.remove("shown"), 3000);
}

/** Wrap what a user starts, so that whatever goes wrong is shown. */
const doing = (action) => async (...given) => {
  try {
    return await action(...given);
  } catch (error) {
    say(error.message);
  }
};

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const plural = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;

function percent(probability) {
  const value = probability * 100;
  if (value >= 99.95 && value < 100) return "> 99.9 %";
  if (value >= 0.1 || value === 0) return `${value.toFixed(1)} %`;
  return value >= 1e-4 ? `${Number(value.toPrecision(1))} %` : "< 0.0001 %";
}

// Labels

let searched = 0;
async function loadLabels(more = false) {
  const turn = (searched += 1);
  const start = more ? state.labels.length : 0;
  const words = encodeURIComponent(at("search").value);
  const found = await ask(`/api/labels?search=${words}&start=${start}`);
  if (turn !== searched) return;
  state.labels = more ? [...state.labels, ...found.labels] : found.labels;
  state.total = found.total;
  showLabels();
}

function showLabels() {
  at("label-total").textContent = `${plural(state.total, "label")}, by tagged photos`;
  at("labels").replaceChildren(...state.labels.map(labelItem));
  at("more-labels").hidden = state.labels.length >= state.total;
}

function labelItem(label) {
  const counts = element("span", { className: "counts" });
  const said = [plural(label.tagged, "photo") + " tagged"];
  for (const [verdict, { mark }] of Object.entries(VERDICTS)) {
    if (!label[verdict]) continue;
    counts.append(element("span", { className: verdict, textContent: `${mark}${label[verdict]}` }));
    said.push(`${label[verdict]} ${verdict}`);
  }
  counts.append(element("span", { textContent: label.tagged.toLocaleString("en") }));
  const button = element(
    "button", { type: "button", title: said.join(", ") },
    element("span", { className: "name", textContent: label.name }), counts,
  );
  if (label.path.length) {
    const path = label.path.join(" › ");
    button.append(element("span", { className: "path", textContent: path }));
  }
  if (label.id === state.label?.id) button.setAttribute("aria-current", "true");
  button.addEventListener("click", doing(() => openLabel(label.id)));
  return element("li", {}, button);
}

let opened = 0;
async function openLabel(id) {
  const turn = (opened += 1);
  const [label, sorted] = await Promise.all([
    ask(`/api/labels/${id}`), ask(`/api/labels/${id}/probabilities`),
  ]);
  if (turn !== opened) return;
  state.label = label;
  state.sorted = sorted;
  at("picker").classList.remove("open");
  at("open-labels").setAttribute("aria-expanded", "false");
  at("label").hidden = false;
  at("label-name").textContent = label.name;
  at("label-path").textContent = label.path.join(" › ");
  document.title = `${label.name} - Review`;
  at("threshold-note").textContent = "";
  showLabels();
  document.querySelector("#labels [aria-current]")?.scrollIntoView({ block: "nearest" });
  showThresholds();
  setThreshold(label.threshold ?? 1);
  await loadPhotos();
  if (!at("search").matches(":focus")) select(0);
}

async function stepLabel(step) {
  const now = state.labels.findIndex((one) => one.id === state.label?.id);
  if (now + step >= state.labels.length && state.labels.length < state.total) await loadLabels(true);
  const next = state.labels[now + step];
  if (next) await openLabel(next.id);
  else say(step > 0 ? "That was the last label." : "This is the first label.");
}

// The threshold

const positionOf = (probability) => {
  const inside = Math.min(Math.max(probability, 1e-4), 1 - 1e-4);
  const odds = Math.log(inside / (1 - inside));
  return Math.round((odds / MOST_LOG_ODDS + 1) / 2 * STEPS);
};
const probabilityAt = (position) => {
  const odds = (position / STEPS * 2 - 1) * MOST_LOG_ODDS;
  return Number((1 / (1 + Math.exp(-odds))).toPrecision(3));
};

/** How many photos have at least this probability; they are in descending order. */
function countAbove(threshold) {
  let low = 0, high = state.sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (state.sorted[middle] >= threshold) low = middle + 1;
    else high = middle;
  }
  return low;
}

function setThreshold(threshold, from) {
  state.threshold = threshold;
  if (from !== at("slider")) at("slider").value = positionOf(threshold);
  if (from !== at("percent")) at("percent").value = Number((threshold * 100).toPrecision(4));
  at("slider").setAttribute("aria-valuetext", percent(threshold));
  at("above").textContent = `${plural(countAbove(threshold), "photo")} above`;
  at("use").disabled = threshold === state.label.threshold;
  placeLine();
}

function showThresholds() {
  const { own, otherwise } = state.label;
  at("reset").hidden = own === null;
  const before = otherwise === null ? "never" : percent(otherwise);
  at("reset").textContent = `Back to ${before}`;
  at("above").title = own === null ? "as all labels" : "this label's own threshold";
}

async function useThreshold(threshold) {
  const label = state.label.id;
  const found = await inTurn(() => ask("/api/thresholds", { label, threshold }));
  Object.assign(state.label, found);
  showThresholds();
  setThreshold(found.threshold ?? 1);
  showChanges(found.changes);
  at("threshold-note").textContent = "";
  say(threshold === null ? "As before." : `${state.label.name}: from ${percent(threshold)} on.`);
}

async function fitThreshold() {
  const precision = Number(at("precision").value) / 100;
  const label = state.label.id;
  const found = await inTurn(() => ask("/api/fit", { label, precision }));
  if (label !== state.label.id) return;
  setThreshold(found.threshold);
  at("threshold-note").textContent = `${percent(found.threshold)}: ${found.note}`;
}

// Photos

async function loadPhotos(more = false) {
  const turn = (state.asked += 1);
  const { label, shown, threshold } = state;
  const after = more && state.photos.length ? state.photos[state.photos.length - 1].rank : -1;
  state.loading = true;
  try {
    await waiting.last;
    const found = await ask(
      `/api/labels/${label.id}/photos?shown=${shown}&threshold=${threshold}&after=${after}`);
    if (turn !== state.asked) return;
    if (!more) {
      state.photos = [];
      state.selected = 0;
      at("gallery").replaceChildren();
      document.querySelector("main").scrollTop = 0;
    }
    for (const photo of found.photos) {
      at("gallery").append(tile(photo, state.photos.length));
      state.photos.push(photo);
    }
    state.matching = found.total;
    // Decided photos stay where they are until the filter changes, so nothing jumps away.
    state.more = found.photos.length > 0 && found.photos.length === 120;
    at("more").hidden = !state.more;
    at("nothing").hidden = state.photos.length > 0;
    at("nothing").textContent = shown === "all" ? "No photos." : "No photos with this filter.";
    showFilters();
    placeLine();
  } finally {
    state.loading = false;
  }
}

function tile(photo, place) {
  const image = element("img", { loading: "lazy", decoding: "async", alt: "" });
  image.addEventListener("error", doing(async () => {
    await ask(image.src).catch((error) => {
      image.replaceWith(element("span", { className: "why", textContent: error.message }));
    });
  }));
  image.src = `/photos/${photo.id}/small`;
  const picture = element(
    "button", { type: "button", className: "picture", tabIndex: place ? -1 : 0 },
    image, element("span", { className: "mark" }),
  );
  picture.addEventListener("click", () => { select(place); showLarge(); });
  picture.addEventListener("focus", () => { mark(place); });
  const says = element("div", { className: "says" });
  for (const [verdict, { mark: sign, word }] of Object.entries(VERDICTS)) {
    const button = element("button", {
      type: "button", textContent: sign, title: `${word} (${VERDICTS[verdict].key})`, tabIndex: -1,
    });
    button.dataset.say = verdict;
    button.setAttribute("aria-label", `${word}: ${photo.name}`);
    button.addEventListener("click", doing(() => decide(place, verdict)));
    says.append(button);
  }
  const copies = photo.copies > 1 ? ` ×${photo.copies}` : "";
  const made = element(
    "li", { className: "tile", title: `${photo.folder}/${photo.name}` }, picture,
    element("p", { className: "about" },
      element("b", { textContent: percent(photo.probability) }),
      element("span", { textContent: photo.name + copies })),
    says,
  );
  dress(made, photo);
  return made;
}

/** Show a photo's verdict on its tile. */
function dress(made, photo) {
  if (photo.verdict) made.dataset.verdict = photo.verdict;
  else delete made.dataset.verdict;
  made.querySelector(".mark").textContent = photo.verdict ? VERDICTS[photo.verdict].mark : "";
  for (const button of made.querySelectorAll("[data-say]")) {
    button.setAttribute("aria-pressed", String(button.dataset.say === photo.verdict));
  }
  const said = photo.verdict ? `, ${photo.verdict}` : "";
  made.querySelector(".picture").setAttribute(
    "aria-label", `${photo.name}, ${percent(photo.probability)}${said}`);
}

const tiles = () => at("gallery").querySelectorAll(".tile");

/** Draw the line between the photos above the threshold and those below it. */
function placeLine() {
  at("gallery").querySelector(".line")?.remove();
  const below = state.photos.findIndex((one) => one.probability < state.threshold);
  if (below < 0 || !state.label) return;
  const line = element("li", {
    className: "line", textContent: `below ${percent(state.threshold)}`,
  });
  line.setAttribute("aria-hidden", "true");
  at("gallery").insertBefore(line, tiles()[below]);
}

function mark(place) {
  tiles()[state.selected]?.querySelector(".picture").setAttribute("tabindex", "-1");
  state.selected = place;
  tiles()[place]?.querySelector(".picture").setAttribute("tabindex", "0");
}

/** Go to a photo. */
function select(place) {
  if (!state.photos.length) return;
  mark(Math.min(Math.max(place, 0), state.photos.length - 1));
  const chosen = tiles()[state.selected];
  if (!at("large").open) chosen.querySelector(".picture").focus({ preventScroll: true });
  reveal(chosen);
  if (at("large").open) fillLarge();
  if (state.more && state.selected > state.photos.length - 10) doing(loadPhotos)(true);
}

/** Scroll a tile into view, below the head that stays. */
function reveal(chosen) {
  const main = document.querySelector("main");
  const head = getComputedStyle(at("label")).position === "sticky" ? at("label").offsetHeight : 0;
  const room = main.getBoundingClientRect(), box = chosen.getBoundingClientRect();
  if (box.top < room.top + head + 8) main.scrollBy(0, box.top - room.top - head - 8);
  else if (box.bottom > room.bottom - 8) main.scrollBy(0, box.bottom - room.bottom + 8);
}

function columns() {
  const found = [...tiles()];
  return found.filter((one) => one.offsetTop === found[0].offsetTop).length || 1;
}

/** The photo above or below: the line may stand between. */
function stepRow(step) {
  const found = [...tiles()], now = found[state.selected];
  if (!now) return;
  const width = columns();
  const order = step > 0 ? found.slice(state.selected + 1) : found.slice(0, state.selected).reverse();
  const row = order.find((one) => one.offsetTop !== now.offsetTop)?.offsetTop;
  const inRow = order.filter((one) => one.offsetTop === row);
  const near = (one) => Math.abs(one.offsetLeft - now.offsetLeft);
  const best = inRow.sort((one, other) => near(one) - near(other))[0];
  select(best ? found.indexOf(best) : state.selected + step * width);
}

function showFilters() {
  const counts = { ...state.label.verdicts, all: state.sorted.length };
  const decided = Object.keys(VERDICTS).reduce((sum, one) => sum + state.label.verdicts[one], 0);
  counts.undecided = state.sorted.length - decided;
  at("filters").replaceChildren(...Object.entries(FILTERS).map(([name, words]) => {
    const known = name in counts ? counts[name] : state.shown === name ? state.matching : null;
    const number = known === null ? "" : ` ${known.toLocaleString("en")}`;
    const button = element("button", { type: "button", textContent: words + number });
    button.setAttribute("aria-pressed", String(state.shown === name));
    button.addEventListener("click", doing(async () => {
      state.shown = name;
      await loadPhotos();
      at("filters").querySelector("[aria-pressed=true]").focus();
    }));
    return button;
  }));
}

// Verdicts

const waiting = { last: Promise.resolve() };

/** Do things one after the other: the undo after a decision has to come after it. */
function inTurn(action) {
  const done = waiting.last.then(action, action);
  waiting.last = done.catch(() => {});
  return done;
}

function count(label, before, now) {
  const listed = state.labels.find((one) => one.id === label);
  for (const [verdict, change] of [[before, -1], [now, 1]]) {
    if (!verdict) continue;
    if (listed) listed[verdict] += change;
    if (label === state.label?.id) state.label.verdicts[verdict] += change;
  }
  if (listed) {
    const place = state.labels.indexOf(listed);
    at("labels").children[place].replaceWith(labelItem(listed));
  }
  if (state.label) showFilters();
}

function showChanges(number) {
  at("changes").textContent = number ? number.toLocaleString("en") : "";
  at("changes").hidden = !number;
}

/** Give a verdict; the same one again takes it back. */
async function decide(place, verdict, then = () => {}) {
  const photo = state.photos[place], label = state.label;
  if (!photo) return;
  const before = photo.verdict, now = before === verdict ? null : verdict;
  photo.verdict = now;
  dress(tiles()[place], photo);
  count(label.id, before, now);
  if (at("large").open) fillLarge();
  then();
  try {
    const found = await inTurn(() => ask("/api/verdicts", {
      label: label.id, photo: photo.id, verdict: now,
    }));
    showChanges(found.changes);
  } catch (error) {
    photo.verdict = before;
    if (state.photos[place] === photo) dress(tiles()[place], photo);
    count(label.id, now, before);
    throw error;
  }
}

async function undo() {
  const found = await inTurn(() => ask("/api/undo", {}));
  showChanges(found.changes);
  if (!found.undone) {
    say("Nothing to undo.");
    return;
  }
  const { label, photo: id, verdict } = found.undone;
  if (label.id !== state.label?.id) {
    await loadLabels();
    await openLabel(label.id);
  }
  const place = state.photos.findIndex((one) => one.id === id);
  if (place >= 0) {
    const photo = state.photos[place];
    if (photo.verdict !== verdict) {
      count(label.id, photo.verdict, verdict);
      photo.verdict = verdict;
      dress(tiles()[place], photo);
    }
    select(place);
  } else {
    Object.assign(state.label, await ask(`/api/labels/${label.id}`));
    await loadLabels();
    showFilters();
  }
  say(`Undone: ${label.name} is ${verdict ?? "undecided"} again.`);
}

// A photo in large

function showLarge() {
  if (!state.photos[state.selected]) return;
  fillLarge();
  at("large").showModal();
}

function fillLarge() {
  const photo = state.photos[state.selected];
  state.enlarged = state.selected;
  const source = `/photos/${photo.id}/large`;
  if (!at("large-image").src.endsWith(source)) at("large-image").src = source;
  at("large-image").alt = photo.name;
  at("large-name").textContent = photo.name;
  const said = photo.verdict ? `, ${photo.verdict}` : "";
  at("large-about").textContent = `${state.label.name} ${percent(photo.probability)}${said}`;
  for (const button of at("large").querySelectorAll("[data-say]")) {
    button.setAttribute("aria-pressed", String(button.dataset.say === photo.verdict));
  }
}

// Applying

async function openApply() {
  at("apply-what").textContent = "Counting what would change…";
  at("apply-problems").replaceChildren();
  at("apply-now").disabled = true;
  at("apply-now").hidden = false;
  at("write").disabled = false;
  at("write-what").textContent = "";
  at("apply-dialog").showModal();
  await inTurn(async () => {
    const found = await ask("/api/pending");
    at("apply-what").textContent = found.photos
      ? `${plural(found.photos, "photo")} would change: ${plural(found.added, "tag")} added, `
        + `${found.withdrawn.toLocaleString("en")} withdrawn.`
      : "No photo would get or lose a tag; rejected ones are withdrawn already.";
    at("write-what").textContent =
      found.sidecars ? `(those of ${plural(found.sidecars, "photo")} differ)` : "(all as they are here)";
    at("apply-now").disabled = false;
  });
}

async function applyNow() {
  at("apply-now").disabled = true;
  at("write").disabled = true;
  at("apply-what").textContent = "Applying…";
  const timer = setInterval(doing(async () => {
    const { seen } = await ask("/api/progress");
    if (seen) at("apply-what").textContent = `Applying… ${plural(seen, "photo")} looked at`;
  }), 1000);
  try {
    const found = await inTurn(() => ask("/api/apply", { write: at("write").checked }));
    const lines = [
      `${plural(found.photos, "photo")} changed: ${plural(found.added, "tag")} added, `
        + `${found.withdrawn.toLocaleString("en")} withdrawn.`,
    ];
    if (at("write").checked) {
      lines.push(`${plural(found.written, "sidecar")} written, ${found.removed} removed.`);
    }
    if (found.waiting) {
      lines.push(`${plural(found.waiting, "file")} left to the next run of tag.`);
    }
    clearInterval(timer);
    at("apply-what").textContent = lines.join(" ");
    at("apply-problems").replaceChildren(
      ...found.problems.map((line) => element("li", { textContent: line })));
    at("write-what").textContent = "";
    at("apply-now").hidden = true;
    showChanges(0);
    await loadLabels();
  } catch (error) {
    at("apply-what").textContent = error.message;
    at("apply-now").disabled = false;
    at("write").disabled = false;
  } finally {
    clearInterval(timer);
  }
}

// Keys

function onKey(event) {
  if (event.altKey || event.isComposing) return;
  const typing = event.target.matches("input[type=search], input[type=number]");
  const combined = event.ctrlKey || event.metaKey;
  if (combined && event.key.toLowerCase() === "z" && !typing) {
    event.preventDefault();
    doing(undo)();
    return;
  }
  if (combined || typing) return;
  const dialog = document.querySelector("dialog[open]");
  if (dialog && dialog !== at("large")) return;
  const sliding = event.target === at("slider");
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const verdict = Object.keys(VERDICTS).find((one) => VERDICTS[one].key === key);
  const next = () => select(state.selected + 1);
  const actions = {
    ArrowRight: next,
    ArrowLeft: () => select(state.selected - 1),
    ArrowDown: () => (dialog ? next() : stepRow(1)),
    ArrowUp: () => (dialog ? select(state.selected - 1) : stepRow(-1)),
    z: doing(undo),
    n: doing(() => stepLabel(1)),
    p: doing(() => stepLabel(-1)),
    "?": () => at("help").showModal(),
    "/": () => { openPicker(true); at("search").focus(); },
  };
  let action = actions[key];
  if (verdict) action = doing(() => decide(state.selected, verdict, next));
  if (sliding && key.startsWith("Arrow")) return;
  if (dialog && "np/?".includes(key)) return;
  if (!action) return;
  event.preventDefault();
  action();
}

function openPicker(open) {
  at("picker").classList.toggle("open", open);
  at("open-labels").setAttribute("aria-expanded", String(open));
}

// Beginning

function listen() {
  let timer;
  at("search").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(doing(loadLabels), 150);
  });
  at("search").addEventListener("keydown", doing(async (event) => {
    if (event.key === "Enter" && state.labels.length) {
      at("search").blur();
      await openLabel(state.labels[0].id);
    }
  }));
  const threshold = () => Number(at("percent").value) / 100;
  let near;
  const moved = () => {
    clearTimeout(near);
    if (state.shown === "near") near = setTimeout(doing(loadPhotos), 300);
  };
  at("slider").addEventListener("input", () => {
    setThreshold(probabilityAt(Number(at("slider").value)), at("slider"));
    moved();
  });
  at("percent").addEventListener("input", () => {
    if (threshold() >= 0 && threshold() <= 1) setThreshold(threshold(), at("percent"));
    moved();
  });
  const click = (id, action) => at(id).addEventListener("click", doing(action));
  click("more-labels", () => loadLabels(true));
  click("more", () => loadPhotos(true));
  click("next", () => stepLabel(1));
  click("previous", () => stepLabel(-1));
  click("use", () => useThreshold(state.threshold));
  click("reset", () => useThreshold(null));
  click("fit", fitThreshold);
  click("undo", undo);
  click("apply", openApply);
  click("apply-now", applyNow);
  click("help-button", async () => at("help").showModal());
  click("open-labels", async () => openPicker(!at("picker").classList.contains("open")));
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  for (const button of at("large").querySelectorAll("[data-say]")) {
    button.addEventListener("click", doing(() => decide(state.selected, button.dataset.say)));
  }
  for (const button of at("large").querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => select(state.selected + Number(button.dataset.step)));
  }
  // By then the focus is back where it was before, and has taken the selection with it.
  at("large").addEventListener("close", () => select(state.enlarged));
  at("large-image").addEventListener("error", doing(() => ask(at("large-image").src)));
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  }
  document.addEventListener("keydown", onKey);
  new IntersectionObserver((entries) => {
    if (entries.some((one) => one.isIntersecting) && state.more && !state.loading) {
      doing(loadPhotos)(true);
    }
  }, { rootMargin: "800px" }).observe(at("more"));
}

async function start() {
  // The token has done its work, and has no place in a history.
  history.replaceState(null, "", "/");
  listen();
  state.session = await ask("/api/session");
  const { index, photos, under, writes, changes, precision } = state.session;
  at("about").textContent = `${index}, ${plural(photos, "photo")}${under ? ` in ${under}` : ""}`;
  at("write").checked = writes;
  at("precision").value = precision * 100;
  showChanges(changes);
  await loadLabels();
  if (state.labels.length) await openLabel(state.labels[0].id);
}

doing(start)();
