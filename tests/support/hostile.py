"""Request bodies that cost a careless parser far more than their size, at any size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_PIECE = 1 << 16

JSON = "application/json"
FORM = "multipart/form-data; boundary=b"


@dataclass(frozen=True)
class HostileBody:
    """A body that repeats a unit up to a size; made piece by piece, so that it costs no memory.

    Attributes:
        name: description.
        path: path of the route.
        start: bytes before the units.
        unit: bytes to repeat.
        end: bytes after the units.
        kind: content type.
        packed: whether it is sent as gzip.
    """

    name: str
    path: str
    start: bytes
    unit: bytes
    end: bytes
    kind: str = JSON
    packed: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """Headers that describe the body."""
        packed = {"Content-Encoding": "gzip"} if self.packed else {}
        return {"Content-Type": self.kind} | packed

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the body; decompressed it has about ``size`` bytes."""
        pack = zlib.compressobj(wbits=31) if self.packed else None
        for piece in self._plain(size):
            packed = piece if pack is None else pack.compress(piece)
            if packed:
                yield packed
        if pack is not None:
            yield pack.flush()

    def _plain(self, size: int) -> Iterator[bytes]:
        yield self.start
        left = max(0, size - len(self.start) - len(self.end)) // len(self.unit)
        at_once = max(1, _PIECE // len(self.unit))
        block = self.unit * at_once
        while left > 0:
            yield block if left >= at_once else self.unit * left
            left -= at_once
        yield self.end


_LISTS = {
    "numbers": b"1,",
    "decimals": b"0.12345678901234567,",
    "long numbers": b"1" * 4_000 + b",",
    "nulls": b"null,",
    "empty strings": b'"",',
    "short strings": b'"abc",',
    "long strings": b'"' + b"a" * 100_000 + b'",',
    "strings with an emoji": b'"' + b"a" * 60_000 + "🦊".encode() + b'",',
    "strings with an escaped emoji": b'"' + b"a" * 60_000 + b'\\ud83e\\udd8a",',
    "escaped strings": b'"' + b"\\n" * 30_000 + b'",',
    "lists": b"[],",
    "lists of numbers": b"[1,2,3],",
    "objects": b"{},",
    "images": b'{"data":"AAAA"},',
    "objects with names": b'{"name":"a","data":"AAAA"},',
}

_VALUES = {
    **{f"a list of {noun}": (b"[", unit, unit[:-1] + b"]") for noun, unit in _LISTS.items()},
    "an object": (b"{", b'"a":1,', b'"b":1}'),
    "nested lists": (b"", b"[", b""),
    "nested objects": (b"", b'{"a":', b""),
    "a long string": (b'"', b"A", b'"'),
    "a long string with an emoji": (b'"', b"A", "🦊".encode() + b'"'),
    "a long string with an escaped emoji": (b'"', b"A", b'\\ud83e\\udd8a"'),
    "a long string of escapes": (b'"', b"\\u0041", b'"'),
    "a long string of quotes": (b'"', b'\\"', b'"'),
    "a long string of slashes": (b'"', b"A" * 62 + b"\\/", b'"'),
    "a string without an end": (b'"', b"A", b""),
    "a long number": (b"", b"1", b""),
    "blanks": (b"", b" ", b"1"),
}

_REQUIRED = {"images": b'"images":["AAAA"]', "embeddings": b'"embeddings":[[1]]'}


def json_bodies(document: dict[str, Any]) -> Iterator[HostileBody]:
    """Yield bodies for every property of every JSON body in an OpenAPI document."""
    components = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        if "post" not in operations:
            continue
        reference = operations["post"]["requestBody"]["content"][JSON]["schema"]["$ref"]
        schema = components[reference.rpartition("/")[2]]
        for name in [*schema["properties"], "unknown"]:
            others = [_REQUIRED[other] for other in schema.get("required", ()) if other != name]
            start = b"{" + b"".join(other + b"," for other in others) + f'"{name}":'.encode()
            for noun, (first, unit, last) in _VALUES.items():
                title = f"{path} {name}: {noun}"
                yield HostileBody(title, path, start + first, unit, last + b"}")
        yield HostileBody(f"{path}: members", path, b"{", b'"a":1,', b'"b":1}')
        yield HostileBody(f"{path}: lists of lists", path, b"[", b"[[]],", b"[]]")
        if "embeddings" in schema["properties"]:
            row = b"[" + b"-0.0123456789012345," * 1_151 + b"1],"
            first = b'{"embeddings":['
            title = f"{path}: as many numbers as fit"
            yield HostileBody(title, path, first, row, row[:-1] + b"]}")
            first += row * 999 + row[:-1] + b"],"
            # All texts that a request may have, and blanks.
            yield HostileBody(
                f"{path}: numbers and texts", path, first + _texts(250), b" ", b'"x":1}'
            )
        elif "images" in schema["properties"]:
            image = b'"' + b"A" * 140_000 + b'",'
            yield HostileBody(
                f"{path}: large images", path, b'{"images":[', image, image[:-1] + b"]}"
            )
            yield HostileBody(
                f"{path}: images and texts",
                path,
                b'{"prompts":[' + _LISTS["escaped strings"] * 130 + b'""],' + _texts(270),
                b" ",
                b'"images":[' + image * 50 + b'"AAAA"],"x":1}',
            )


def _texts(count: int) -> bytes:
    """Return a member with strings of 60,000 bytes that take 240,000 in memory."""
    return b'"labels":[' + _LISTS["strings with an emoji"] * count + b'""],'


def form_bodies(path: str = "/v1/classify") -> Iterator[HostileBody]:
    """Yield forms."""
    head = b'--b\r\nContent-Disposition: form-data; name="labels"'
    file = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    end = b"\r\n--b--\r\n"
    text = b"\r\n\r\n" + b"a" * 60_000 + "🦊".encode() + b"\r\n"
    for noun, start, unit, last in (
        ("fields", b"", head + b"\r\n\r\na\r\n", b"--b--\r\n"),
        ("fields with an emoji", b"", head + text, b"--b--\r\n"),
        ("files", b"", file + b"a\r\n", b"--b--\r\n"),
        ("large files", b"", file + b"a" * (1 << 20) + b"\r\n", b"--b--\r\n"),
        ("one file", file, b"a", end),
        ("one file of line ends", file, b"\r\n", end),
        ("one file of almost boundaries", file, b"\r\n-", end),
        ("one file of longer boundaries", file, b"\r\n--bx", end),
        ("one field", head + b"\r\n\r\n", b"a", end),
        ("a long header", head, b"; a=1", b"\r\n\r\n" + end),
        ("a header of quotes", head, b'";', b"\r\n\r\n" + end),
        ("headers of quotes", b"", head + b'";' * 3_000 + b"\r\n\r\na\r\n", b"--b--\r\n"),
        ("many headers", head, b"\r\nA: b", b"\r\n\r\n" + end),
        ("a preamble", b"", b"a", b"\r\n" + file + end),
        ("a preamble of line ends", b"", b"\n--", b"\r\n" + file + end),
        ("no end", file, b"a", b""),
        ("line ends", b"", b"\r\n", end),
    ):
        yield HostileBody(f"{path} form: {noun}", path, start, unit, last, FORM)


def packed_bodies() -> Iterator[HostileBody]:
    """Yield bodies that are small on the wire."""
    path, start = "/v1/classify", b'{"images":['
    for noun in ("numbers", "lists", "short strings"):
        unit = _LISTS[noun]
        title = f"{path} gzip: a list of {noun}"
        yield HostileBody(title, path, start, unit, unit[:-1] + b"]}", packed=True)
    yield HostileBody(f"{path} gzip: a form", path, b"", b"\r\n--b", b"", FORM, packed=True)
    yield HostileBody(f"{path} gzip: zeros", path, b"", bytes(1_000), b"", packed=True)


def all_bodies(document: dict[str, Any]) -> list[HostileBody]:
    """Return the bodies for an OpenAPI document."""
    return [*packed_bodies(), *form_bodies(), *json_bodies(document)]
