// The review page: listens to the controls, and starts with the first label.

import { applyNow, openApply } from "./applying.js";
import { onKey } from "./keys.js";
import { loadLabels, openLabel, openPicker, stepLabel } from "./labels.js";
import { openLarge } from "./large.js";
import { notify, notifying, showChanges } from "./notices.js";
import { loadPhotos } from "./photos.js";
import { mark, select } from "./selection.js";
import { ask, whyNot } from "./server.js";
import { byId } from "./shared/dom.js";
import { plural } from "./shared/text.js";
import { debounce } from "./shared/timing.js";
import { state } from "./state.js";
import { fitThreshold, onPercent, onSlider, useThreshold } from "./threshold.js";
import { tiles } from "./tiles.js";
import { decide, undo } from "./verdicts.js";

const onClick = (id, action) => byId(id).addEventListener("click", notifying(action));

function listenToLabels() {
  byId("search").addEventListener("input", debounce(notifying(() => loadLabels()), 150));
  byId("search").addEventListener("keydown", notifying(async (event) => {
    if (event.key === "Enter" && state.labels.length) {
      byId("search").blur();
      await openLabel(state.labels[0].id);
    }
  }));
  onClick("labels", async (event) => {
    const item = event.target.closest("li");
    if (item) await openLabel(state.labels[[...byId("labels").children].indexOf(item)].id);
  });
  onClick("more-labels", () => loadLabels(true));
  onClick("next", () => stepLabel(1));
  onClick("previous", () => stepLabel(-1));
  onClick("open-labels", () => openPicker(!byId("picker").classList.contains("open")));
}

function listenToThreshold() {
  const loadNear = debounce(notifying(async () => {
    if (state.filter === "near") await loadPhotos();
  }), 300);
  for (const [id, action] of [["slider", onSlider], ["percent", onPercent]]) {
    byId(id).addEventListener("input", () => {
      action();
      loadNear();
    });
  }
  onClick("use", () => useThreshold(state.threshold));
  onClick("reset", () => useThreshold(null));
  onClick("fit", fitThreshold);
}

function listenToPhotos() {
  const positionOf = (event) => [...tiles()].indexOf(event.target.closest(".tile"));
  onClick("gallery", async (event) => {
    const verdict = event.target.closest("[data-decide]")?.dataset.decide;
    if (verdict) {
      await decide(positionOf(event), verdict);
    } else if (event.target.closest(".picture")) {
      select(positionOf(event));
      openLarge();
    }
  });
  byId("gallery").addEventListener("focusin", (event) => {
    if (event.target.closest(".picture")) mark(positionOf(event));
  });
  onClick("more", () => loadPhotos(true));
  new IntersectionObserver((entries) => {
    const isNear = entries.some(({ isIntersecting }) => isIntersecting);
    if (isNear && state.hasMore && !state.isLoading) notifying(loadPhotos)(true);
  }, { rootMargin: "800px" }).observe(byId("more"));
}

function listenToDialogs() {
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  for (const button of byId("large").querySelectorAll("[data-decide]")) {
    button.addEventListener("click", notifying(
      () => decide(state.selected, button.dataset.decide)));
  }
  for (const button of byId("large").querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => select(state.selected + Number(button.dataset.step)));
  }
  // Closing returns the focus, and with it the selection, to the photo that opened the dialog.
  byId("large").addEventListener("close", () => select(state.enlarged));
  byId("large-image").addEventListener("error", async () => {
    notify(await whyNot(byId("large-image").src));
  });
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  }
  onClick("apply", openApply);
  onClick("apply-now", applyNow);
  onClick("help-button", () => byId("help").showModal());
}

async function start() {
  history.replaceState(null, "", "/"); // the token in the address is used up
  listenToLabels();
  listenToThreshold();
  listenToPhotos();
  listenToDialogs();
  onClick("undo", undo);
  document.addEventListener("keydown", onKey);
  state.session = await ask("/api/session");
  const { index, photos, under, writes, changes, precision } = state.session;
  byId("about").textContent = `${index}, ${plural(photos, "photo")}${under ? ` in ${under}` : ""}`;
  byId("write").checked = writes;
  byId("precision").value = precision * 100;
  showChanges(changes);
  await loadLabels();
  if (state.labels.length) await openLabel(state.labels[0].id);
}

notifying(start)();
