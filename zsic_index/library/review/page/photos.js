// Loading the photos of the open label, and the filters above them.

import { notifying } from "./notices.js";
import { ask, settled } from "./server.js";
import { byId, element } from "./shared/dom.js";
import { number } from "./shared/text.js";
import { FILTERS, VERDICTS, state } from "./state.js";
import { createTile, drawLine } from "./tiles.js";

let latest = 0;

/** Load the first photos that match the filter, or more of them. */
export async function loadPhotos(more = false) {
  const turn = (latest += 1);
  const { label, filter, threshold } = state;
  const after = more && state.photos.length ? state.photos[state.photos.length - 1].rank : -1;
  state.isLoading = true;
  try {
    await settled(); // the filter depends on verdicts that are on their way
    const { photos, total } = await ask(
      `/api/labels/${label.id}/photos?shown=${filter}&threshold=${threshold}&after=${after}`);
    if (turn !== latest) return;
    if (!more) clear();
    for (const photo of photos) {
      byId("gallery").append(createTile(photo, state.photos.length));
      state.photos.push(photo);
    }
    state.matching = total;
    state.hasMore = photos.length === state.session.photos_per_page;
    byId("more").hidden = !state.hasMore;
    byId("nothing").hidden = state.photos.length > 0;
    byId("nothing").textContent = filter === "all" ? "No photos." : "No photos with this filter.";
    showFilters();
    drawLine();
  } finally {
    state.isLoading = false;
  }
}

function clear() {
  state.photos = [];
  state.selected = 0;
  byId("gallery").replaceChildren();
  document.querySelector("main").scrollTop = 0;
}

/**
 * Show the filters with their numbers of photos.
 *
 * Photos stay in the gallery when their verdict changes, so that nothing jumps: the filter applies
 * when it is chosen.
 */
export function showFilters() {
  const counts = { ...state.label.verdicts, all: state.probabilities.length };
  const decided = Object.keys(VERDICTS).reduce((sum, name) => sum + state.label.verdicts[name], 0);
  counts.undecided = state.probabilities.length - decided;
  if (state.filter === "near") counts.near = state.matching;
  byId("filters").replaceChildren(...Object.entries(FILTERS).map(([filter, words]) => {
    const count = filter in counts ? ` ${number(counts[filter])}` : "";
    const button = element("button", {
      type: "button", textContent: words + count,
      attributes: { "aria-pressed": String(state.filter === filter) },
    });
    button.addEventListener("click", notifying(() => choose(filter)));
    return button;
  }));
}

async function choose(filter) {
  state.filter = filter;
  await loadPhotos();
  byId("filters").querySelector("[aria-pressed=true]").focus();
}
