"""Responses of a service as records, equal field by field to those of a local index."""

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


def parse_decision(result: Mapping[str, Any]) -> Decision:
    """Return the decision about one image."""
    predictions = [
        parse_record(NodePrediction, prediction)
        if "path" in prediction
        else parse_record(Prediction, prediction)
        for prediction in result["predictions"]
    ]
    return Decision(predictions, result.get("none_of_these"))


def parse_embedding(result: Mapping[str, Any]) -> Float32:
    """Return the (D,) float32 unit-norm embedding of one image or prompt."""
    import numpy as np

    return np.frombuffer(base64.b64decode(result["embedding"], validate=True), dtype="<f4")


def parse_record(record: type[Record], document: Mapping[str, Any]) -> Record:
    """Return a record with the values of a JSON object; lists become tuples."""
    values: dict[str, Any] = {}
    for name, key in json_names(record).items():
        value = document[key]
        values[name] = tuple(value) if isinstance(value, list) else value
    return record(**values)


def parse_indexes(document: Mapping[str, Any]) -> list[ServedIndexInfo]:
    """Return the descriptions of the served indexes."""
    return [parse_record(ServedIndexInfo, info) for info in document["indexes"]]


def parse_page(document: Mapping[str, Any]) -> tuple[list[LabelRecord], int, int]:
    """Return the labels of a page, the number of labels on all pages, and the generation."""
    labels = [parse_record(LabelRecord, label) for label in document["labels"]]
    return labels, int(document["total"]), int(document["generation"])


def parse_refusal(result: Mapping[str, Any]) -> tuple[int, str]:
    """Return the status and the reason of a refused image, without its name in the request."""
    error = result["error"]
    return int(error["status"]), str(error["detail"]).removeprefix(f"{result.get('image')}: ")


def image_error(status: int, detail: str, name: str) -> ImageError:
    """Return the error of one image that a service has refused.

    Args:
        status: HTTP status that the image would have got if it had been sent alone.
        detail: reason.
        name: name of the image in the message.
    """
    return _IMAGE_ERRORS.get(status, ImageError)(f"{name}: {detail}")
