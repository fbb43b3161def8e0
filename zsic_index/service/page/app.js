// Images come in, are asked about in turn, and their answers are shown as they arrive.

import {
  chosenIndex, comparison, loadIndexes, onChange, ownTitle, question,
} from "./controls.js";
import { card, changes, show as showCard } from "./results.js";
import { Refused, ask, forgetToken, hasToken } from "./service.js";
import { at, curl, element, number, plural } from "./texts.js";

const CLASSIFY = "v1/classify";

// A request has so many images and bytes at most: answers come in steps, and none is too large.
const MOST_IMAGES = 16, MOST_BYTES = 16 << 20;

const TOO_LARGE = 413;

const images = [];

/** The answers under the index's own templates, and under those that are compared with. */
const column = () => ({
  asked: null, fields: null, title: "", prompts: 0, answers: new Map(), running: null,
  generation: null, since: 0, said: "", trouble: "",
});
const own = column(), other = column();
const last = { names: [], fields: [] };

/** Why there is no index to ask. */
let obstacle = "";

/** What labels are known to be encoded for. */
const encoded = new Set();

// Images

function add(files) {
  for (const file of files) {
    const image = { file, name: file.name || "image", url: URL.createObjectURL(file) };
    image.card = card(image, () => remove(image));
    at("images").append(image.card.made);
    images.push(image);
  }
  tryAgain();
}

let pasted = 0;

/** Name pictures from the clipboard, which are all called the same. */
function named(file) {
  if (!/^image\.\w+$/.test(file.name)) return file;
  pasted += 1;
  return new File([file], file.name.replace("image", `pasted ${pasted}`), { type: file.type });
}

function drop(image) {
  URL.revokeObjectURL(image.url);
  image.card.made.remove();
  for (const { answers } of [own, other]) answers.delete(image);
}

function remove(image) {
  const place = images.indexOf(image);
  images.splice(place, 1);
  drop(image);
  // Whoever goes by keys stays where they were.
  (images[place] ?? images[place - 1])?.card.button.focus();
  if (!images.length) at("choose").focus();
  tryAgain(); // it may have been this one's fault
}

function clear() {
  images.splice(0).forEach(drop);
  tryAgain();
  at("choose").focus();
}

// Asking

/** Ask what has not been asked yet; answers to something else are dropped, even on their way. */
function update() {
  const base = chosenIndex() ? question() : null;
  const compared = base && comparison();
  settle(own, base, compared ? ownTitle() : "", 0);
  settle(other, compared && [...base, ["templates", compared.templates]], compared?.title ?? "",
    compared ? compared.count * chosenIndex().labels : 0);
  render();
}

/** Ask again what went wrong as a whole, even where nothing else is asked. */
function tryAgain() {
  for (const one of [own, other]) one.trouble = "";
  update();
  if (obstacle) start();
}

function settle(column, fields, title, prompts) {
  const asked = JSON.stringify(fields);
  column.title = title;
  if (asked !== column.asked) {
    stop(column);
    Object.assign(column, {
      asked, fields, prompts, answers: new Map(), generation: null, trouble: "" });
  }
  if (fields && !column.running && !column.trouble) run(column);
}

function stop(column) {
  column.running?.abort();
  column.running = null;
  column.said = "";
}

async function run(column) {
  const running = new AbortController();
  column.running = running;
  column.since = performance.now();
  try {
    for (let some = next(column); some.length; some = next(column)) {
      render();
      const found = await classify(column, some, running.signal);
      if (running.signal.aborted) return;
      keep(column, some, found);
    }
  } catch (error) {
    if (running.signal.aborted) return;
    column.trouble = error.message;
    if (!(error instanceof Refused)) console.error(error);
  }
  column.running = null;
  render();
}

function next(column) {
  const some = [];
  let bytes = 0;
  for (const image of images) {
    if (column.answers.has(image)) continue;
    bytes += image.file.size;
    if (some.length && (some.length === MOST_IMAGES || bytes > MOST_BYTES)) break;
    some.push(image);
  }
  return some;
}

/** Return an answer for each of some images, be it an error. */
async function classify(column, some, signal) {
  Object.assign(last, { names: some.map((image) => image.name), fields: column.fields });
  const told = (said) => {
    column.said = said;
    render();
  };
  try {
    return await ask(CLASSIFY, {
      body: form(some, column.fields), signal, told, patient: column === other,
    });
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.results.length === some.length) return error;
    if (error.status !== TOO_LARGE) throw error;
    const { status, message: detail } = error;
    if (some.length === 1) return { results: [{ error: { status, detail } }] };
    // More than this service takes at once: half of them may not be.
    const middle = some.length >> 1;
    const first = await classify(column, some.slice(0, middle), signal);
    const second = await classify(column, some.slice(middle), signal);
    return { ...first, ...second, results: [...first.results, ...second.results] };
  }
}

function form(some, fields) {
  const body = new FormData();
  for (const [key, value] of fields) body.append(key, value);
  for (const { file, name } of some) body.append("images", file, name);
  return body;
}

function keep(column, some, { results, generation }) {
  // An index that was built again meanwhile: what it said before is not to be mixed with this.
  if (generation !== undefined && column.generation !== null && column.generation !== generation) {
    column.answers.clear();
  }
  column.generation = generation ?? column.generation;
  if (generation !== undefined) encoded.add(encoding(column));
  some.forEach((image, place) => {
    if (images.includes(image)) column.answers.set(image, results[place]);
  });
  if (generation !== undefined && generation !== chosenIndex()?.generation) {
    loadIndexes().then(update, () => {});
  }
}

// Showing

function render() {
  const columns = other.fields ? [own, other] : [own];
  const lines = Number(own.fields?.find(([key]) => key === "top_k")[1] ?? 5);
  document.body.classList.toggle("some", images.length > 0);
  at("images").classList.toggle("compared", columns.length > 1);
  for (const image of images) {
    showCard(image.card, columns.map(({ title, answers, trouble }) => ({
      title, lines: trouble || obstacle ? 0 : lines, answer: answers.get(image),
    })));
  }
  renderBar(columns);
  renderTrouble(columns);
}

function renderBar(columns) {
  const count = images.length * columns.length;
  const done = columns.reduce((sum, { answers }) => sum + answers.size, 0);
  const isBusy = columns.some(({ running }) => running) && count > 0;
  at("bar").hidden = images.length === 0;
  at("progress").value = count ? done / count : 0;
  at("progress").classList.toggle("busy", isBusy && done < count);
  at("show-curl").disabled = last.names.length === 0;
  at("download").disabled = isBusy || done === 0;
  const waited = encodes();
  at("seconds").textContent = waited ? `${waited} s` : "";
  say(columns.map(({ said }) => said).find(Boolean) ?? (waited
    ? `Encoding ${plural(other.prompts, "prompt")}, which is done once…`
    : isBusy && done < count ? `Classifying ${plural(images.length, "image")}…` : summary(columns)));
}

/** Which labels under which templates a column's answers need. */
const encoding = ({ fields }) => JSON.stringify(
  fields.filter(([key]) => key === "index" || key === "templates"));

/** For how many seconds labels are being encoded; 0 when it is no use to say so. */
function encodes() {
  const isFirst = other.running && images.length > 0 && !encoded.has(encoding(other));
  return isFirst ? Math.floor((performance.now() - other.since) / 1000) : 0;
}

/** Say something to those who see it and those who hear it, once. */
function say(text) {
  if (at("status").textContent !== text) at("status").textContent = text;
}

function summary(columns) {
  const answers = [...own.answers.values()];
  const refused = answers.filter(({ error }) => error).length;
  const parts = [`${plural(answers.length - refused, "image")} classified`];
  if (refused) parts.push(`${number(refused)} refused`);
  if (columns.length > 1 && other.answers.size) {
    const pairs = images.map((image) => [own.answers.get(image), other.answers.get(image)]);
    const { first, of } = changes(pairs);
    const differ = `the first label differs for ${number(first)}`;
    if (of) parts.push(first ? differ : "the first labels are the same");
  }
  return answers.length ? `${parts.join(", ")}.` : "";
}

function renderTrouble(columns) {
  const troubles = [obstacle, ...columns.map(({ trouble }) => trouble)].filter(Boolean);
  const text = [...new Set(troubles)].join(" ");
  at("trouble").hidden = !text;
  if (at("trouble-what").textContent !== text) at("trouble-what").textContent = text;
}

// Taking the results along

function results() {
  const of = (column) => ({
    index: chosenIndex()?.name, generation: column.generation,
    results: images.filter((image) => column.answers.has(image))
      // A form's encoding changes some characters of names.
      .map((image) => ({ ...column.answers.get(image), image: image.name })),
  });
  return other.fields ? { ...of(own), compared: { templates: other.title, ...of(other) } } : of(own);
}

function download() {
  const text = `${JSON.stringify(results(), null, 2)}\n`;
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  element("a", { href: url, download: "classified.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function showCurl() {
  const url = new URL(CLASSIFY, document.baseURI).href;
  at("curl").value = curl(url, last.names, last.fields, hasToken());
  at("curl-copy").textContent = "Copy";
  at("curl-dialog").showModal();
  at("curl").scrollTop = 0;
}

async function copyCurl() {
  at("curl").select();
  try {
    await navigator.clipboard.writeText(at("curl").value);
  } catch {
    document.execCommand("copy"); // the other way needs https
  }
  at("curl-copy").textContent = "Copied";
}

// Beginning

async function start() {
  try {
    await loadIndexes();
    obstacle = chosenIndex() ? "" : "There are no indexes yet: zsic-index build makes one.";
  } catch (error) {
    obstacle = error.message;
  }
  update();
}

onChange(update);
at("choose").addEventListener("click", () => at("files").click());
at("files").addEventListener("change", () => {
  add([...at("files").files]);
  at("files").value = ""; // the same file may be chosen again
});
at("again").addEventListener("click", tryAgain);
at("clear").addEventListener("click", clear);
at("show-curl").addEventListener("click", showCurl);
at("curl-copy").addEventListener("click", copyCurl);
at("curl-close").addEventListener("click", () => at("curl-dialog").close());
at("download").addEventListener("click", download);
at("forget").addEventListener("click", forgetToken);

const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
const dragged = (is) => document.body.classList.toggle("dragged", is);
document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  dragged(true);
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) dragged(false); // it has left the window
});
document.addEventListener("drop", (event) => {
  dragged(false);
  if (!hasFiles(event)) return;
  event.preventDefault();
  add([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (!files.length) return; // a text, for a field
  event.preventDefault();
  add(files.map(named));
});
setInterval(() => encodes() && renderBar([own, other]), 250);
start();
