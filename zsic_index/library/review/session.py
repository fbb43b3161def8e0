"""One review: what a page asks of it, whatever it is asked through. Nothing here knows of HTTP."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from cachetools import LRUCache

from zsic_index.embedding_arrays import Bool, Float64, Int64
from zsic_index.embeddings.labels import Progress
from zsic_index.errors import InputError
from zsic_index.label_index import LabelIndex
from zsic_index.library.review.applying import Applied, Applying, Pending
from zsic_index.library.review.fitting import FittedThreshold, fit
from zsic_index.library.review.label_list import LabelList, ListedLabel
from zsic_index.library.review.reviewed import ReviewedPhotos
from zsic_index.store.photo_records import LabelCounts, StoredPhoto, VerdictName

Shown = Literal["all", "undecided", "accepted", "rejected", "unsure", "near"]

SHOWN: tuple[Shown, ...] = get_args(Shown)

VERDICTS: tuple[VerdictName, ...] = get_args(VerdictName)

MOST_PHOTOS = 500
"""Photos of one page, at most."""

MOST_LABELS = 500
"""Labels of one page of the list, at most."""

NEAR_ODDS = 2.0
"""Near a threshold are photos with odds from half of its to twice its."""

_HELD = 8
"""Labels whose probabilities are held: 8 bytes a photo each."""

_ALMOST = 1e-9
"""How near to 0 and 1 a threshold counts for its odds."""


class NotReviewedError(InputError):
    """A label or a photo that this review does not have."""


class BusyError(InputError):
    """Verdicts are being applied; the same can be asked again afterwards."""


@dataclass(frozen=True, slots=True)
class LabelSummary:
    """A label of the list with its counts; see ``store.photo_records.LabelCounts``."""

    label: ListedLabel
    counts: LabelCounts


@dataclass(frozen=True, slots=True)
class LabelThresholds:
    """From which probability on a label becomes a tag.

    Attributes:
        threshold: what counts; infinity for a label that is never given.
        own: the one that was set for this label; None for none.
        otherwise: what counts without it.
    """

    threshold: float
    own: float | None
    otherwise: float


@dataclass(frozen=True, slots=True)
class ReviewedPhoto:
    """A photo under one label.

    Attributes:
        rank: its place among all photos by the label's probability, from 0.
        photo: what the store knows of it.
        copies: how many photos have the same content, this one included.
        probability: of the label.
        verdict: what was said; None for nothing.
    """

    rank: int
    photo: StoredPhoto
    copies: int
    probability: float
    verdict: VerdictName | None


@dataclass(frozen=True, slots=True)
class PhotoPage:
    """Some of the photos that a filter leaves.

    Attributes:
        total: how many it leaves.
        photos: most probable first.
    """

    total: int
    photos: list[ReviewedPhoto]


@dataclass(frozen=True, slots=True)
class Said:
    """A verdict that was given or taken back.

    Attributes:
        label: the label.
        photo_id: the photo.
        verdict: what is said now; None for nothing.
    """

    label: ListedLabel
    photo_id: int
    verdict: VerdictName | None


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Photos under one label.

    Attributes:
        probabilities: (n,) float64, descending.
        places: (n,) the photos, in that order; of equals the one with the lower id is first.
    """

    probabilities: Float64
    places: Int64


class Review:
    """One review over an index and the photos below a folder.

    Safe to be used from several threads. Verdicts and thresholds are in the store at once; photos
    get their tags by ``apply``.
    """

    def __init__(
        self, index: LabelIndex, under: str | None = None, progress: Progress | None = None
    ) -> None:
        """Gather what there is to review.

        Args:
            index: opened with ``keep_images``; it is used by nobody else meanwhile.
            under: only photos in and below this absolute folder.
            progress: see ``ReviewedPhotos``.

        Raises:
            InputError: when there are no photos.
            ModelError: when the index has no model.
        """
        self.index = index
        self.under = under
        self._index_id = index.info.index_id
        self._store = index.store
        self._applying = Applying(index, under)
        self._rules = self._applying.last_settings.rules(index, own={})
        # Probabilities are those that the last run saw, its calibration included.
        self.photos = ReviewedPhotos(self._rules.index, under, progress)
        self.labels = LabelList(index)
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._rankings: LRUCache[int, _Ranked] = LRUCache(_HELD)
        self._counts: dict[int, LabelCounts] | None = None
        self._history: list[tuple[ListedLabel, int, VerdictName | None]] = []
        self._changes = 0
        self._busy = False

    def close(self) -> None:
        """Let go of what was gathered."""
        self.photos.close()

    @property
    def writes(self) -> bool:
        """Whether the last run over these photos wrote sidecars."""
        return self._applying.last_settings.write == "sidecar"

    @property
    def changes(self) -> int:
        """Verdicts and thresholds since the last ``apply``."""
        return self._changes

    # Labels

    def search_labels(self, words: str, start: int, number: int) -> tuple[int, list[LabelSummary]]:
        """Return how many labels have all words in their path, and a page of them.

        Those with the most tagged photos come first.
        """
        with self._lock:
            if self._counts is None:
                self._counts = self._store.verdicts.count_by_label(self._index_id, self.under)
            counts = self._counts
        total, found = self.labels.search(words, counts, start, min(number, MOST_LABELS))
        none = LabelCounts()
        return total, [LabelSummary(one, counts.get(one.label_id, none)) for one in found]

    def label(self, label_id: int) -> ListedLabel:
        """Return a label.

        Raises:
            NotReviewedError: when the index has none of this id.
        """
        found = self.labels.find(label_id)
        if found is None:
            name = self.index.info.name
            raise NotReviewedError(f"no label {label_id} in index {name!r}: reload the page")
        return found

    def thresholds(self, label_id: int) -> LabelThresholds:
        """Return from which probability on a label becomes a tag."""
        label = self.label(label_id)
        otherwise = float(self._rules.floors_of(np.array([label.label_id]))[0])
        own = self._store.verdicts.find_thresholds(self._index_id).get(label.label_id)
        return LabelThresholds(otherwise if own is None else own, own, otherwise)

    def probabilities(self, label_id: int) -> Float64:
        """Return the (n,) probabilities of a label, descending."""
        return self._ranked(self.label(label_id)).probabilities

    def verdict_counts(self, label_id: int) -> dict[VerdictName, int]:
        """Return how many of the reviewed photos have each verdict under a label."""
        said = list(self._said(self.label(label_id)).values())
        return {name: said.count(name) for name in VERDICTS}

    # Photos

    def page(
        self, label_id: int, shown: Shown, threshold: float, after: int, number: int
    ) -> PhotoPage:
        """Return some of the photos under a label, most probable first.

        Args:
            label_id: the label.
            shown: which; ``near`` needs the threshold.
            threshold: a probability.
            after: only photos whose rank is higher; -1 for the first page.
            number: photos to return, up to MOST_PHOTOS.
        """
        label = self.label(label_id)
        ranked = self._ranked(label)
        said = self._said(label)
        ranks = np.flatnonzero(_wanted(ranked, said, shown, threshold))
        some = ranks[ranks > after][: min(number, MOST_PHOTOS)]
        places = ranked.places[some].tolist()
        known = self._store.photos.find_by_id(self.photos.photo_ids[places].tolist())
        return PhotoPage(
            len(ranks),
            [
                ReviewedPhoto(
                    rank,
                    known[int(self.photos.photo_ids[place])],
                    int(self.photos.copies[place]),
                    float(ranked.probabilities[rank]),
                    said.get(place),
                )
                for rank, place in zip(some.tolist(), places, strict=True)
            ],
        )

    def photo(self, photo_id: int) -> StoredPhoto:
        """Return a photo that is reviewed.

        Raises:
            NotReviewedError: for any other.
        """
        if self.photos.place_of(photo_id) is None:
            raise _no_photo(photo_id)
        found = self._store.photos.find_by_id([photo_id])
        if photo_id not in found:
            raise _no_photo(photo_id)
        return found[photo_id]

    # Verdicts

    def say(self, label_id: int, photo_id: int, verdict: VerdictName | None) -> Said:
        """Give a verdict; None takes back what was said.

        Raises:
            BusyError: while verdicts are applied.
            NotReviewedError: for a label or photo that is not reviewed.
        """
        label, place = self.label(label_id), self.photos.place_of(photo_id)
        if place is None:
            raise _no_photo(photo_id)
        with self._lock:
            self._check_free()
            before = self._said(label).get(place)
            if before != verdict:
                self._give(label, place, verdict)
                self._history.append((label, place, before))
                self._changes += 1
        return Said(label, photo_id, verdict)

    def undo(self) -> Said | None:
        """Take the last verdict back: what was said before is said again.

        Returns:
            What is said now, or None when there is nothing to take back.

        Raises:
            BusyError: while verdicts are applied.
        """
        with self._lock:
            self._check_free()
            if not self._history:
                return None
            label, place, before = self._history.pop()
            self._give(label, place, before)
            self._changes += 1
        return Said(label, int(self.photos.photo_ids[place]), before)

    # Thresholds

    def set_threshold(self, label_id: int, threshold: float | None) -> LabelThresholds:
        """Give a label a threshold of its own; None takes it back.

        Raises:
            BusyError: while verdicts are applied.
            InputError: for one that is not from 0 to 1.
        """
        label = self.label(label_id)
        if threshold is not None and not 0 <= threshold <= 1:
            raise InputError(f"threshold is {threshold}; it must be from 0 to 1")
        with self._lock:
            self._check_free()
            self._store.verdicts.set_threshold(self._index_id, label.label_id, threshold)
            self._changes += 1
        return self.thresholds(label_id)

    def fit_threshold(self, label_id: int, precision: float) -> FittedThreshold:
        """Choose a threshold by the photos that were accepted and rejected; it is not set.

        Raises:
            InputError: when there are too few; see ``fitting.fit``.
        """
        label = self.label(label_id)
        ranked = self._ranked(label)
        said = self._said(label)
        verdicts = [said.get(place) for place in ranked.places.tolist()] if said else []
        decided = [rank for rank, one in enumerate(verdicts) if one in ("accepted", "rejected")]
        accepted = np.array([verdicts[rank] == "accepted" for rank in decided], dtype=np.bool_)
        return fit(ranked.probabilities[decided], accepted, precision)

    # Applying

    def pending(self) -> Pending:
        """Return what ``apply`` would change.

        Raises:
            BusyError: while verdicts are applied.
        """
        with self._lock:
            self._check_free()
        with self._turn:
            return self._applying.pending()

    def apply(self, *, write: bool) -> Applied:
        """Decide again about the photos that verdicts and thresholds have changed.

        Args:
            write: whether sidecars are written.

        Raises:
            BusyError: while it is at work already.
            StoreError: when a run is at work on the store.
        """
        with self._lock:
            self._check_free()
            self._busy = True
        try:
            with self._turn:
                applied = self._applying.apply(write=write)
            self._changes = 0
            return applied
        finally:
            with self._lock:
                self._counts = None
                self._busy = False

    @property
    def progress(self) -> int:
        """Photos that the present ``apply`` has looked at."""
        return self._applying.seen

    def _check_free(self) -> None:
        # A run that has read a verdict would not see the one that comes after it.
        if self._busy:
            raise BusyError("verdicts are being applied: try again when that is done")

    def _give(self, label: ListedLabel, place: int, verdict: VerdictName | None) -> None:
        content = self.photos.contents[place]
        self._store.verdicts.save([(content, label.label_id, verdict)], source="review")
        self._counts = None

    def _said(self, label: ListedLabel) -> dict[int, VerdictName]:
        """Return what was said under a label, by the photo's place."""
        return self.photos.by_place(self._store.verdicts.find_by_label(label.label_id))

    def _ranked(self, label: ListedLabel) -> _Ranked:
        with self._lock:
            ranked = self._rankings.get(label.label_id)
        if ranked is not None:
            return ranked
        probabilities = self.photos.probabilities(label.row)
        places = np.argsort(-probabilities, kind="stable")
        ranked = _Ranked(probabilities[places], places)
        with self._lock:
            self._rankings[label.label_id] = ranked
        return ranked


def _wanted(ranked: _Ranked, said: dict[int, VerdictName], shown: Shown, threshold: float) -> Bool:
    """Return (n,) which photos a filter leaves, by rank."""
    match shown:
        case "all":
            return np.ones(len(ranked.places), dtype=np.bool_)
        case "near":
            odds = _odds(np.float64(threshold))
            around = _odds(ranked.probabilities)
            return np.asarray((around >= odds / NEAR_ODDS) & (around <= odds * NEAR_ODDS))
        case "undecided":
            return ~np.isin(ranked.places, list(said))
        case _:
            return np.isin(ranked.places, [place for place, one in said.items() if one == shown])


def _odds(probabilities: Float64 | np.float64) -> Float64:
    inside = np.clip(probabilities, _ALMOST, 1 - _ALMOST)
    return np.asarray(inside / (1 - inside))


def _no_photo(photo_id: int) -> NotReviewedError:
    return NotReviewedError(f"photo {photo_id} is not among those reviewed: reload the page")
