"""Reviewed photos by their probability under a label, and filters on them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from cachetools import LRUCache

from zsic_index.embedding_arrays import Bool, Float64, Int64
from zsic_index.library.review.label_list import ListedLabel
from zsic_index.library.review.reviewed import ReviewedPhotos
from zsic_index.store.photo_records import VerdictName

PhotoFilter = Literal["all", "undecided", "accepted", "rejected", "unsure", "near"]

FILTERS: tuple[PhotoFilter, ...] = get_args(PhotoFilter)

NEAR_ODDS = 2.0
"""Filter ``near``: the odds are between the threshold's divided and multiplied by this."""

_CACHED_LABELS = 8
"""Labels whose ranking is cached; it takes 16 bytes per photo."""

_ALMOST = 1e-9
"""Probabilities closer than this to 0 or 1 are moved away from it, so that odds are finite."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """All reviewed photos by their probability under one label.

    Attributes:
        probabilities: (n,) float64, descending.
        places: (n,) int64, the place of each photo in ``ReviewedPhotos``; ascending where
            probabilities are equal.
    """

    probabilities: Float64
    places: Int64

    def select(
        self, photo_filter: PhotoFilter, threshold: float, verdicts: Mapping[int, VerdictName]
    ) -> Bool:
        """Return (n,) whether the photo of each rank passes a filter.

        Args:
            photo_filter: the filter.
            threshold: probability for the filter ``near``.
            verdicts: place of a photo → its verdict for this label.
        """
        match photo_filter:
            case "all":
                return np.ones(len(self.places), dtype=np.bool_)
            case "near":
                center, odds = _odds(np.float64(threshold)), _odds(self.probabilities)
                return np.asarray((odds >= center / NEAR_ODDS) & (odds <= center * NEAR_ODDS))
            case "undecided":
                return ~np.isin(self.places, list(verdicts))
            case _:
                places = [place for place, verdict in verdicts.items() if verdict == photo_filter]
                return np.isin(self.places, places)


class Rankings:
    """Rankings of reviewed photos by label; the latest are cached. Thread-safe."""

    def __init__(self, photos: ReviewedPhotos) -> None:
        self._photos = photos
        self._cache: LRUCache[int, Ranking] = LRUCache(_CACHED_LABELS)
        self._lock = threading.Lock()

    def find(self, label: ListedLabel) -> Ranking:
        """Return the ranking of a label."""
        with self._lock:
            ranking = self._cache.get(label.label_id)
        if ranking is None:
            probabilities = self._photos.probabilities(label.row)
            places = np.argsort(-probabilities, kind="stable")
            ranking = Ranking(probabilities[places], places)
            with self._lock:
                self._cache[label.label_id] = ranking
        return ranking


def _odds(probabilities: Float64 | np.float64) -> Float64:
    inside = np.clip(probabilities, _ALMOST, 1 - _ALMOST)
    return np.asarray(inside / (1 - inside))
