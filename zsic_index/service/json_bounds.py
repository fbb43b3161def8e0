"""Bounds on JSON documents, checked on their bytes before any value is built.

A parser builds everything before a model can refuse it, and a byte of JSON can become a hundred
bytes of Python. Here structure is only counted, at about a nanosecond per byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

from zsic_index.web import RefusedError

_LONG = 1 << 17
"""Size in bytes above which a string must be a file in base64: a prompt of 10,000 characters has
at most 120,000 bytes as escapes."""

_MAX_NUMBER = 64
"""Maximum number of characters of a number."""

_MAX_ESCAPES = 4 << 20
"""Maximum number of backslashes: PHP writes one before each slash, 1 of 64 characters of base64."""

_MAX_WIDE = 16 << 20
"""Maximum size in bytes of strings with characters beyond ASCII, which take 4 bytes per character
of the string, ASCII characters included."""

_BLOCK = 1 << 20

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)

_WIDE_ESCAPE = re.compile(rb"\\u(?!00)")

_PUNCTUATION = bytes(byte in b"[]{},: \t\r\n" for byte in range(256))
"""Table for ``bytes.translate``: 1 for a byte that ends a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Maximum size of the documents of a route.

    Attributes:
        containers: number of lists and objects.
        members: number of members of all objects.
        texts: number of strings, names of members included.
        values: number of values.
        text_bytes: size of all strings except files.
        files: whether strings can be files in base64.
    """

    containers: int
    members: int
    texts: int
    values: int
    text_bytes: int
    files: bool


@dataclass(frozen=True, slots=True)
class Document:
    """A document within its bounds.

    Attributes:
        text: the document, with a placeholder in place of every long string; it starts with
            ``data:`` if the string does.
        files: placeholder → long string: JSON, with its quotes.
    """

    text: bytes
    files: dict[str, memoryview]


def examine(body: bytes, bounds: Bounds, placeholder_size: int) -> Document:
    """Check a JSON document against bounds, and take its long strings out.

    The document may still be invalid; then parsing it fails, within the bounds.

    Args:
        body: the document.
        bounds: the bounds.
        placeholder_size: number of characters of a placeholder; more than any text may have, so
            that a placeholder is refused wherever a file is not expected.

    Raises:
        RefusedError: 413 if the document exceeds a bound.
    """
    escapes = body.count(b"\\")
    _check(escapes, _MAX_ESCAPES, "escaped characters")
    # Most bodies with too many strings are refused without a look at each.
    _check((body.count(b'"') - escapes) // 2, bounds.texts, "strings")
    has_wide = not body.isascii() or _WIDE_ESCAPE.search(body) is not None
    counts = dict.fromkeys((b"[", b"{", b":", b","), 0)
    texts = text_bytes = wide_bytes = end = kept = 0
    parts: list[bytes] = []
    files: dict[str, memoryview] = {}
    for start, stop in _strings(body):
        _count(body, end, start, counts, bounds)
        end, size = stop, stop - start
        texts += 1
        _check(texts, bounds.texts, "strings")
        if size > _LONG and bounds.files:
            scheme = body[start + 1 : start + 6].decode("latin-1")
            prefix = scheme if scheme.lower() == "data:" else ""
            placeholder = prefix + str(len(files)).rjust(placeholder_size - len(prefix))
            files[placeholder] = memoryview(body)[start:stop]
            parts += (body[kept:start], b'"%b"' % placeholder.encode())
            kept = stop
            continue
        text_bytes += size
        _check(text_bytes, bounds.text_bytes, "bytes of text")
        if has_wide and _is_wide(body, start, stop):
            wide_bytes += size
            _check(wide_bytes, _MAX_WIDE, "bytes of text beyond ASCII")
    _count(body, end, len(body), counts, bounds)
    return Document(b"".join([*parts, body[kept:]]) if files else body, files)


def _strings(body: bytes) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of every string, with its quotes."""
    start = body.find(b'"')
    while start >= 0:
        stop = body.find(b'"', start + 1) + 1
        if stop and body[stop - 2] == 0x5C:  # a backslash; it may be escaped itself
            match = _STRING.match(body, start)
            stop = match.end() if match else 0
        if not stop:  # without an end: the parser refuses it
            yield start, len(body)
            return
        yield start, stop
        start = body.find(b'"', stop)


def _count(body: bytes, start: int, stop: int, counts: dict[bytes, int], bounds: Bounds) -> None:
    """Count the structure between two strings, and check it."""
    for character in counts:
        counts[character] += body.count(character, start, stop)
    containers = counts[b"["] + counts[b"{"]
    _check(containers, bounds.containers, "lists and objects")
    _check(counts[b":"], bounds.members, "members of objects")
    _check(counts[b","] + containers, bounds.values, "values")
    if stop - start <= _MAX_NUMBER:
        return
    for first in range(start, stop, _BLOCK):
        block = body[first : min(stop, first + _BLOCK + _MAX_NUMBER)]
        if bytes(_MAX_NUMBER + 1) in block.translate(_PUNCTUATION):
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body has a number of more than {_MAX_NUMBER} characters, the limit: round it",
            )


def _is_wide(body: bytes, start: int, stop: int) -> bool:
    return not body[start:stop].isascii() or _WIDE_ESCAPE.search(body, start, stop) is not None


def _check(count: int, limit: int, noun: str) -> None:
    if count > limit:
        raise RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body has more than {limit:,} {noun}, the limit for this path: "
            "send several requests",
        )
