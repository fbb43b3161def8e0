"""From a service's JSON to the records that a local index gives, equal field by field."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from zsic_index.errors import ImageError, ImageFormatError, ImageTooLargeError
from zsic_index.records import (
    Decision,
    LabelRecord,
    NodePrediction,
    Prediction,
    ServedIndexInfo,
    json_names,
)

if TYPE_CHECKING:
    from zsic_index.embedding_arrays import Float32

Record = TypeVar("Record", Prediction, NodePrediction, ServedIndexInfo, LabelRecord)

_IMAGE_ERRORS: dict[int, type[ImageError]] = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ImageTooLargeError,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: ImageFormatError,
}


def decision(result: Mapping[str, Any]) -> Decision:
    """Return what is said of one image."""
    found = [
        record(NodePrediction, one) if "path" in one else record(Prediction, one)
        for one in result["predictions"]
    ]
    return Decision(found, result.get("none_of_these"))


def embedding(result: Mapping[str, Any]) -> Float32:
    """Return the (D,) float32 unit-norm embedding of one image or prompt."""
    import numpy as np

    return np.frombuffer(base64.b64decode(result["embedding"], validate=True), dtype="<f4")


def record(kind: type[Record], found: Mapping[str, Any]) -> Record:
    """Return a record of what a JSON object has under its names; lists become tuples."""
    values: dict[str, Any] = {}
    for name, key in json_names(kind).items():
        value = found[key]
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def image_error(status: int, detail: str, name: str) -> ImageError:
    """Return the error of one image that a service has refused.

    Args:
        status: what it would have been refused with if it had been sent alone.
        detail: why.
        name: what it is called here.
    """
    return _IMAGE_ERRORS.get(status, ImageError)(f"{name}: {detail}")
