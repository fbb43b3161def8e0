// The selected photo: keyboard focus, scrolling, and steps by arrow keys.

import { isLargeOpen, showLarge } from "./large.js";
import { notifying } from "./notices.js";
import { loadPhotos } from "./photos.js";
import { byId } from "./shared/dom.js";
import { state } from "./state.js";
import { tiles } from "./tiles.js";

/** Number of photos before the end at which more are loaded. */
const AHEAD = 10;

/** Pixels kept free above and below the selected photo. */
const MARGIN = 8;

/** Make a photo the one that Tab goes to. */
export function mark(position) {
  tiles()[state.selected]?.querySelector(".picture").setAttribute("tabindex", "-1");
  state.selected = position;
  tiles()[position]?.querySelector(".picture").setAttribute("tabindex", "0");
}

/** Go to a photo, or to the nearest one that exists. */
export function select(position) {
  if (!state.photos.length) return;
  mark(Math.min(Math.max(position, 0), state.photos.length - 1));
  const tile = tiles()[state.selected];
  if (!isLargeOpen()) tile.querySelector(".picture").focus({ preventScroll: true });
  reveal(tile);
  if (isLargeOpen()) showLarge();
  if (state.hasMore && state.selected > state.photos.length - AHEAD) notifying(loadPhotos)(true);
}

/** Scroll a tile into view, below the label's heading where that is sticky. */
function reveal(tile) {
  const main = document.querySelector("main"), heading = byId("label");
  const isSticky = getComputedStyle(heading).position === "sticky";
  const view = main.getBoundingClientRect(), box = tile.getBoundingClientRect();
  const top = view.top + (isSticky ? heading.offsetHeight : 0) + MARGIN;
  const bottom = view.bottom - MARGIN;
  if (box.top < top) main.scrollBy(0, box.top - top);
  else if (box.bottom > bottom) main.scrollBy(0, box.bottom - bottom);
}

/** Go to the photo above or below, which may be beyond the line of the threshold. */
export function selectInRow(step) {
  const all = [...tiles()], current = all[state.selected];
  if (!current) return;
  const order = step > 0
    ? all.slice(state.selected + 1) : all.slice(0, state.selected).reverse();
  const top = order.find(({ offsetTop }) => offsetTop !== current.offsetTop)?.offsetTop;
  const distance = (tile) => Math.abs(tile.offsetLeft - current.offsetLeft);
  const [nearest] = order.filter(({ offsetTop }) => offsetTop === top)
    .sort((tile, other) => distance(tile) - distance(other));
  const columns = all.filter(({ offsetTop }) => offsetTop === all[0].offsetTop).length;
  select(nearest ? all.indexOf(nearest) : state.selected + step * columns);
}
