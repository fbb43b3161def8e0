"""The review's API: routes, their parameters, and their responses as JSON, bytes and pictures."""

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
from zsic_index.library.review.ranking import FILTERS
from zsic_index.library.review.session import (
    VERDICTS,
    GivenVerdict,
    LabelThresholds,
    Review,
    ReviewedPhoto,
)
from zsic_index.library.review.thumbnails import LARGE, SMALL, Thumbnails
from zsic_index.web.static import SHARED_MODULES

_PAGE = Path(__file__).resolve().parent / "page"

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_PHOTOS_PER_PAGE = 120

_LABELS_PER_PAGE = 100

_MAX_ID = 1 << 62

Parameters = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """A response: an object to send as JSON, or bytes of a media type."""

    content: Any
    media_type: str = "application/json"


class NoRouteError(InputError):
    """No route has this path."""


class Api:
    """Routes of a review."""

    def __init__(self, review: Review, thumbnails: Thumbnails | None = None) -> None:
        self._review = review
        self._thumbnails = thumbnails or Thumbnails()
        self._files = _files()

    def get(self, path: str, parameters: Parameters) -> ApiResponse:
        """Return the response to a GET request.

        Raises:
            NoRouteError: for an unknown path.
            ZsicError: see ``Review``.
        """
        if path in self._files:
            return self._files[path]
        return _call(_GETS, self, path, parameters)

    def post(self, path: str, body: Mapping[str, Any]) -> ApiResponse:
        """Return the response to a POST request; see ``get``."""
        return _call(_POSTS, self, path, body)

    # GET

    def _session(self, _parameters: Parameters) -> ApiResponse:
        review = self._review
        return ApiResponse(
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
                "photos_per_page": _PHOTOS_PER_PAGE,
            }
        )

    def _labels(self, parameters: Parameters) -> ApiResponse:
        total, summaries = self._review.search_labels(
            parameters.get("search", "")[:200],
            _integer(parameters, "start", 0),
            _integer(parameters, "number", _LABELS_PER_PAGE),
        )
        labels = [_label(summary.label) | asdict(summary.counts) for summary in summaries]
        return ApiResponse({"total": total, "labels": labels})

    def _label(self, _parameters: Parameters, label_id: int) -> ApiResponse:
        review = self._review
        return ApiResponse(
            _label(review.label(label_id))
            | _thresholds(review.thresholds(label_id))
            | {"verdicts": review.verdict_counts(label_id)}
        )

    def _probabilities(self, _parameters: Parameters, label_id: int) -> ApiResponse:
        # All of them, as bytes: the page counts the photos above its slider at every step.
        probabilities = self._review.probabilities(label_id)
        return ApiResponse(probabilities.astype("<f8").tobytes(), "application/octet-stream")

    def _photos(self, parameters: Parameters, label_id: int) -> ApiResponse:
        photo_filter = parameters.get("shown", "all")
        if photo_filter not in FILTERS:
            raise InputError(f"shown is {photo_filter!r}; use one of {', '.join(FILTERS)}")
        page = self._review.page(
            label_id,
            photo_filter,
            _fraction(parameters.get("threshold", 0.5), "threshold"),
            _integer(parameters, "after", -1),
            _integer(parameters, "number", _PHOTOS_PER_PAGE),
        )
        return ApiResponse(
            {"total": page.total, "photos": [_photo(photo) for photo in page.photos]}
        )

    def _small(self, _parameters: Parameters, photo_id: int) -> ApiResponse:
        return ApiResponse(self._thumbnails.get(self._review.photo(photo_id), SMALL), "image/jpeg")

    def _large(self, _parameters: Parameters, photo_id: int) -> ApiResponse:
        return ApiResponse(self._thumbnails.get(self._review.photo(photo_id), LARGE), "image/jpeg")

    def _pending(self, _parameters: Parameters) -> ApiResponse:
        return ApiResponse(asdict(self._review.pending()))

    def _progress(self, _parameters: Parameters) -> ApiResponse:
        return ApiResponse({"seen": self._review.progress})

    # POST

    def _give_verdict(self, body: Mapping[str, Any]) -> ApiResponse:
        verdict = body.get("verdict")
        if verdict is not None and verdict not in VERDICTS:
            raise InputError(f"verdict is {verdict!r}; use null or one of {', '.join(VERDICTS)}")
        given = self._review.give_verdict(_integer(body, "label"), _integer(body, "photo"), verdict)
        return ApiResponse(_verdict(given) | {"changes": self._review.changes})

    def _undo(self, _body: Mapping[str, Any]) -> ApiResponse:
        restored = self._review.undo()
        undone = None if restored is None else _verdict(restored)
        return ApiResponse({"undone": undone, "changes": self._review.changes})

    def _set_threshold(self, body: Mapping[str, Any]) -> ApiResponse:
        value = body.get("threshold")
        threshold = None if value is None else _fraction(value, "threshold")
        thresholds = self._review.set_threshold(_integer(body, "label"), threshold)
        return ApiResponse(_thresholds(thresholds) | {"changes": self._review.changes})

    def _fit(self, body: Mapping[str, Any]) -> ApiResponse:
        precision = _fraction(body.get("precision", DEFAULT_PRECISION), "precision")
        return ApiResponse(asdict(self._review.fit_threshold(_integer(body, "label"), precision)))

    def _apply(self, body: Mapping[str, Any]) -> ApiResponse:
        write = body.get("write", False)
        if not isinstance(write, bool):
            raise InputError(f"write is {write!r}; use true or false")
        return ApiResponse(asdict(self._review.apply(write=write)))


def _files() -> dict[str, ApiResponse]:
    """Return the files of the page by their paths; no path of a request is ever opened."""
    paths = {
        "/" if file.name == "index.html" else f"/{file.name}": file for file in _PAGE.iterdir()
    } | {f"/shared/{file.name}": file for file in SHARED_MODULES.iterdir()}
    return {
        path: ApiResponse(file.read_bytes(), _MEDIA_TYPES[file.suffix])
        for path, file in paths.items()
        if file.suffix in _MEDIA_TYPES
    }


_Routes = tuple[tuple[re.Pattern[str], Callable[..., ApiResponse]], ...]


def _compiled(methods: Mapping[str, Callable[..., ApiResponse]]) -> _Routes:
    return tuple((re.compile(path, re.ASCII), method) for path, method in methods.items())


_ID = r"(\d{1,18})"

_GETS = _compiled(
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

_POSTS = _compiled(
    {
        "/api/verdicts": Api._give_verdict,
        "/api/undo": Api._undo,
        "/api/thresholds": Api._set_threshold,
        "/api/fit": Api._fit,
        "/api/apply": Api._apply,
    }
)


def _call(routes: _Routes, api: Api, path: str, values: Mapping[str, Any]) -> ApiResponse:
    for pattern, method in routes:
        if match := pattern.fullmatch(path):
            return method(api, values, *map(int, match.groups()))
    raise NoRouteError("nothing is here")


def _integer(values: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = values.get(name, default)
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value, re.ASCII):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value < _MAX_ID:
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


def _thresholds(thresholds: LabelThresholds) -> dict[str, Any]:
    # JSON has no infinity: null stands for a label that is never given.
    return {
        name: value if value is None or math.isfinite(value) else None
        for name, value in asdict(thresholds).items()
    }


def _photo(photo: ReviewedPhoto) -> dict[str, Any]:
    return {
        "rank": photo.rank,
        "id": photo.photo.photo_id,
        "name": photo.photo.name,
        "folder": photo.photo.folder,
        "copies": photo.copies,
        "probability": photo.probability,
        "verdict": photo.verdict,
    }


def _verdict(given: GivenVerdict) -> dict[str, Any]:
    return {"label": _label(given.label), "photo": given.photo_id, "verdict": given.verdict}
