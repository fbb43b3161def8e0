"""Opening one image the way transformers' pipelines do, with guards.

The result is what ``transformers.image_utils.load_image`` gives: EXIF orientation applied, then
Pillow's own conversion to RGB. That means: alpha is dropped (not blended), palettes and gray are
expanded, CMYK is converted without a colour profile, 16-bit gray is clipped, and of an animated or
multi-page file the first frame is taken.

HEIC and RAW, which Pillow does not read, come with the extras ``heic`` and ``raw``. Of a RAW file
the picture is taken that the camera has put in it.
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
"""Formats that Pillow may open; but for HEIC and RAW, any other is refused whatever its name."""

# fmt: off
SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif",
    *heif.HEIF_SUFFIXES, *sorted(raw.RAW_SUFFIXES),
)
# fmt: on
"""File endings that are picked up when a folder is given, with or without their extras.

A RAW file and a JPEG of one photo are two images: who gives a folder gets an answer for each file.
"""

MAX_PIXELS = 178_956_970
"""The largest width x height that is decoded: Pillow's own limit for decompression bombs."""

MAX_FILE_SIZE = 1 << 30
"""The most bytes that are read of a file: several are held at a time."""

MAX_ASPECT = 200
"""The largest ratio of the longer to the shorter side: a resize would blow the short side up."""

ImageSource = str | Path | bytes | Image.Image

Content = bytes | Image.Image
"""What is left of a source once its file has been read."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is accepted as an image.

    Attributes:
        max_pixels: the largest width x height that is decoded.
        formats: what may be opened: some of ``FORMATS``, ``HEIC`` and ``RAW``. The decoder of
            another is never called.
    """

    max_pixels: int = MAX_PIXELS
    formats: tuple[str, ...] = (*FORMATS, "HEIC", "RAW")


LIMITS = ImageLimits()
"""What is accepted unless something else is said."""

Decode = Literal["exact", "scaled"]
"""Whether a JPEG is decoded in full, or by its own decoder at 1/2, 1/4 or 1/8 of its size."""

_LOCKS = tuple(threading.Lock() for _ in range(64))

_SHOWN = 200
"""Characters of a path that are shown in messages."""


def files_below(folder: Path) -> list[Path]:
    """Return the image files in a folder and the folders below it, by path; no hidden ones."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def listed(images: ImageSource | Sequence[ImageSource]) -> Sequence[ImageSource]:
    """Return several images as they are, and one, which may be a sequence as well, as a list."""
    return [images] if isinstance(images, ImageSource) else images


def describe(source: ImageSource) -> str:
    """Return a short name of an image source for messages and results."""
    match source:
        case str() | Path():
            path = str(source)
            return path if len(path) <= _SHOWN else f"{path[:_SHOWN]}..."
        case bytes():
            return f"<{len(source)} bytes>"
        case Image.Image():
            return f"<{source.mode} image of {source.width} x {source.height}>"
    raise ImageError(
        f"<{type(source).__name__}>: not an image: give a path, a file's bytes or a PIL image"
    )


def read(source: ImageSource, limits: ImageLimits = LIMITS) -> Content:
    """Return the content of a source: a file is read once, whatever happens to it afterwards.

    Of a RAW file, known by its suffix or by how it starts, that is the picture in it.

    Raises:
        ImageError: when it is missing, too large, cannot be read, or is an address.
    """
    if isinstance(source, Image.Image):
        return source
    name = describe(source)
    if isinstance(source, bytes):
        return _picture_in(source, name, limits)
    if name.startswith(("http://", "https://")):
        raise ImageError(f"{name}: addresses are not fetched: download the image and give its path")
    try:
        path = Path(source)
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise ImageError(f"{name}: is a folder, not an image")
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(f"{name}: is not a file: give the image's file, or its bytes")
        with path.open("rb") as file:
            if path.suffix.lower() in raw.RAW_SUFFIXES and found.st_size <= MAX_FILE_SIZE:
                return _raw_picture(path, name, limits)
            data = file.read(MAX_FILE_SIZE + 1)
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        # ValueError: a NUL, or half of a surrogate pair.
        reason = error.strerror if isinstance(error, OSError) else None
        raise ImageError(f"{name}: cannot be read: {reason or error}") from error
    if len(data) > MAX_FILE_SIZE:
        raise ImageTooLargeError(
            f"{name}: is larger than the limit of {MAX_FILE_SIZE:,} bytes: scale it down first"
        )
    return _picture_in(data, name, limits)


def _picture_in(data: bytes, name: str, limits: ImageLimits) -> Content:
    return _raw_picture(data, name, limits) if raw.is_raw(data) else data


def _raw_picture(source: Path | bytes, name: str, limits: ImageLimits) -> Content:
    if "RAW" not in limits.formats:
        raise _not_allowed(name, limits)
    return raw.read(source, name, max_pixels=limits.max_pixels)


def content_hash(content: Content, name: str, limits: ImageLimits = LIMITS) -> bytes:
    """Return 32 bytes that stand for a file's bytes, or for an image's upright pixels.

    Raises:
        ImageError: when an image is too large or too thin.
    """
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    upright = decode(content, name, limits=limits)
    return hashlib.sha256(b"RGB %d %d " % upright.size + upright.tobytes()).digest()


def open_image(source: ImageSource, limits: ImageLimits = LIMITS) -> Image.Image:
    """Open, check and fully decode one image.

    Args:
        source: a path, the bytes of a file, or a PIL image.
        limits: what is accepted.

    Returns:
        An RGB image, upright.

    Raises:
        ImageError: when it is missing, of a format that is not allowed, too large, or broken.
    """
    return decode(read(source, limits), describe(source), limits=limits)


def decode(
    content: Content, name: str, *, at_least: int | None = None, limits: ImageLimits = LIMITS
) -> Image.Image:
    """Check and decode what ``read`` gave.

    Args:
        content: a file's bytes, or a PIL image.
        name: what to call it in messages.
        at_least: pixels of the shorter side that are enough; a JPEG is then decoded at the smallest
            of its own scales (1, 1/2, 1/4, 1/8) that has them. By default in full.
        limits: what is accepted.

    Returns:
        An RGB image, upright.

    Raises:
        ImageError: when it is of a format that is not allowed, too large, or broken.
    """
    try:
        if isinstance(content, Image.Image):
            _check_size(content.size, name, limits)
            # One that is still to be read from its file may be asked for by several threads.
            with _LOCKS[id(content) % len(_LOCKS)]:
                return _to_rgb(content)
        if "HEIC" in limits.formats and heif.is_heif(content):
            return heif.decode(content, name, lambda size: _check_size(size, name, limits))
        known = [one for one in FORMATS if one in limits.formats]
        with Image.open(io.BytesIO(content), formats=known) as image:
            _check_size(image.size, name, limits)
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            return _to_rgb(image)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise _not_allowed(name, limits) from None
    except Image.DecompressionBombError as error:
        # Pillow refuses before it tells the size in any other way.
        pixels = re.search(r"\d+", str(error))
        raise _too_large(name, int(pixels[0]) if pixels else None, limits) from None
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to decode it; scale it down first") from None
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        # Decoders raise SyntaxError, struct.error, IndexError, RuntimeError and more on broken
        # files, libheif's with a line break at the end.
        reason = str(error).strip() or type(error).__name__
        raise ImageError(f"{name}: broken image: {reason}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if isinstance(image, ImageFile.ImageFile):
        image.load()
    # A picture with damaged EXIF is still a picture: it is taken as it lies in the file.
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
    shown = "too many" if pixels is None else f"{pixels:,}"
    return ImageTooLargeError(
        f"{name}: has {shown} pixels; the limit is {limits.max_pixels:,}: scale it down first"
    )


def _not_allowed(name: str, limits: ImageLimits) -> ImageFormatError:
    known = ", ".join(limits.formats)
    return ImageFormatError(f"{name}: not an image of a known format ({known})")
