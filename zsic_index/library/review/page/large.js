// The dialog with one photo.

import { byId } from "./shared/dom.js";
import { percent } from "./shared/text.js";
import { state } from "./state.js";
import { pressVerdict } from "./tiles.js";

export const isLargeOpen = () => byId("large").open;

export function openLarge() {
  if (!state.photos[state.selected]) return;
  showLarge();
  byId("large").showModal();
}

/** Show the selected photo in the dialog. */
export function showLarge() {
  const photo = state.photos[state.selected];
  state.enlarged = state.selected;
  const source = `/photos/${photo.id}/large`;
  if (!byId("large-image").src.endsWith(source)) byId("large-image").src = source;
  byId("large-image").alt = photo.name;
  byId("large-name").textContent = photo.name;
  const verdict = photo.verdict ? `, ${photo.verdict}` : "";
  byId("large-about").textContent = `${state.label.name} ${percent(photo.probability)}${verdict}`;
  pressVerdict(byId("large"), photo);
}
