"""Opening of images as in the pipelines of transformers, with limits.

The pixels are those of ``transformers.image_utils.load_image``: EXIF orientation applied, then
Pillow's conversion to RGB. So alpha is dropped (not blended), palettes and gray are expanded, CMYK
is converted without a colour profile, 16-bit gray is clipped, and of an animated or multi-page file
only the first frame is used.

HEIC and RAW need the extras ``heic`` and ``raw``. The picture of a RAW file is the preview that the
camera has stored in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from zsic_index.errors import ImageError, ImageFormatError, ImageTooLargeError
from zsic_index.images import heif, raw

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")
"""Formats that Pillow may open. The content decides, not the name of the file."""

# fmt: off
SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif",
    *heif.HEIF_SUFFIXES, *sorted(raw.RAW_SUFFIXES),
)
# fmt: on
"""File endings that count as images in a folder, whether or not their extras are installed.

A RAW file and a JPEG of the same photo are two images.
"""

MAX_PIXELS = 178_956_970
"""Maximum of width x height: Pillow's own limit against decompression bombs."""

MAX_FILE_SIZE = 1 << 30
"""Maximum size of a file in bytes: several are held in memory at a time."""

MAX_ASPECT = 200
"""Maximum ratio of the longer to the shorter side: a thinner image would become huge when its
shorter side is resized to the input size of a model."""

ImageSource = str | Path | bytes | Image.Image
"""A path, the bytes of a file, or a PIL image."""

Content = bytes | Image.Image
"""An image source after its file has been read."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits on images; the decoders of other formats are never called.

    Attributes:
        max_pixels: maximum of width x height.
        formats: accepted formats, out of ``FORMATS``, ``HEIC`` and ``RAW``.
    """

    max_pixels: int = MAX_PIXELS
    formats: tuple[str, ...] = (*FORMATS, "HEIC", "RAW")


LIMITS = ImageLimits()
"""Default limits."""

Decode = Literal["exact", "scaled"]
"""Decoding of JPEGs: in full, or at 1/2, 1/4 or 1/8 of their size where that suffices."""

_LOCKS = tuple(threading.Lock() for _ in range(64))
"""Locks of PIL images that several threads may load at once, picked by the image's id."""

_MAX_PATH_LENGTH = 200
"""Maximum number of characters of a path in a message."""


def list_image_files(folder: Path) -> list[Path]:
    """Return the image files below a folder, sorted by path, without hidden ones."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def as_sequence(images: ImageSource | Sequence[ImageSource]) -> Sequence[ImageSource]:
    """Return a sequence of image sources; a single source (a string or bytes, say) is wrapped."""
    return [images] if isinstance(images, ImageSource) else images


def describe(source: ImageSource) -> str:
    """Return a short name of an image source for messages and predictions."""
    match source:
        case str() | Path():
            path = str(source)
            return path if len(path) <= _MAX_PATH_LENGTH else f"{path[:_MAX_PATH_LENGTH]}..."
        case bytes():
            return f"<{len(source)} bytes>"
        case Image.Image():
            return f"<{source.mode} image of {source.width} x {source.height}>"
    raise ImageError(
        f"<{type(source).__name__}>: not an image: give a path, a file's bytes or a PIL image"
    )


def read(source: ImageSource, limits: ImageLimits = LIMITS) -> Content:
    """Read the file of a source, once; bytes and PIL images are returned as they are.

    A RAW file, recognised by its suffix or its first bytes, gives the picture in it.

    Raises:
        ImageError: for a missing, unreadable or too large file, a folder, or a URL.
    """
    if isinstance(source, Image.Image):
        return source
    name = describe(source)
    if isinstance(source, bytes):
        return _without_raw(source, name, limits)
    if name.startswith(("http://", "https://")):
        raise ImageError(f"{name}: addresses are not fetched: download the image and give its path")
    try:
        path = Path(source)
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{name}: is a folder, not an image")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{name}: is not a file: give the image's file, or its bytes")
        with path.open("rb") as file:
            if path.suffix.lower() in raw.RAW_SUFFIXES and status.st_size <= MAX_FILE_SIZE:
                return _read_raw(path, name, limits)
            data = file.read(MAX_FILE_SIZE + 1)
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        # ValueError: a NUL or half of a surrogate pair in the path.
        reason = error.strerror if isinstance(error, OSError) else None
        raise ImageError(f"{name}: cannot be read: {reason or error}") from error
    if len(data) > MAX_FILE_SIZE:
        raise ImageTooLargeError(
            f"{name}: is larger than the limit of {MAX_FILE_SIZE:,} bytes: scale it down first"
        )
    return _without_raw(data, name, limits)


def _without_raw(data: bytes, name: str, limits: ImageLimits) -> Content:
    """Return the picture in the bytes of a RAW file, other bytes unchanged."""
    return _read_raw(data, name, limits) if raw.is_raw(data) else data


def _read_raw(source: Path | bytes, name: str, limits: ImageLimits) -> Content:
    if "RAW" not in limits.formats:
        raise _not_allowed(name, limits)
    return raw.read(source, name, max_pixels=limits.max_pixels)


def content_hash(content: Content, name: str, limits: ImageLimits = LIMITS) -> bytes:
    """Return the SHA-256 digest of a file's bytes, or of a PIL image's upright RGB pixels.

    Raises:
        ImageError: when a PIL image is too large or too thin.
    """
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    upright = decode(content, name, limits=limits)
    return hashlib.sha256(b"RGB %d %d " % upright.size + upright.tobytes()).digest()


def open_image(source: ImageSource, limits: ImageLimits = LIMITS) -> Image.Image:
    """Open, check and fully decode one image.

    Args:
        source: a path, the bytes of a file, or a PIL image.
        limits: accepted sizes and formats.

    Returns:
        An RGB image, upright.

    Raises:
        ImageError: when it is missing, of a format that is not allowed, too large, or broken.
    """
    return decode(read(source, limits), describe(source), limits=limits)


def decode(
    content: Content, name: str, *, min_side: int | None = None, limits: ImageLimits = LIMITS
) -> Image.Image:
    """Check and decode the content of an image source, see ``read``.

    Args:
        content: bytes of a file, or a PIL image.
        name: name of the image in messages.
        min_side: sufficient length of the shorter side in pixels: a JPEG is decoded at the smallest
            scale (1, 1/2, 1/4, 1/8) that reaches it. By default in full.
        limits: accepted sizes and formats.

    Returns:
        An RGB image, upright.

    Raises:
        ImageError: when it is of a format that is not allowed, too large, or broken.
    """
    try:
        if isinstance(content, Image.Image):
            _check_size(content.size, name, limits)
            # Several threads may load the same lazily opened image.
            with _LOCKS[id(content) % len(_LOCKS)]:
                return _to_rgb(content)
        if "HEIC" in limits.formats and heif.is_heif(content):
            return heif.decode(content, name, lambda size: _check_size(size, name, limits))
        formats = [format for format in FORMATS if format in limits.formats]
        with Image.open(io.BytesIO(content), formats=formats) as image:
            _check_size(image.size, name, limits)
            if min_side is not None:
                image.draft(None, (min_side, min_side))
            return _to_rgb(image)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise _not_allowed(name, limits) from None
    except Image.DecompressionBombError as error:
        # Pillow refuses before it gives the size in any other way than in this message.
        pixels = re.search(r"\d+", str(error))
        raise _too_large(name, int(pixels[0]) if pixels else None, limits) from None
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to decode it; scale it down first") from None
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        # Decoders raise SyntaxError, struct.error, IndexError, RuntimeError and more on broken
        # files; messages of libheif end with a line break.
        reason = str(error).strip() or type(error).__name__
        raise ImageError(f"{name}: broken image: {reason}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if isinstance(image, ImageFile.ImageFile):
        image.load()
    # Damaged EXIF does not make an image unusable: it keeps the orientation of the file.
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    return image.convert("RGB")


def _check_size(size: tuple[int, int], name: str, limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise _too_large(name, width * height, limits)
    if width * height == 0 or max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"{name}: {width} x {height} is too thin; the longer side may be at most "
            f"{MAX_ASPECT} times the shorter: crop it first"
        )


def _too_large(name: str, pixels: int | None, limits: ImageLimits) -> ImageTooLargeError:
    count = "too many" if pixels is None else f"{pixels:,}"
    return ImageTooLargeError(
        f"{name}: has {count} pixels; the limit is {limits.max_pixels:,}: scale it down first"
    )


def _not_allowed(name: str, limits: ImageLimits) -> ImageFormatError:
    formats = ", ".join(limits.formats)
    return ImageFormatError(f"{name}: not an image of a known format ({formats})")
