"""Parser of request bodies: JSON or a form, checked before any image is decoded."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar, get_origin

import numpy as np
import numpy.typing as npt
from fastapi import Request

from zsic_index.errors import EmbeddingError, ImageError, ImageTooLargeError, InputError
from zsic_index.querying.query import parse_floor
from zsic_index.service import base64_texts
from zsic_index.service.engine import Engine
from zsic_index.service.forms import Form, parse_form
from zsic_index.service.json_bounds import Bounds, Document, examine
from zsic_index.service.schemas import (
    MAX_FLOORS,
    MAX_PROMPT,
    MAX_TEMPLATES,
    ImageInput,
    Schema,
    ScoreRequest,
)
from zsic_index.service.settings import Settings
from zsic_index.web import RefusedError

JSON = "application/json"
FORM = "multipart/form-data"

_ASIDE = 1 << 14
"""Size in bytes above which a body is parsed in another thread."""

_OTHERS = 64
"""Number of values of a request besides those of its lists, and more than all of them."""

RequestModel = TypeVar("RequestModel", bound=Schema)


@dataclass(frozen=True, slots=True)
class SentImage:
    """An image of a request.

    Attributes:
        name: name of the image in the response.
        content: returns the bytes of the file or raises an ImageError; called in another thread.
        url: URL to fetch the image from instead.
    """

    name: str
    content: Callable[[], bytes]
    url: str | None = None


async def parse(
    http_request: Request,
    model: type[RequestModel],
    settings: Settings,
    engine: Engine,
    dim: int = 0,
) -> tuple[RequestModel, list[SentImage]]:
    """Return a request as a model, and its images.

    Args:
        http_request: with a JSON document, or with a form whose files are the images.
        model: model of the request.
        settings: the limits.
        engine: parses large bodies in its threads.
        dim: maximum number of numbers in an embedding.

    Raises:
        RefusedError: 415 for another content type, 413 for too many parts, values or images.
        ValidationError: if the body does not fit the model.
    """
    content_type = http_request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    body = await _body_of(http_request)
    if kind == JSON:
        parse_body = partial(_parse_json, body, model, settings, dim)
    elif kind == FORM:
        parse_body = partial(_parse_form, body, content_type, model, settings)
    else:
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type {kind[:100]!r}: use {JSON} or {FORM}"
        )
    if len(body) > _ASIDE:
        request, images = await engine.parse(parse_body)
    else:
        request, images = parse_body()
    if len(images) > settings.max_images:
        raise too_many(len(images), settings.max_images, "images")
    return request, images


async def _body_of(http_request: Request) -> bytes:
    """Return the body; ``Request.body`` would make a copy of it."""
    parts = [part async for part in http_request.stream() if part]
    return parts[0] if len(parts) == 1 else b"".join(parts)


def bounds_of(model: type[Schema], settings: Settings, dim: int) -> Bounds:
    """Return bounds on the JSON documents for a model.

    Lists may be twice as long as their limits, so that a list that is a little too long is refused
    with its number of entries.

    Args:
        model: model of the request.
        settings: the limits.
        dim: maximum number of numbers in an embedding.
    """
    fields = model.model_fields
    images = 2 * settings.max_images if "images" in fields else 0
    embeddings = 2 * settings.max_prompts if "embeddings" in fields else 0
    prompts = 2 * settings.max_prompts if "prompts" in fields else 0
    choices = 2 * (settings.max_labels + MAX_TEMPLATES) if "labels" in fields else 0
    members = _OTHERS + 2 * MAX_FLOORS + 3 * images
    texts = 2 * members + choices + embeddings + prompts
    return Bounds(
        containers=_OTHERS + images + embeddings,
        members=members,
        texts=texts,
        values=texts + embeddings * dim * 5 // 8,
        text_bytes=16 << 20 if embeddings else 32 << 20,
        files=images > 0,
    )


def _parse_json(
    body: bytes, model: type[RequestModel], settings: Settings, dim: int
) -> tuple[RequestModel, list[SentImage]]:
    if body.startswith(codecs.BOM_UTF8):
        body = body[len(codecs.BOM_UTF8) :]
    document = examine(body, bounds_of(model, settings, dim), MAX_PROMPT + 1)
    # Strict, so that "5" is not a number. In a form everything is text.
    request = model.model_validate_json(document.text, strict=True)
    images = [
        _image_of_json(position, image, settings, document)
        for position, image in enumerate(_images_of(request))
    ]
    return request, images


def _parse_form(
    body: bytes, content_type: str, model: type[RequestModel], settings: Settings
) -> tuple[RequestModel, list[SentImage]]:
    form = parse_form(body, content_type, settings.max_images)
    fields = _fields(form, model)
    # The images of a form are files: placeholders satisfy the model.
    if "images" in model.model_fields:
        fields["images"] = [""] * len(form.files)
    request = model.model_validate(fields)
    return request, [
        _image_of_file(position, file, settings) for position, file in enumerate(form.files)
    ]


def too_many(count: int, limit: int, noun: str) -> RefusedError:
    """Return the error for a request with too many images, embeddings or prompts."""
    return RefusedError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"{count:,} {noun}; the limit is {limit:,} in a request: send several requests",
    )


def embeddings_of(request: ScoreRequest) -> npt.NDArray[np.float32]:
    """Return the (B, D) float32 embeddings of a request.

    Raises:
        EmbeddingError: if their lengths differ, or one is not base64 of float32.
    """
    embeddings = [_embedding(position, entry) for position, entry in enumerate(request.embeddings)]
    lengths = sorted({len(embedding) for embedding in embeddings})
    if len(lengths) > 1:
        raise EmbeddingError(
            f"embeddings of {lengths[0]} and of {lengths[-1]} numbers: they must be of one length"
        )
    return np.array(embeddings, dtype=np.float32)


def _embedding(position: int, entry: list[float] | str) -> npt.NDArray[np.float32]:
    if isinstance(entry, str):
        try:
            return np.frombuffer(base64_texts.decode(entry), dtype="<f4")
        except ValueError as error:
            raise EmbeddingError(f"embedding {position}: not base64 of float32: {error}") from None
    with np.errstate(over="ignore"):  # numbers above float32's range are refused as infinite later
        return np.array(entry, dtype=np.float32)


def _images_of(request: Schema) -> list[str | ImageInput]:
    images: list[str | ImageInput] = getattr(request, "images", [])
    return images


def _image_of_json(
    position: int, entry: str | ImageInput, settings: Settings, document: Document
) -> SentImage:
    image = ImageInput(name=None, data=entry, url=None) if isinstance(entry, str) else entry
    name = image.name or str(position)
    if image.url is not None and not base64_texts.is_data_url(image.url):
        url = image.url if settings.allow_urls else None
        return SentImage(name, lambda: _refuse_url(name), url)
    data = image.url or image.data or ""
    file = document.files.get(data)
    if file is not None:
        return SentImage(name, lambda: _decode_long(name, file, settings))
    return SentImage(name, lambda: _decode_text(name, data, settings))


def _refuse_url(name: str) -> bytes:
    raise ImageError(f"{name}: addresses are not fetched here: send the image itself")


def _decode_long(name: str, file: memoryview, settings: Settings) -> bytes:
    """Return the content of a string of JSON that ``examine`` has taken out."""
    # Twice the size: base64 is 4/3 of the file, and has escapes and line breaks.
    if len(file) > 2 * settings.max_image_bytes + 1_000:
        raise _too_large(name, settings)
    text = bytes(file)
    if not text.isascii():
        raise ImageError(f"{name}: not base64: it has characters beyond ASCII")
    try:
        data = text[1:-1].decode("ascii") if b"\\" not in text else json.loads(text)
    except ValueError as error:
        raise ImageError(f"{name}: not base64: {error}") from None
    return _decode_text(name, data, settings)


def _decode_text(name: str, data: str, settings: Settings) -> bytes:
    is_data_url = base64_texts.is_data_url(data)
    if len(data) > settings.max_image_bytes * 4 // 3 + 1_000:
        raise _too_large(name, settings)
    try:
        content = base64_texts.decode_data_url(data) if is_data_url else base64_texts.decode(data)
    except ValueError as error:
        raise ImageError(f"{name}: not base64: {error}") from None
    if len(content) > settings.max_image_bytes:
        raise _too_large(name, settings)
    return content


def _image_of_file(position: int, file: tuple[str, memoryview], settings: Settings) -> SentImage:
    name = (file[0] or str(position))[:1_000]

    def content() -> bytes:
        if len(file[1]) > settings.max_image_bytes:
            raise _too_large(name, settings)
        return bytes(file[1])

    return SentImage(name, content)


def _too_large(name: str, settings: Settings) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"{name}: is larger than the limit of {settings.max_image_bytes:,} bytes: "
        "scale it down first"
    )


def _fields(form: Form, model: type[Schema]) -> dict[str, Any]:
    """Return a form's text fields as the JSON document for a model has them.

    Raises:
        InputError: for a floor that is not RANK=FLOOR.
    """
    document: dict[str, Any] = {}
    for name, texts in form.fields.items():
        declared = model.model_fields.get(name)
        container = None if declared is None else get_origin(declared.annotation)
        if container is list:
            document[name] = texts
        elif container is dict:
            document[name] = _floors(name, texts)
        else:
            document[name] = texts[-1]
    return document


def _floors(name: str, texts: list[str]) -> dict[str, float]:
    try:
        return dict(map(parse_floor, texts))
    except InputError as error:
        raise InputError(f"{name} {error}") from None
