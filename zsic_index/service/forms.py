"""Forms as clients send them: multipart bodies with preambles, bare LFs and unnamed images."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from urllib.parse import unquote_to_bytes

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser

_EXTENDED_NAME = re.compile(rb";\s*filename\*\s*=\s*\"?([\w-]+)'[\w-]*'([^\s;\"]*)", re.IGNORECASE)
"""The ``filename*`` of RFC 5987: charset, language and the percent-encoded name."""


async def read_form(
    body: bytes, headers: Headers, *, max_files: int, max_fields: int, max_part_size: int
) -> FormData:
    """Return the text fields and files of a multipart body.

    Args:
        body: the body.
        headers: headers with its Content-Type.
        max_files: maximum number of files.
        max_fields: maximum number of text fields.
        max_part_size: maximum size of a text field in bytes.

    Raises:
        MultiPartException: if the body is no form, or exceeds a limit.
        ValueError: if a header of a part is invalid.
    """
    _, parameters = parse_options_header(headers["content-type"])
    boundary = parameters.get(b"boundary", b"")

    async def stream() -> AsyncGenerator[bytes, None]:
        yield _normalise(body, boundary, max_files + max_fields)

    parser = _FormParser(
        headers,
        stream(),
        max_files=max_files,
        max_fields=max_fields,
        max_part_size=max_part_size,
    )
    return await parser.parse()


class _FormParser(MultiPartParser):
    """A form parser that keeps files in memory; the size of a body is limited already.

    Parts with only a ``filename*``, and parts without a file name whose Content-Type is an
    image's, are files too.
    """

    spool_max_size = 1 << 62

    def on_headers_finished(self) -> None:
        """Tell whether the part is a file, and give it a name."""
        part = self._current_part
        disposition = part.content_disposition or b""
        _, options = parse_options_header(disposition)
        name = None if b"filename" in options else _extended_name(disposition)
        if name is None and b"filename" not in options and _is_image(part.item_headers):
            name = ""
        if name is not None:
            part.content_disposition = disposition + b'; filename=""'
        super().on_headers_finished()
        if name is not None and part.file is not None:
            part.file.filename = name


def _normalise(body: bytes, boundary: bytes, max_parts: int) -> bytes:
    """Return a multipart body without its preamble and with CRLF around headers.

    Args:
        body: the body.
        boundary: the boundary that its Content-Type declares.
        max_parts: maximum number of parts to rewrite when lines end in a bare LF.

    Raises:
        MultiPartException: if there are more.
    """
    delimiter = b"--" + boundary
    if not body.startswith(delimiter):
        start = body.find(b"\n" + delimiter)
        if start < 0:
            return body
        body = body[start + 1 :]
    if not body.startswith(delimiter + b"\n"):
        return body
    separator = b"\n" + delimiter
    if body.count(separator) > max_parts:
        raise MultiPartException(f"Too many parts. Maximum number of parts is {max_parts}.")
    parts = body[len(delimiter) :].split(separator)
    return delimiter + (b"\r\n" + delimiter).join(map(_with_crlf, parts))


def _with_crlf(part: bytes) -> bytes:
    """Return what follows a delimiter, with CRLF in its head; its content stays as it is."""
    head, blank, content = part.partition(b"\n\n")
    if not blank:  # the last delimiter
        return part
    return head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + content


def _extended_name(disposition: bytes) -> str | None:
    match = _EXTENDED_NAME.search(disposition)
    if match is None:
        return None
    charset, quoted = match.groups()
    encoding = "latin-1" if charset.lower() == b"iso-8859-1" else "utf-8"
    return unquote_to_bytes(quoted).decode(encoding, "replace")


def _is_image(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(
        name.lower() == b"content-type" and value.strip().lower().startswith(b"image/")
        for name, value in headers
    )
