"""Decoder of HEIC, the photos of phones, with libheif (the extra ``heic``)."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from zsic_index.errors import ImageError, MissingExtraError

HEIF_SUFFIXES = (".heic", ".heif", ".hif")

_HEVC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF = {b"avif", b"avis"}
_ANY_CODEC = {b"mif1", b"msf1", b"mif2"}
"""Brands of HEIF containers with any codec."""

_THREADS = 4
"""Number of threads with which libheif decodes the tiles of an image: the default of pi_heif."""

_MODES = ("L", "LA", "RGB", "RGBA", "RGBa")
"""Modes that are decoded.

Colour of 10 and 12 bits is converted to 8 bits. Gray is not, and pi_heif 1.4.0 writes past the end
of its buffer when gray pixels have fewer bits than the header says: such modes are refused.
"""

_MOST_BRANDS = 64
"""Maximum number of brands that are read: the first box of a file may claim any length."""


def is_heif(content: bytes) -> bool:
    """Return whether the brands at the start of a file are those of HEIF, but not of AVIF."""
    if content[4:8] != b"ftyp":
        return False
    length = min(int.from_bytes(content[:4], "big"), 16 + 4 * _MOST_BRANDS)
    major = content[8:12]
    if major in _HEVC or major in _AVIF:
        return major in _HEVC
    brands = {content[at : at + 4] for at in range(16, length - 3, 4)}
    return bool(_HEVC & brands) or (major in _ANY_CODEC and not _AVIF & brands)


def decode(content: bytes, name: str, check: Callable[[tuple[int, int]], None]) -> Image.Image:
    """Return the primary image of a HEIF file in RGB, upright.

    libheif applies the rotation and mirroring of the container. The orientation in the EXIF block
    repeats them and must not be applied again.

    Args:
        content: bytes of the file.
        name: name of the image in messages.
        check: function that is called with width and height before decoding and raises to refuse.

    Raises:
        MissingExtraError: without the extra ``heic``.
        ImageError: for gray of more than 8 bits.
        ValueError, OSError, RuntimeError, SyntaxError, EOFError: from libheif on a broken file.
    """
    try:
        import _pi_heif
    except ImportError as error:
        raise MissingExtraError(name, "HEIC", "heic") from error
    # The module below pi_heif's classes: the classes also read metadata, which is not needed, and
    # a damaged item type in the metadata ends the process (1.4.0). Nothing is registered with
    # Pillow, so that Image.open in the rest of the process does not change.
    loaded = _pi_heif.load_file(
        content,
        _THREADS,
        True,  # 10 and 12 bits to 8
        False,  # BGR
        True,  # rows without padding
        True,  # without effect at 8 bits
        "",  # any decoder of libheif
        False,  # without libheif's own limits
    )
    images = [image for image in loaded if image is not None]
    primary = next((image for image in images if image.primary), images[0])
    size, mode = primary.size_mode
    check(size)
    if mode not in _MODES:
        raise ImageError(
            f"{name}: is HEIC of mode {mode}, not 8-bit gray or colour: export it as JPEG"
        )
    pixels = primary.data
    size, mode = primary.size_mode  # may have changed in decoding
    return Image.frombytes(mode, size, pixels, "raw", mode, primary.stride).convert("RGB")
