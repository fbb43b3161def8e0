// Verdicts: giving them, and taking the last one back.

import { loadLabels, openLabel, refreshLabel } from "./labels.js";
import { isLargeOpen, showLarge } from "./large.js";
import { notify, showChanges } from "./notices.js";
import { showFilters } from "./photos.js";
import { select } from "./selection.js";
import { ask, inTurn } from "./server.js";
import { state } from "./state.js";
import { showVerdict, tiles } from "./tiles.js";

/**
 * Give a photo a verdict; the one that it has already is taken back.
 *
 * The page changes at once. When the server refuses, it changes back.
 *
 * @param position the photo's position in the gallery.
 * @param verdict the verdict.
 * @param then called once the page has changed.
 */
export async function decide(position, verdict, then = () => {}) {
  const photo = state.photos[position], label = state.label;
  if (!photo) return;
  const before = photo.verdict, now = before === verdict ? null : verdict;
  setVerdict(label.id, photo, now);
  if (isLargeOpen()) showLarge();
  then();
  try {
    const { changes } = await inTurn(() => ask("/api/verdicts", {
      label: label.id, photo: photo.id, verdict: now,
    }));
    showChanges(changes);
  } catch (error) {
    setVerdict(label.id, photo, before);
    throw error;
  }
}

/** Change a photo's verdict in the gallery and in all counts. */
function setVerdict(labelId, photo, verdict) {
  const before = photo.verdict;
  photo.verdict = verdict;
  const position = state.photos.indexOf(photo);
  if (position >= 0) showVerdict(tiles()[position], photo);
  const label = state.labels.find(({ id }) => id === labelId);
  for (const [name, change] of [[before, -1], [verdict, 1]]) {
    if (!name) continue;
    if (label) label[name] += change;
    if (labelId === state.label?.id) state.label.verdicts[name] += change;
  }
  refreshLabel(labelId);
  if (state.label) showFilters();
}

/** Take the last verdict back, and go to its label and photo. */
export async function undo() {
  const { undone, changes } = await inTurn(() => ask("/api/undo", {}));
  showChanges(changes);
  if (!undone) {
    notify("Nothing to undo.");
    return;
  }
  const { label, photo: photoId, verdict } = undone;
  if (label.id !== state.label?.id) {
    await loadLabels();
    await openLabel(label.id);
  }
  const position = state.photos.findIndex(({ id }) => id === photoId);
  if (position >= 0) {
    const photo = state.photos[position];
    if (photo.verdict !== verdict) setVerdict(label.id, photo, verdict);
    select(position);
  } else {
    Object.assign(state.label, await ask(`/api/labels/${label.id}`));
    await loadLabels();
    showFilters();
  }
  notify(`Undone: ${label.name} is ${verdict ?? "undecided"} again.`);
}
