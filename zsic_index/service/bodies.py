"""A request's body: read within limits, whatever its headers say."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from http import HTTPStatus

from starlette.types import Receive

from zsic_index.web import RefusedError

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class ClientGoneError(Exception):
    """The client has hung up."""


def declared(headers: Mapping[str, str], limit: int) -> int:
    """Return how many bytes a body may have: what it says, or as many as are allowed.

    Raises:
        RefusedError: 413 when it says more than that; 415 for an encoding that is not known.
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
        ClientGoneError: when the client hangs up before its end.
        RefusedError: 413 when it has more than ``limit`` bytes, 400 when it is broken.
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
    """Read at most ``limit`` bytes of what still comes, so that the client gets to its answer."""
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
    """Return what a chunk holds, or one byte more than is allowed."""
    try:
        return unpack.decompress(chunk, left + 1)
    except zlib.error as error:
        raise RefusedError(
            HTTPStatus.BAD_REQUEST, f"the body cannot be unpacked: {error}"
        ) from None
