// The dialog that applies verdicts and thresholds to tags and sidecars.

import { loadLabels } from "./labels.js";
import { notifying, showChanges } from "./notices.js";
import { ask, inTurn } from "./server.js";
import { byId, element } from "./shared/dom.js";
import { number, plural } from "./shared/text.js";

const PROGRESS_MS = 1000;

/** False once the outcome is shown: progress that arrives later must not replace it. */
let isApplying = false;

const tagChanges = ({ added, withdrawn }) =>
  `${plural(added, "tag")} added, ${number(withdrawn)} withdrawn`;

/** Open the dialog, and show what would change. */
export async function openApply() {
  byId("apply-summary").textContent = "Counting what would change…";
  byId("apply-problems").replaceChildren();
  byId("apply-now").disabled = true;
  byId("apply-now").hidden = false;
  byId("write").disabled = false;
  byId("write-note").textContent = "";
  byId("apply-dialog").showModal();
  await inTurn(async () => {
    const pending = await ask("/api/pending");
    byId("apply-summary").textContent = pending.photos
      ? `${plural(pending.photos, "photo")} would change: ${tagChanges(pending)}.`
      : "No photo would get or lose a tag; rejected ones are withdrawn already.";
    byId("write-note").textContent = pending.sidecars
      ? `(those of ${plural(pending.sidecars, "photo")} differ)` : "(all are up to date)";
    byId("apply-now").disabled = false;
  });
}

/** Apply, and show what has changed. */
export async function applyNow() {
  byId("apply-now").disabled = true;
  byId("write").disabled = true;
  byId("apply-summary").textContent = "Applying…";
  isApplying = true;
  const timer = setInterval(notifying(showProgress), PROGRESS_MS);
  try {
    const applied = await inTurn(() => ask("/api/apply", { write: byId("write").checked }));
    isApplying = false;
    byId("apply-summary").textContent = summary(applied);
    byId("apply-problems").replaceChildren(
      ...applied.problems.map((problem) => element("li", { textContent: problem })));
    byId("write-note").textContent = "";
    byId("apply-now").hidden = true;
    showChanges(0);
    await loadLabels();
  } catch (error) {
    isApplying = false;
    byId("apply-summary").textContent = error.message;
    byId("apply-now").disabled = false;
    byId("write").disabled = false;
  } finally {
    clearInterval(timer);
  }
}

async function showProgress() {
  const { seen } = await ask("/api/progress");
  if (seen && isApplying) byId("apply-summary").textContent = `Applying… ${plural(seen, "photo")} looked at`;
}

function summary(applied) {
  const sentences = [`${plural(applied.photos, "photo")} changed: ${tagChanges(applied)}.`];
  if (byId("write").checked) {
    sentences.push(`${plural(applied.written, "sidecar")} written, ${applied.removed} removed.`);
  }
  if (applied.waiting) {
    sentences.push(`${plural(applied.waiting, "file")} left to the next run of tag.`);
  }
  return sentences.join(" ");
}
