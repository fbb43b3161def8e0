"""Reading of request bodies within limits, independent of what their headers declare."""

from __future__ import annotations

import asyncio
import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus

from starlette.types import Receive

from zsic_index.web import RefusedError

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_GZIP = zlib.MAX_WBITS | 16
_GZIP_MAGIC = b"\x1f\x8b"

_MAX_MEMBERS = 1_000
"""Maximum number of gzip members in a body, each of which takes a while to start."""

_PIECE = 1 << 18
"""Maximum number of bytes to decompress at a time, which takes about a millisecond."""


class ClientGoneError(Exception):
    """Error for a request whose client has disconnected."""


def declared_size(headers: Mapping[str, str], limit: int) -> int:
    """Return the declared size of a body in bytes, or 0 if it is unknown or compressed.

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
        return 0
    if int(length) > limit:
        raise too_large(limit)
    return int(length) if encoding == "identity" else 0


async def read(
    receive: Receive, headers: Mapping[str, str], limit: int, charge: Callable[[int], None]
) -> bytes:
    """Return a body, decompressed.

    Args:
        receive: ASGI receive function.
        headers: headers of the request.
        limit: maximum size of the body in bytes.
        charge: called with the size of each part; its exceptions are raised.

    Raises:
        ClientGoneError: if the client disconnects before its end.
        RefusedError: 413 for more than ``limit`` bytes, 400 for invalid compressed data.
    """
    encoding = _encoding(headers)
    unpack = None if encoding == "identity" else _Unpacker(encoding)
    # Unlike joined parts, a BytesIO never holds the body twice.
    body = io.BytesIO()
    received = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        received += len(chunk)
        if received > limit:  # compressed data can also be larger than its content
            raise too_large(limit)
        for part in (chunk,) if unpack is None else unpack.pieces(chunk):
            if body.tell() + len(part) > limit:
                raise too_large(limit)
            charge(len(part))
            body.write(part)
            await asyncio.sleep(0)  # other requests have their turn
        if not message.get("more_body", False):
            break
    if unpack is not None:
        unpack.finish()
    return body.getvalue()


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


class _Unpacker:
    """A decompressor of gzip, of one member or several, or of zlib data.

    Args:
        encoding: the Content-Encoding.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._member = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._members = 0
        self._is_within = False

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """Yield a chunk decompressed, in pieces.

        Raises:
            RefusedError: 400 for invalid data, bytes after its end, or too many members.
        """
        is_pending = bool(chunk)
        while is_pending:
            if self._member.eof:
                self._start_next(chunk)
            self._is_within = True
            try:
                part = self._member.decompress(chunk, _PIECE)
            except zlib.error as error:
                raise _invalid(f"the body cannot be unpacked: {error}") from None
            yield part
            if self._member.eof:
                chunk = self._member.unused_data
                is_pending = bool(chunk)
            else:
                chunk = self._member.unconsumed_tail
                is_pending = bool(chunk) or len(part) == _PIECE

    def finish(self) -> None:
        """Check that nothing is missing.

        Raises:
            RefusedError: 400 if the data end before their end.
        """
        if self._is_within and not self._member.eof:
            raise _invalid(f"the body ends within its {self._encoding} data")

    def _start_next(self, chunk: bytes) -> None:
        self._members += 1
        if self._encoding == "deflate" or not chunk.startswith(_GZIP_MAGIC[: len(chunk)]):
            raise _invalid(f"the body has bytes after the end of its {self._encoding} data")
        if self._members >= _MAX_MEMBERS:
            raise _invalid(f"the body has more than {_MAX_MEMBERS:,} gzip members: send one")
        self._member = zlib.decompressobj(_GZIP)


def _invalid(detail: str) -> RefusedError:
    return RefusedError(HTTPStatus.BAD_REQUEST, detail)
