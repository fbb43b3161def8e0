"""Parser of forms (multipart/form-data) in memory: files are views of the body, not copies."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from python_multipart.multipart import parse_options_header

from zsic_index.web import RefusedError

_EXTENDED_NAME = re.compile(rb";\s*filename\*\s*=\s*\"?([\w-]+)'[\w-]*'([^\s;\"]*)", re.IGNORECASE)
"""The ``filename*`` of RFC 5987: charset, language and the percent-encoded name."""

_MAX_FIELDS = 1_000
"""Maximum number of text fields in a form. JSON has no such limit."""

_MAX_FIELD = 1 << 16
"""Maximum size of a text field in bytes."""

_MAX_FIELDS_SIZE = 4 << 20
"""Maximum size of all text fields in bytes."""

_MAX_HEAD = 1 << 13
"""Maximum size of the headers of a part in bytes."""

_MAX_HEADS_SIZE = 1 << 19
"""Maximum size of the headers of all parts in bytes."""


@dataclass(slots=True)
class Form:
    """A form's text fields by name, and the names and contents of its files."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: list[tuple[str, memoryview]] = field(default_factory=list)


def parse_form(body: bytes, content_type: str, max_files: int) -> Form:
    """Return the fields and files of a form.

    Args:
        body: the form.
        content_type: Content-Type header, which has the boundary.
        max_files: maximum number of files.

    Raises:
        RefusedError: 413 for too many or too large parts, 400 for anything that is not a form.
    """
    _, options = parse_options_header(content_type)
    if not options.get(b"boundary"):
        raise _invalid("the Content-Type header has no boundary")
    encoding = _encoding(options.get(b"charset", b"utf-8").decode("latin-1"))
    form = Form()
    count = fields_size = heads_size = 0
    for head, content in _parts(body, b"--" + options[b"boundary"]):
        heads_size += len(head)
        _check(heads_size, _MAX_HEADS_SIZE, "bytes of headers of parts")
        headers = _headers(head)
        _, disposition = parse_options_header(headers.get(b"content-disposition", b""))
        if b"name" not in disposition:
            raise _invalid("a part has no Content-Disposition header with a name")
        file_name = _file_name(headers, disposition, encoding)
        if file_name is not None:
            _check(len(form.files) + 1, max_files, "files")
            form.files.append((file_name, content))
            continue
        count += 1
        _check(count, _MAX_FIELDS, "text fields")
        _check(len(content), _MAX_FIELD, "bytes in a text field")
        fields_size += len(content)
        _check(fields_size, _MAX_FIELDS_SIZE, "bytes in text fields")
        texts = form.fields.setdefault(_decode(disposition[b"name"], encoding), [])
        texts.append(_decode(bytes(content), encoding))
    return form


def _parts(body: bytes, delimiter: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the headers and the content of each part; text before the first part is skipped."""
    start = 0 if body.startswith(delimiter) else body.find(b"\n" + delimiter) + 1
    if not body.startswith(delimiter, start):
        raise _invalid("its boundary is missing")
    position = start + len(delimiter)
    newline = b"\n" if body.startswith(b"\n", position) else b"\r\n"
    delimiter = newline + delimiter
    view = memoryview(body)
    while not body.startswith(b"--", position):
        if not body.startswith(newline, position):
            raise _invalid("a boundary is not followed by the end of its line")
        # The blank line after the headers may be the first one.
        head_end = body.find(newline * 2, position, position + _MAX_HEAD)
        if head_end < 0:
            raise _invalid(f"the headers of a part have no end within {_MAX_HEAD:,} bytes")
        start = head_end + 2 * len(newline)
        end = body.find(delimiter, start)
        if end < 0:
            raise _invalid("it ends within a part")
        yield body[position + len(newline) : head_end], view[start:end]
        position = end + len(delimiter)


def _headers(head: bytes) -> dict[bytes, bytes]:
    lines = (line.partition(b":") for line in head.splitlines())
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _file_name(
    headers: dict[bytes, bytes], disposition: dict[bytes, bytes], encoding: str
) -> str | None:
    """Return the name of a file, empty if it has none; None for a text field.

    Parts with only a ``filename*``, and parts without a file name whose Content-Type is an
    image's, are files too.
    """
    if b"filename" in disposition:
        return _decode(disposition[b"filename"], encoding)
    name = _extended_name(headers[b"content-disposition"])
    if name is None and headers.get(b"content-type", b"").lower().startswith(b"image/"):
        return ""
    return name


def _extended_name(disposition: bytes) -> str | None:
    match = _EXTENDED_NAME.search(disposition)
    if match is None:
        return None
    charset, quoted = match.groups()
    encoding = "latin-1" if charset.lower() == b"iso-8859-1" else "utf-8"
    return unquote_to_bytes(quoted).decode(encoding, "replace")


def _encoding(charset: str) -> str:
    try:
        return codecs.lookup(charset).name
    except LookupError:
        return "latin-1"


def _decode(text: bytes, encoding: str) -> str:
    try:
        return text.decode(encoding)
    except (UnicodeDecodeError, LookupError):  # LookupError: no encoding of text
        return text.decode("latin-1")


def _check(count: int, limit: int, noun: str) -> None:
    if count > limit:
        raise RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the form has more than {limit:,} {noun}, the limit: send several requests, or JSON",
        )


def _invalid(reason: str) -> RefusedError:
    return RefusedError(HTTPStatus.BAD_REQUEST, f"the form cannot be read: {reason}")
