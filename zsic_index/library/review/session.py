"""A review session: labels, photos, verdicts and thresholds, independent of HTTP."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import get_args

import numpy as np

from zsic_index.embedding_arrays import Float64
from zsic_index.embeddings.labels import ProgressCallback
from zsic_index.errors import InputError
from zsic_index.label_index import LabelIndex
from zsic_index.library.review.applying import Applied, Applier, Pending
from zsic_index.library.review.fitting import FittedThreshold, fit
from zsic_index.library.review.label_list import LabelList, LabelSummary, ListedLabel
from zsic_index.library.review.ranking import PhotoFilter, Rankings
from zsic_index.library.review.reviewed import ReviewedPhotos
from zsic_index.store.photo_records import LabelCounts, StoredPhoto, VerdictName

VERDICTS: tuple[VerdictName, ...] = get_args(VerdictName)

MAX_PHOTOS = 500
"""Maximum number of photos on a page."""

MAX_LABELS = 500
"""Maximum number of labels on a page of the list."""


class NotReviewedError(InputError):
    """A label or photo that is not part of this review."""


class BusyError(InputError):
    """Verdicts are being applied; the request can be repeated afterwards."""


@dataclass(frozen=True, slots=True)
class LabelThresholds:
    """The probability from which on a label becomes a tag.

    Attributes:
        threshold: the threshold in use; infinity for a label that is never given.
        own: the threshold set for this label, or None.
        otherwise: the threshold in use when there is no own one.
    """

    threshold: float
    own: float | None
    otherwise: float


@dataclass(frozen=True, slots=True)
class ReviewedPhoto:
    """A photo under one label.

    Attributes:
        rank: position among all reviewed photos by the label's probability, from 0.
        photo: the photo's record in the store.
        copies: number of photos with the same content, this one included.
        probability: probability of the label.
        verdict: the verdict, or None.
    """

    rank: int
    photo: StoredPhoto
    copies: int
    probability: float
    verdict: VerdictName | None


@dataclass(frozen=True, slots=True)
class PhotoPage:
    """A page of the photos that pass a filter.

    Attributes:
        total: number of photos that pass the filter, on all pages.
        photos: photos of this page, most probable first.
    """

    total: int
    photos: list[ReviewedPhoto]


@dataclass(frozen=True, slots=True)
class GivenVerdict:
    """A photo's verdict for a label after a change.

    Attributes:
        label: the label.
        photo_id: id of the photo.
        verdict: the verdict, or None when it was removed.
    """

    label: ListedLabel
    photo_id: int
    verdict: VerdictName | None


class Review:
    """A review of an index's labels on the photos in a folder; thread-safe.

    Verdicts and thresholds are stored at once; ``apply`` changes tags and sidecars.
    """

    def __init__(
        self, index: LabelIndex, under: str | None = None, progress: ProgressCallback | None = None
    ) -> None:
        """Read the embeddings of all photos to review.

        Args:
            index: index opened with ``keep_images``.
            under: absolute folder; only photos in and below it are reviewed.
            progress: see ``ReviewedPhotos``.

        Raises:
            InputError: when there are no photos.
            ModelError: when the index has no model.
        """
        self.index = index
        self.under = under
        self._index_id = index.info.index_id
        self._store = index.store
        self._applier = Applier(index, under)
        self._rules = self._applier.last_settings.rules(index, own={})
        # The index of the rules has the calibration of the last run.
        self.photos = ReviewedPhotos(self._rules.index, under, progress)
        self.labels = LabelList(index)
        self._rankings = Rankings(self.photos)
        self._lock = threading.Lock()
        self._applying = threading.Lock()
        self._counts: dict[int, LabelCounts] | None = None
        self._history: list[tuple[ListedLabel, int, VerdictName | None]] = []
        self._changes = 0
        self._is_busy = False

    def close(self) -> None:
        """Release the temporary file of embeddings."""
        self.photos.close()

    @property
    def writes(self) -> bool:
        """True if the last run over these photos wrote sidecars."""
        return self._applier.last_settings.write == "sidecar"

    @property
    def changes(self) -> int:
        """Number of verdicts and thresholds since the last ``apply``."""
        return self._changes

    # Labels

    def search_labels(self, words: str, start: int, number: int) -> tuple[int, list[LabelSummary]]:
        """Return how many labels match, and a page of them; see ``LabelList.search``."""
        with self._lock:
            if self._counts is None:
                self._counts = self._store.verdicts.count_by_label(self._index_id, self.under)
            counts = self._counts
        return self.labels.search(words, counts, start, min(number, MAX_LABELS))

    def label(self, label_id: int) -> ListedLabel:
        """Return a label.

        Raises:
            NotReviewedError: when the index has no label with this id.
        """
        label = self.labels.find(label_id)
        if label is None:
            name = self.index.info.name
            raise NotReviewedError(f"no label {label_id} in index {name!r}: reload the page")
        return label

    def thresholds(self, label_id: int) -> LabelThresholds:
        """Return a label's threshold, and where it comes from."""
        label = self.label(label_id)
        otherwise = float(self._rules.floors_of(np.array([label.label_id]))[0])
        own = self._store.verdicts.find_thresholds(self._index_id).get(label.label_id)
        return LabelThresholds(otherwise if own is None else own, own, otherwise)

    def probabilities(self, label_id: int) -> Float64:
        """Return the (n,) probabilities of a label, descending."""
        return self._rankings.find(self.label(label_id)).probabilities

    def verdict_counts(self, label_id: int) -> dict[VerdictName, int]:
        """Return how many reviewed photos have each verdict for a label."""
        verdicts = list(self._verdicts(self.label(label_id)).values())
        return {name: verdicts.count(name) for name in VERDICTS}

    # Photos

    def page(
        self, label_id: int, photo_filter: PhotoFilter, threshold: float, after: int, number: int
    ) -> PhotoPage:
        """Return a page of the photos under a label, most probable first.

        Args:
            label_id: id of the label.
            photo_filter: filter on the photos.
            threshold: probability for the filter ``near``.
            after: rank of the last photo of the page before; -1 for the first page.
            number: number of photos, up to MAX_PHOTOS.
        """
        label = self.label(label_id)
        ranking = self._rankings.find(label)
        verdicts = self._verdicts(label)
        ranks = np.flatnonzero(ranking.select(photo_filter, threshold, verdicts))
        page_ranks = ranks[ranks > after][: min(number, MAX_PHOTOS)]
        places = ranking.places[page_ranks].tolist()
        stored = self._store.photos.find_by_id(self.photos.photo_ids[places].tolist())
        return PhotoPage(
            len(ranks),
            [
                ReviewedPhoto(
                    rank,
                    stored[int(self.photos.photo_ids[place])],
                    int(self.photos.copies[place]),
                    float(ranking.probabilities[rank]),
                    verdicts.get(place),
                )
                for rank, place in zip(page_ranks.tolist(), places, strict=True)
            ],
        )

    def photo(self, photo_id: int) -> StoredPhoto:
        """Return a reviewed photo.

        Raises:
            NotReviewedError: when the photo is not reviewed.
        """
        if self.photos.place_of(photo_id) is None:
            raise _no_photo(photo_id)
        photos = self._store.photos.find_by_id([photo_id])
        if photo_id not in photos:
            raise _no_photo(photo_id)
        return photos[photo_id]

    # Verdicts

    def give_verdict(
        self, label_id: int, photo_id: int, verdict: VerdictName | None
    ) -> GivenVerdict:
        """Store a verdict; None removes the present one.

        Raises:
            BusyError: while verdicts are applied.
            NotReviewedError: when the label or photo is not reviewed.
        """
        label, place = self.label(label_id), self.photos.place_of(photo_id)
        if place is None:
            raise _no_photo(photo_id)
        with self._lock:
            self._check_free()
            before = self._verdicts(label).get(place)
            if before != verdict:
                self._save(label, place, verdict)
                self._history.append((label, place, before))
                self._changes += 1
        return GivenVerdict(label, photo_id, verdict)

    def undo(self) -> GivenVerdict | None:
        """Restore the verdict that the last one has replaced.

        Returns:
            The restored verdict; None when there is nothing to undo.

        Raises:
            BusyError: while verdicts are applied.
        """
        with self._lock:
            self._check_free()
            if not self._history:
                return None
            label, place, before = self._history.pop()
            self._save(label, place, before)
            self._changes += 1
        return GivenVerdict(label, int(self.photos.photo_ids[place]), before)

    # Thresholds

    def set_threshold(self, label_id: int, threshold: float | None) -> LabelThresholds:
        """Set a label's own threshold; None removes it.

        Raises:
            BusyError: while verdicts are applied.
            InputError: when the threshold is not from 0 to 1.
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
        """Fit a threshold to the accepted and rejected photos, without setting it.

        Raises:
            InputError: when there are too few; see ``fitting.fit``.
        """
        label = self.label(label_id)
        ranking = self._rankings.find(label)
        verdicts = self._verdicts(label)
        by_rank = [verdicts.get(place) for place in ranking.places.tolist()] if verdicts else []
        ranks = [rank for rank, name in enumerate(by_rank) if name in ("accepted", "rejected")]
        accepted = np.array([by_rank[rank] == "accepted" for rank in ranks], dtype=np.bool_)
        return fit(ranking.probabilities[ranks], accepted, precision)

    # Applying

    def pending(self) -> Pending:
        """Return what ``apply`` would change.

        Raises:
            BusyError: while verdicts are applied.
        """
        with self._lock:
            self._check_free()
        with self._applying:
            return self._applier.pending()

    def apply(self, *, write: bool) -> Applied:
        """Change the tags of photos that verdicts and thresholds affect.

        Args:
            write: whether to write sidecars.

        Raises:
            BusyError: while another ``apply`` is running.
            StoreError: while a run of ``tag`` uses the store.
        """
        with self._lock:
            self._check_free()
            self._is_busy = True
        try:
            with self._applying:
                applied = self._applier.apply(write=write)
            self._changes = 0
            return applied
        finally:
            with self._lock:
                self._counts = None
                self._is_busy = False

    @property
    def progress(self) -> int:
        """Number of photos that the running ``apply`` has processed."""
        return self._applier.seen

    def _check_free(self) -> None:
        # A run reads verdicts once: it would miss one that is given meanwhile.
        if self._is_busy:
            raise BusyError("verdicts are being applied: try again when that is done")

    def _save(self, label: ListedLabel, place: int, verdict: VerdictName | None) -> None:
        content = self.photos.contents[place]
        self._store.verdicts.save([(content, label.label_id, verdict)], source="review")
        self._counts = None

    def _verdicts(self, label: ListedLabel) -> dict[int, VerdictName]:
        """Return the verdicts for a label by the photo's place."""
        return self.photos.by_place(self._store.verdicts.find_by_label(label.label_id))


def _no_photo(photo_id: int) -> NotReviewedError:
    return NotReviewedError(f"photo {photo_id} is not among those reviewed: reload the page")
