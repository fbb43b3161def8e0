// The photos of the gallery.

import { whyNot } from "./server.js";
import { byId, element } from "./shared/dom.js";
import { percent } from "./shared/text.js";
import { VERDICTS, state } from "./state.js";

export const tiles = () => byId("gallery").querySelectorAll(".tile");

/** Create the tile of a photo; only the first of the gallery is reached by Tab. */
export function createTile(photo, position) {
  const picture = element(
    "button", { type: "button", className: "picture", tabIndex: position ? -1 : 0 },
    thumbnail(photo), element("span", { className: "mark" }),
  );
  const copies = photo.copies > 1 ? ` ×${photo.copies}` : "";
  const tile = element(
    "li", { className: "tile", title: `${photo.folder}/${photo.name}` }, picture,
    element("p", { className: "about" },
      element("b", { textContent: percent(photo.probability) }),
      element("span", { textContent: photo.name + copies })),
    element("div", { className: "verdicts" },
      ...Object.keys(VERDICTS).map((verdict) => verdictButton(verdict, photo))),
  );
  showVerdict(tile, photo);
  return tile;
}

function thumbnail(photo) {
  const image = element("img", { loading: "lazy", decoding: "async", alt: "" });
  image.addEventListener("error", async () => {
    const reason = await whyNot(image.src);
    image.replaceWith(element("span", { className: "reason", textContent: reason }));
  });
  image.src = `/photos/${photo.id}/small`;
  return image;
}

function verdictButton(verdict, photo) {
  const { key, mark, word } = VERDICTS[verdict];
  const button = element("button", {
    type: "button", textContent: mark, title: `${word} (${key})`, tabIndex: -1,
    attributes: { "aria-label": `${word}: ${photo.name}` },
  });
  button.dataset.decide = verdict;
  return button;
}

/** Show a photo's verdict on its tile. */
export function showVerdict(tile, photo) {
  if (photo.verdict) tile.dataset.verdict = photo.verdict;
  else delete tile.dataset.verdict;
  tile.querySelector(".mark").textContent = photo.verdict ? VERDICTS[photo.verdict].mark : "";
  pressVerdict(tile, photo);
  const verdict = photo.verdict ? `, ${photo.verdict}` : "";
  tile.querySelector(".picture").setAttribute(
    "aria-label", `${photo.name}, ${percent(photo.probability)}${verdict}`);
}

/** Press the button of a photo's verdict among those of a tile or dialog. */
export function pressVerdict(parent, photo) {
  for (const button of parent.querySelectorAll("[data-decide]")) {
    button.setAttribute("aria-pressed", String(button.dataset.decide === photo.verdict));
  }
}

/** Draw the line between the photos above the threshold and those below it. */
export function drawLine() {
  byId("gallery").querySelector(".line")?.remove();
  const below = state.photos.findIndex(({ probability }) => probability < state.threshold);
  if (below < 0 || !state.label) return;
  const line = element("li", {
    className: "line", textContent: `below ${percent(state.threshold)}`,
    attributes: { "aria-hidden": "true" },
  });
  byId("gallery").insertBefore(line, tiles()[below]);
}
