"""Reading of request bodies within limits, independent of what their headers declare."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from http import HTTPStatus

from starlette.types import Receive

from zsic_index.web import RefusedError

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class ClientGoneError(Exception):
    """Error for a request whose client has disconnected."""


def declared_size(headers: Mapping[str, str], limit: int) -> int:
    """Return the declared size of a body in bytes, or the limit if it is unknown.

    Raises:
        RefusedError: 413 if it exceeds the limit; 415 for an unsupported encoding.
    """
    encoding = _encoding(headers)
    if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
        raise RefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Encoding {encoding[:40]!r}: send the body as it is, or use gzip or deflate",
        )
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        return limit
    if int(length) > limit:
        raise too_large(limit)
    return int(length) if encoding == "identity" else limit


async def read(receive: Receive, headers: Mapping[str, str], limit: int) -> bytes:
    """Return a body, decompressed.

    Raises:
        ClientGoneError: if the client disconnects before its end.
        RefusedError: 413 for more than ``limit`` bytes, 400 for invalid compressed data.
    """
    encoding = _encoding(headers)
    unpack = None if encoding == "identity" else zlib.decompressobj(_GZIP_OR_ZLIB)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        if unpack is not None:
            chunk = _unpacked(unpack, chunk, limit - size)
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        parts.append(chunk)
        if not message.get("more_body", False):
            break
    if unpack is not None and size and not unpack.eof:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"the body ends within its {encoding} data")
    return b"".join(parts)


async def discard(receive: Receive, limit: int) -> None:
    """Read and drop at most ``limit`` bytes of a body, so that the client reads the response."""
    size = 0
    while size <= limit:
        message = await receive()
        size += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


def too_large(limit: int) -> RefusedError:
    """Return the error for a body over the limit."""
    return RefusedError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body has more than {limit:,} bytes, the limit: send fewer or smaller images",
    )


def _encoding(headers: Mapping[str, str]) -> str:
    return headers.get("content-encoding", "identity").strip().lower()


def _unpacked(unpack: zlib._Decompress, chunk: bytes, left: int) -> bytes:
    """Return a chunk decompressed, with at most one byte more than is allowed."""
    try:
        return unpack.decompress(chunk, left + 1)
    except zlib.error as error:
        raise RefusedError(
            HTTPStatus.BAD_REQUEST, f"the body cannot be unpacked: {error}"
        ) from None
