"""Parser of request bodies: JSON or a form, checked before any image is decoded."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar, get_origin

import numpy as np
import numpy.typing as npt
from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException

from zsic_index.errors import EmbeddingError, ImageError, ImageTooLargeError, InputError
from zsic_index.querying.query import parse_floor
from zsic_index.service import base64_texts
from zsic_index.service.forms import read_form
from zsic_index.service.schemas import ImageInput, Schema, ScoreRequest
from zsic_index.service.settings import Settings
from zsic_index.web import RefusedError

JSON = "application/json"
FORM = "multipart/form-data"

_MAX_FIELDS = 1_000
"""Maximum number of text fields in a form, each of which takes a while to parse. JSON has no such
limit."""

_MAX_FIELD = 1 << 16
"""Maximum size of a text field in bytes."""

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
    http_request: Request, model: type[RequestModel], settings: Settings
) -> tuple[RequestModel, list[SentImage]]:
    """Return a request as a model, and its images.

    Args:
        http_request: with a JSON document, or with a form whose files are the images.
        model: model of the request.
        settings: the limits.

    Raises:
        RefusedError: 415 for another content type, 413 for too many parts or images.
        ValidationError: if the body does not fit the model.
    """
    kind = http_request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == JSON:
        # Strict, so that "5" is not a number. In a form everything is text.
        document = (await http_request.body()).removeprefix(codecs.BOM_UTF8)
        request = model.model_validate_json(document, strict=True)
        images = [
            _image_of_json(position, image, settings)
            for position, image in enumerate(_images_of(request))
        ]
    elif kind == FORM:
        fields, files = await _read_form(http_request, model, settings)
        # The images of a form are files: placeholders satisfy the model.
        if "images" in model.model_fields:
            fields["images"] = [""] * len(files)
        request = model.model_validate(fields)
        images = [_image_of_file(position, file, settings) for position, file in enumerate(files)]
    else:
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type {kind[:100]!r}: use {JSON} or {FORM}"
        )
    if len(images) > settings.max_images:
        raise too_many(len(images), settings.max_images, "images")
    return request, images


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


def _image_of_json(position: int, entry: str | ImageInput, settings: Settings) -> SentImage:
    image = ImageInput(name=None, data=entry, url=None) if isinstance(entry, str) else entry
    name = image.name or str(position)
    if image.url is not None and not base64_texts.is_data_url(image.url):
        url = image.url if settings.allow_urls else None
        return SentImage(name, lambda: _refuse_url(name), url)
    data = image.url or image.data or ""
    return SentImage(name, lambda: _decode_text(name, data, settings))


def _refuse_url(name: str) -> bytes:
    raise ImageError(f"{name}: addresses are not fetched here: send the image itself")


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


def _image_of_file(position: int, file: tuple[str, bytes], settings: Settings) -> SentImage:
    name = (file[0] or str(position))[:1_000]

    def content() -> bytes:
        if len(file[1]) > settings.max_image_bytes:
            raise _too_large(name, settings)
        return file[1]

    return SentImage(name, content)


def _too_large(name: str, settings: Settings) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"{name}: is larger than the limit of {settings.max_image_bytes:,} bytes: "
        "scale it down first"
    )


async def _read_form(
    http_request: Request, model: type[Schema], settings: Settings
) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """Return a form's text fields, and the names and contents of its files."""
    try:
        form = await read_form(
            await http_request.body(),
            http_request.headers,
            max_files=settings.max_images,
            max_fields=_MAX_FIELDS,
            max_part_size=_MAX_FIELD,
        )
    except MultiPartException as error:
        is_too_much = error.message.startswith(("Too many", "Part exceeded"))
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if is_too_much else HTTPStatus.BAD_REQUEST
        raise RefusedError(status, f"the form cannot be read: {error.message}") from None
    except ValueError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"the form cannot be read: {error}") from None
    uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    files = [(upload.filename or "", upload.file.read()) for upload in uploads]
    await form.close()
    return _fields(form, model), files


def _fields(form: FormData, model: type[Schema]) -> dict[str, Any]:
    """Return a form's text fields as the JSON document for a model has them.

    Raises:
        InputError: for a floor that is not RANK=FLOOR.
    """
    document: dict[str, Any] = {}
    for name in form:
        texts = [value for value in form.getlist(name) if isinstance(value, str)]
        declared = model.model_fields.get(name)
        container = None if declared is None else get_origin(declared.annotation)
        if container is list:
            document[name] = texts
        elif container is dict:
            document[name] = _floors(name, texts)
        elif texts:
            document[name] = texts[-1]
    return document


def _floors(name: str, texts: list[str]) -> dict[str, float]:
    try:
        return dict(map(parse_floor, texts))
    except InputError as error:
        raise InputError(f"{name} {error}") from None
