"""What a page can ask of a review, as JSON and pictures: routes, and how their words are read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zsic_index.errors import InputError
from zsic_index.library.review.fitting import DEFAULT_PRECISION, FEW
from zsic_index.library.review.label_list import ListedLabel
from zsic_index.library.review.session import (
    SHOWN,
    VERDICTS,
    LabelThresholds,
    Review,
    ReviewedPhoto,
    Said,
)
from zsic_index.library.review.thumbnails import LARGE, SMALL, Thumbnails

_PAGE = Path(__file__).resolve().parent / "page"

_STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/review.css": ("review.css", "text/css; charset=utf-8"),
    "/review.js": ("review.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""All files that are served; no path of a request is ever opened."""

_PHOTOS_PER_PAGE = 120

_LABELS_PER_PAGE = 100

_MOST_ID = 1 << 62

Query = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back: an object for JSON, or bytes of a media type."""

    content: Any
    kind: str = "application/json"


class NoRouteError(InputError):
    """Nothing is there."""


class Api:
    """Answers requests by their path."""

    def __init__(self, review: Review, thumbnails: Thumbnails | None = None) -> None:
        self._review = review
        self._thumbnails = thumbnails or Thumbnails()
        self._static = {
            path: Answer((_PAGE / name).read_bytes(), kind)
            for path, (name, kind) in _STATIC.items()
        }

    def get(self, path: str, query: Query) -> Answer:
        """Answer a request that changes nothing.

        Raises:
            NoRouteError: for a path that is none.
            ZsicError: see ``Review``.
        """
        if path in self._static:
            return self._static[path]
        return _call(_GETS, self, path, query)

    def post(self, path: str, body: Mapping[str, Any]) -> Answer:
        """Answer a request that may change something; see ``get``."""
        return _call(_POSTS, self, path, body)

    # What can be asked

    def _session(self, _query: Query) -> Answer:
        review = self._review
        return Answer(
            {
                "index": review.index.info.name,
                "model": review.index.info.model_id,
                "under": review.under,
                "photos": len(review.photos),
                "labels": len(review.labels),
                "writes": review.writes,
                "changes": review.changes,
                "precision": DEFAULT_PRECISION,
                "few": FEW,
            }
        )

    def _labels(self, query: Query) -> Answer:
        total, found = self._review.search_labels(
            query.get("search", "")[:200],
            _whole(query, "start", 0),
            _whole(query, "number", _LABELS_PER_PAGE),
        )
        listed = [_label(one.label) | asdict(one.counts) for one in found]
        return Answer({"total": total, "labels": listed})

    def _label(self, query: Query, label_id: int) -> Answer:
        review = self._review
        return Answer(
            _label(review.label(label_id))
            | _thresholds(review.thresholds(label_id))
            | {"verdicts": review.verdict_counts(label_id)}
        )

    def _probabilities(self, query: Query, label_id: int) -> Answer:
        # As bytes: a page counts what is above its slider by itself, at every step of it.
        found = self._review.probabilities(label_id)
        return Answer(found.astype("<f8").tobytes(), "application/octet-stream")

    def _photos(self, query: Query, label_id: int) -> Answer:
        shown = query.get("shown", "all")
        if shown not in SHOWN:
            raise InputError(f"shown is {shown!r}; use one of {', '.join(SHOWN)}")
        page = self._review.page(
            label_id,
            shown,
            _fraction(query.get("threshold", 0.5), "threshold"),
            _whole(query, "after", -1),
            _whole(query, "number", _PHOTOS_PER_PAGE),
        )
        return Answer({"total": page.total, "photos": [_photo(one) for one in page.photos]})

    def _small(self, query: Query, photo_id: int) -> Answer:
        return Answer(self._thumbnails.get(self._review.photo(photo_id), SMALL), "image/jpeg")

    def _large(self, query: Query, photo_id: int) -> Answer:
        return Answer(self._thumbnails.get(self._review.photo(photo_id), LARGE), "image/jpeg")

    def _pending(self, query: Query) -> Answer:
        return Answer(asdict(self._review.pending()))

    def _progress(self, query: Query) -> Answer:
        return Answer({"seen": self._review.progress})

    # What can be done

    def _say(self, body: Mapping[str, Any]) -> Answer:
        verdict = body.get("verdict")
        if verdict is not None and verdict not in VERDICTS:
            raise InputError(f"verdict is {verdict!r}; use null or one of {', '.join(VERDICTS)}")
        said = self._review.say(_whole(body, "label"), _whole(body, "photo"), verdict)
        return Answer(_said(said) | {"changes": self._review.changes})

    def _undo(self, body: Mapping[str, Any]) -> Answer:
        said = self._review.undo()
        undone = None if said is None else _said(said)
        return Answer({"undone": undone, "changes": self._review.changes})

    def _set_threshold(self, body: Mapping[str, Any]) -> Answer:
        wanted = body.get("threshold")
        threshold = None if wanted is None else _fraction(wanted, "threshold")
        found = self._review.set_threshold(_whole(body, "label"), threshold)
        return Answer(_thresholds(found) | {"changes": self._review.changes})

    def _fit(self, body: Mapping[str, Any]) -> Answer:
        precision = _fraction(body.get("precision", DEFAULT_PRECISION), "precision")
        return Answer(asdict(self._review.fit_threshold(_whole(body, "label"), precision)))

    def _apply(self, body: Mapping[str, Any]) -> Answer:
        write = body.get("write", False)
        if not isinstance(write, bool):
            raise InputError(f"write is {write!r}; use true or false")
        return Answer(asdict(self._review.apply(write=write)))


_Routes = tuple[tuple[re.Pattern[str], Callable[..., Answer]], ...]


def _routes(found: Mapping[str, Callable[..., Answer]]) -> _Routes:
    return tuple((re.compile(path, re.ASCII), answer) for path, answer in found.items())


_ID = r"(\d{1,18})"

_GETS = _routes(
    {
        "/api/session": Api._session,
        "/api/labels": Api._labels,
        f"/api/labels/{_ID}": Api._label,
        f"/api/labels/{_ID}/probabilities": Api._probabilities,
        f"/api/labels/{_ID}/photos": Api._photos,
        f"/photos/{_ID}/small": Api._small,
        f"/photos/{_ID}/large": Api._large,
        "/api/pending": Api._pending,
        "/api/progress": Api._progress,
    }
)

_POSTS = _routes(
    {
        "/api/verdicts": Api._say,
        "/api/undo": Api._undo,
        "/api/thresholds": Api._set_threshold,
        "/api/fit": Api._fit,
        "/api/apply": Api._apply,
    }
)


def _call(routes: _Routes, api: Api, path: str, given: Mapping[str, Any]) -> Answer:
    for pattern, answer in routes:
        if found := pattern.fullmatch(path):
            return answer(api, given, *map(int, found.groups()))
    raise NoRouteError("nothing is here")


def _whole(given: Mapping[str, Any], name: str, otherwise: int | None = None) -> int:
    value = given.get(name, otherwise)
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value, re.ASCII):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value < _MOST_ID:
        raise InputError(f"{name} is {value!r}; give a whole number")
    return value


def _fraction(value: Any, name: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= 1:
        raise InputError(f"{name} is {value!r}; give a number from 0 to 1")
    return number


def _label(label: ListedLabel) -> dict[str, Any]:
    return {"id": label.label_id, "name": label.name, "path": label.path}


def _thresholds(found: LabelThresholds) -> dict[str, Any]:
    # JSON has no infinity: null stands for a label that is never given.
    return {
        name: value if value is None or math.isfinite(value) else None
        for name, value in asdict(found).items()
    }


def _photo(one: ReviewedPhoto) -> dict[str, Any]:
    return {
        "rank": one.rank,
        "id": one.photo.photo_id,
        "name": one.photo.name,
        "folder": one.photo.folder,
        "copies": one.copies,
        "probability": one.probability,
        "verdict": one.verdict,
    }


def _said(said: Said) -> dict[str, Any]:
    return {"label": _label(said.label), "photo": said.photo_id, "verdict": said.verdict}
