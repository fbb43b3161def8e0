// The service's page: takes images, classifies them in batches, shows results as they arrive.

import {
  chosenIndex, comparison, loadIndexes, onChange, ownTitle, queryFields,
} from "./controls.js";
import { curl } from "./curl.js";
import { countChanges, createCard, showCard } from "./results.js";
import { ask, forgetToken, hasToken } from "./service.js";
import { byId, element } from "./shared/dom.js";
import { Refused } from "./shared/http.js";
import { number, plural } from "./shared/text.js";

const CLASSIFY = "v1/classify";

// Limits of one request, so that results arrive in steps.
const MAX_IMAGES = 16, MAX_BYTES = 16 << 20;

const TOO_LARGE = 413;

const images = [];

/** Return the state of a column of results: one query about all images. */
const column = () => ({
  query: null, fields: null, title: "", prompts: 0, results: new Map(), running: null,
  generation: null, since: 0, waiting: "", error: "",
});

/** Results with the index's own templates, and with those that they are compared with. */
const own = column(), other = column();

const lastRequest = { names: [], fields: [] };

/** Why no query is possible, such as a store without indexes. */
let obstacle = "";

/** Queries whose labels the service has encoded already; see ``encoding``. */
const encoded = new Set();

// Images

function add(files) {
  for (const file of files) {
    const image = { file, name: file.name || "image", url: URL.createObjectURL(file) };
    image.card = createCard(image, () => remove(image));
    byId("images").append(image.card.item);
    images.push(image);
  }
  tryAgain();
}

let pasted = 0;

/** Return a pasted file with a name of its own: the clipboard calls every picture image.png. */
function named(file) {
  if (!/^image\.\w+$/.test(file.name)) return file;
  pasted += 1;
  return new File([file], file.name.replace("image", `pasted ${pasted}`), { type: file.type });
}

function release(image) {
  URL.revokeObjectURL(image.url);
  image.card.item.remove();
  for (const { results } of [own, other]) results.delete(image);
}

function remove(image) {
  const position = images.indexOf(image);
  images.splice(position, 1);
  release(image);
  // Keep the keyboard focus in place.
  (images[position] ?? images[position - 1])?.card.button.focus();
  if (!images.length) byId("choose").focus();
  tryAgain(); // this image may have caused the error
}

function clear() {
  images.splice(0).forEach(release);
  tryAgain();
  byId("choose").focus();
}

// Queries

/** Start the queries that the controls ask for; results of earlier ones are discarded. */
function update() {
  const base = chosenIndex() ? queryFields() : null;
  const compared = base && comparison();
  updateColumn(own, base, compared ? ownTitle() : "", 0);
  updateColumn(other, compared && [...base, ["templates", compared.templates]],
    compared?.title ?? "", compared ? compared.count * chosenIndex().labels : 0);
  render();
}

/** Repeat queries that failed as a whole. */
function tryAgain() {
  for (const column of [own, other]) column.error = "";
  update();
  if (obstacle) start();
}

function updateColumn(column, fields, title, prompts) {
  const query = JSON.stringify(fields);
  column.title = title;
  if (query !== column.query) {
    stop(column);
    Object.assign(column, {
      query, fields, prompts, results: new Map(), generation: null, error: "" });
  }
  if (fields && !column.running && !column.error) run(column);
}

function stop(column) {
  column.running?.abort();
  column.running = null;
  column.waiting = "";
}

async function run(column) {
  const running = new AbortController();
  column.running = running;
  column.since = performance.now();
  try {
    for (let batch = nextBatch(column); batch.length; batch = nextBatch(column)) {
      render();
      const response = await classify(column, batch, running.signal);
      if (running.signal.aborted) return;
      keep(column, batch, response);
    }
  } catch (error) {
    if (running.signal.aborted) return;
    column.error = error.message;
    if (!(error instanceof Refused)) console.error(error);
  }
  column.running = null;
  render();
}

function nextBatch(column) {
  const batch = [];
  let bytes = 0;
  for (const image of images) {
    if (column.results.has(image)) continue;
    bytes += image.file.size;
    if (batch.length && (batch.length === MAX_IMAGES || bytes > MAX_BYTES)) break;
    batch.push(image);
  }
  return batch;
}

/** Return a response with a result or an error for each image. */
async function classify(column, batch, signal) {
  Object.assign(lastRequest, { names: batch.map((image) => image.name), fields: column.fields });
  const onWait = (message) => {
    column.waiting = message;
    render();
  };
  try {
    return await ask(CLASSIFY, {
      body: form(batch, column.fields), signal, onWait, patient: column === other,
    });
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    const { status, message: detail, problem } = error;
    if (problem.results?.length === batch.length) return problem;
    if (status !== TOO_LARGE) throw error;
    if (batch.length === 1) return { results: [{ error: { status, detail } }] };
    // The service takes fewer at once: send both halves.
    const middle = batch.length >> 1;
    const first = await classify(column, batch.slice(0, middle), signal);
    const second = await classify(column, batch.slice(middle), signal);
    return { ...first, ...second, results: [...first.results, ...second.results] };
  }
}

function form(batch, fields) {
  const body = new FormData();
  for (const [key, value] of fields) body.append(key, value);
  for (const { file, name } of batch) body.append("images", file, name);
  return body;
}

function keep(column, batch, { results, generation }) {
  // Results of two generations of an index must not be mixed.
  if (generation !== undefined && column.generation !== null && column.generation !== generation) {
    column.results.clear();
  }
  column.generation = generation ?? column.generation;
  if (generation !== undefined) encoded.add(encoding(column));
  batch.forEach((image, position) => {
    if (images.includes(image)) column.results.set(image, results[position]);
  });
  if (generation !== undefined && generation !== chosenIndex()?.generation) {
    loadIndexes().then(update, () => {});
  }
}

// Display

function render() {
  const columns = other.fields ? [own, other] : [own];
  const lines = Number(own.fields?.find(([key]) => key === "top_k")[1] ?? 5);
  document.body.classList.toggle("some", images.length > 0);
  byId("images").classList.toggle("compared", columns.length > 1);
  for (const image of images) {
    showCard(image.card, columns.map(({ title, results, error }) => ({
      title, lines: error || obstacle ? 0 : lines, result: results.get(image),
    })));
  }
  renderBar(columns);
  renderTrouble(columns);
}

function renderBar(columns) {
  const count = images.length * columns.length;
  const done = columns.reduce((sum, { results }) => sum + results.size, 0);
  const isBusy = columns.some(({ running }) => running) && count > 0;
  byId("bar").hidden = images.length === 0;
  byId("progress").value = count ? done / count : 0;
  byId("progress").classList.toggle("busy", isBusy && done < count);
  byId("show-curl").disabled = lastRequest.names.length === 0;
  byId("download").disabled = isBusy || done === 0;
  const seconds = encodingSeconds();
  byId("seconds").textContent = seconds ? `${seconds} s` : "";
  showStatus(columns.map(({ waiting }) => waiting).find(Boolean) ?? (seconds
    ? `Encoding ${plural(other.prompts, "prompt")}, which is done once…`
    : isBusy && done < count ? `Classifying ${plural(images.length, "image")}…` : summary(columns)));
}

/** Identify the labels and templates that a column's query needs encoded. */
const encoding = ({ fields }) => JSON.stringify(
  fields.filter(([key]) => key === "index" || key === "templates"));

/** Return for how many seconds the service has been encoding labels; 0 when it is not. */
function encodingSeconds() {
  const isFirst = other.running && images.length > 0 && !encoded.has(encoding(other));
  return isFirst ? Math.floor((performance.now() - other.since) / 1000) : 0;
}

/** Show a message that screen readers read out, and only when it changes. */
function showStatus(text) {
  if (byId("status").textContent !== text) byId("status").textContent = text;
}

function summary(columns) {
  const results = [...own.results.values()];
  const refused = results.filter(({ error }) => error).length;
  const parts = [`${plural(results.length - refused, "image")} classified`];
  if (refused) parts.push(`${number(refused)} refused`);
  if (columns.length > 1 && other.results.size) {
    const pairs = images.map((image) => [own.results.get(image), other.results.get(image)]);
    const { first, total } = countChanges(pairs);
    const differ = `the first label differs for ${number(first)}`;
    if (total) parts.push(first ? differ : "the first labels are the same");
  }
  return results.length ? `${parts.join(", ")}.` : "";
}

function renderTrouble(columns) {
  const messages = [obstacle, ...columns.map(({ error }) => error)].filter(Boolean);
  const text = [...new Set(messages)].join(" ");
  byId("trouble").hidden = !text;
  if (byId("trouble-what").textContent !== text) byId("trouble-what").textContent = text;
}

// Export

function exported() {
  const contents = (column) => ({
    index: chosenIndex()?.name, generation: column.generation,
    results: images.filter((image) => column.results.has(image))
      // The encoding of a form changes some characters of file names.
      .map((image) => ({ ...column.results.get(image), image: image.name })),
  });
  if (!other.fields) return contents(own);
  return { ...contents(own), compared: { templates: other.title, ...contents(other) } };
}

function download() {
  const text = `${JSON.stringify(exported(), null, 2)}\n`;
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  element("a", { href: url, download: "classified.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function showCurl() {
  const url = new URL(CLASSIFY, document.baseURI).href;
  byId("curl").value = curl(url, lastRequest.names, lastRequest.fields, hasToken());
  byId("curl-copy").textContent = "Copy";
  byId("curl-dialog").showModal();
  byId("curl").scrollTop = 0;
}

async function copyCurl() {
  byId("curl").select();
  try {
    await navigator.clipboard.writeText(byId("curl").value);
  } catch {
    document.execCommand("copy"); // navigator.clipboard needs https
  }
  byId("curl-copy").textContent = "Copied";
}

// Start

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
byId("choose").addEventListener("click", () => byId("files").click());
byId("files").addEventListener("change", () => {
  add([...byId("files").files]);
  byId("files").value = ""; // or the same file could not be chosen again
});
byId("again").addEventListener("click", tryAgain);
byId("clear").addEventListener("click", clear);
byId("show-curl").addEventListener("click", showCurl);
byId("curl-copy").addEventListener("click", copyCurl);
byId("curl-close").addEventListener("click", () => byId("curl-dialog").close());
byId("download").addEventListener("click", download);
byId("forget").addEventListener("click", forgetToken);

const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
const markDragged = (isDragged) => document.body.classList.toggle("dragged", isDragged);
document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  markDragged(true);
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) markDragged(false); // the pointer has left the window
});
document.addEventListener("drop", (event) => {
  markDragged(false);
  if (!hasFiles(event)) return;
  event.preventDefault();
  add([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (!files.length) return; // text for a field
  event.preventDefault();
  add(files.map(named));
});
setInterval(() => encodingSeconds() && renderBar([own, other]), 250);
start();
