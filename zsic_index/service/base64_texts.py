"""Base64 in the spellings that clients send: standard or URL-safe, with padding or without."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_BLANKS = b" \t\r\n\f\v"

_MAX_ESCAPES = 1 << 16
"""Maximum number of percent signs in a data: URL, each of which takes a while to decode."""


def decode(text: str) -> bytes:
    """Return the bytes of a base64 text; blanks are skipped.

    Raises:
        ValueError: if it is not base64.
    """
    try:
        digits = text.encode("ascii").translate(_URL_SAFE, _BLANKS).rstrip(b"=")
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except UnicodeEncodeError:
        raise ValueError("it has characters beyond ASCII") from None
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def is_data_url(text: str) -> bool:
    """Tell whether a text is a ``data:`` URL."""
    return text[:5].lower() == "data:"


def decode_data_url(url: str) -> bytes:
    """Return the content of a ``data:`` URL, base64 or percent-encoded.

    Raises:
        ValueError: if it has no comma, too many percent signs or invalid base64.
    """
    head, comma, text = url.partition(",")
    if not comma:
        raise ValueError("a data: URL has a comma before its content")
    if text.count("%") > _MAX_ESCAPES:
        raise ValueError(f"more than {_MAX_ESCAPES:,} percent signs: use ;base64")
    is_base64 = head.lower().rstrip().endswith(";base64")
    if "%" in text:
        text = unquote_to_bytes(text).decode("latin-1")
        return decode(text) if is_base64 else text.encode("latin-1")
    return decode(text) if is_base64 else text.encode("utf-8")
