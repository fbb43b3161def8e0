"""From a request's body to what it asks for: JSON or a form, checked before anything is decoded."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from zsic_index.errors import EmbeddingError, ImageError, ImageTooLargeError
from zsic_index.service.schemas import ImageInput, Record, ScoreRequest
from zsic_index.service.settings import Settings
from zsic_index.web import RefusedError

JSON = "application/json"
FORM = "multipart/form-data"

_LISTS = frozenset(("labels", "templates", "prompts"))
"""Fields of a form that may come several times."""

_MAX_FIELDS = 1_000
"""Texts of a form: parsing takes a while for each. JSON has no such limit."""

_MAX_FIELD = 1 << 16
"""Bytes of a text of a form."""

Asked = TypeVar("Asked", bound=Record)


@dataclass(frozen=True, slots=True)
class SentImage:
    """An image of a request.

    Attributes:
        name: what answers call it.
        content: gives its bytes, or raises an ImageError; for another thread.
        url: where it has to be fetched from instead.
    """

    name: str
    content: Callable[[], bytes]
    url: str | None = None


async def parse(
    request: Request, model: type[Asked], settings: Settings
) -> tuple[Asked, list[SentImage]]:
    """Return what a request asks, and its images.

    Args:
        request: with a JSON document, or with a form whose files are the images.
        model: what it must be.
        settings: the limits.

    Raises:
        RefusedError: 415 for another content type, 413 for too many parts or images.
        ValidationError: when it has not the form that ``model`` says.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == JSON:
        # What a schema calls a number is no text; in a form everything is.
        asked = model.model_validate_json(await request.body(), strict=True)
        images = [_of_json(at, one, settings) for at, one in enumerate(_images(asked))]
    elif kind == FORM:
        fields, files = await _read_form(request, settings)
        # A form's images come as files: this stands in for them.
        if "images" in model.model_fields:
            fields["images"] = [""] * len(files)
        asked = model.model_validate(fields)
        images = [_of_file(at, one, settings) for at, one in enumerate(files)]
    else:
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type {kind[:100]!r}: use {JSON} or {FORM}"
        )
    if len(images) > settings.max_images:
        raise too_many(len(images), settings.max_images, "images")
    return asked, images


def too_many(count: int, limit: int, what: str) -> RefusedError:
    """Return the error for more of something than a request may have."""
    return RefusedError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"{count:,} {what}; the limit is {limit:,} in a request: send several requests",
    )


def embeddings_of(asked: ScoreRequest) -> npt.NDArray[np.float32]:
    """Return the (B, D) float32 embeddings of a request.

    Raises:
        EmbeddingError: when they are of different lengths, or no float32 in base64.
    """
    rows = [_row(at, one) for at, one in enumerate(asked.embeddings)]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise EmbeddingError(
            f"embeddings of {lengths[0]} and of {lengths[-1]} numbers: they must be of one length"
        )
    return np.array(rows, dtype=np.float32)


def _row(at: int, given: list[float] | str) -> npt.NDArray[np.float32]:
    if isinstance(given, str):
        try:
            return np.frombuffer(base64.b64decode(given, validate=True), dtype="<f4")
        except (binascii.Error, ValueError) as error:
            raise EmbeddingError(f"embedding {at}: not base64 of float32: {error}") from None
    with np.errstate(over="ignore"):  # what is too large for float32 is refused as infinite
        return np.array(given, dtype=np.float32)


def _images(asked: Record) -> list[str | ImageInput]:
    images: list[str | ImageInput] = getattr(asked, "images", [])
    return images


def _of_json(at: int, given: str | ImageInput, settings: Settings) -> SentImage:
    one = ImageInput(name=None, data=given, url=None) if isinstance(given, str) else given
    name = one.name or str(at)
    if one.url is not None:
        return SentImage(name, lambda: _refuse_url(name), one.url if settings.allow_urls else None)
    data = one.data or ""
    return SentImage(name, lambda: _decoded(name, data, settings))


def _refuse_url(name: str) -> bytes:
    raise ImageError(f"{name}: addresses are not fetched here: send the image itself")


def _decoded(name: str, data: str, settings: Settings) -> bytes:
    if data.startswith("data:"):
        data = data.partition(",")[2]
    if len(data) > settings.max_image_bytes * 4 // 3 + 4:
        raise _too_large(name, settings)
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"{name}: not base64: {error}") from None


def _of_file(at: int, file: tuple[str, bytes], settings: Settings) -> SentImage:
    name = (file[0] or str(at))[:1_000]

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


class _InMemory(MultiPartParser):
    """Keeps files in memory: a body has its limit, and nothing of it is written to a disk."""

    spool_max_size = 1 << 62


async def _read_form(
    request: Request, settings: Settings
) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """Return a form's texts, and the names and contents of its files."""
    body = await request.body()

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _InMemory(
        request.headers,
        stream(),
        max_files=settings.max_images,
        max_fields=_MAX_FIELDS,
        max_part_size=_MAX_FIELD,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        is_too_much = error.message.startswith(("Too many", "Part exceeded"))
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if is_too_much else HTTPStatus.BAD_REQUEST
        raise RefusedError(status, f"the form cannot be read: {error.message}") from None
    except ValueError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"the form cannot be read: {error}") from None
    uploads = [one for _, one in form.multi_items() if isinstance(one, UploadFile)]
    files = [(one.filename or "", one.file.read()) for one in uploads]
    await form.close()
    return _fields(form), files


def _fields(form: FormData) -> dict[str, Any]:
    """Return a form's texts as a JSON document would have them."""
    found: dict[str, Any] = {}
    for name in form:
        texts = [one for one in form.getlist(name) if isinstance(one, str)]
        if name == "floors":
            found[name] = dict(_floor(one) for one in texts)
        elif name in _LISTS:
            found[name] = texts
        elif texts:
            found[name] = texts[-1]
    return found


def _floor(text: str) -> tuple[str, str]:
    rank, sign, floor = text.rpartition("=")
    if not sign:
        raise RefusedError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"floors {text[:100]!r}: give RANK=FLOOR, such as species=0.9",
        )
    return rank, floor
