"""HEIC: photos in HEIF containers, as phones take them, decoded by libheif (the extra ``heic``)."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from zsic_index.errors import ImageError, MissingExtraError

HEIF_SUFFIXES = (".heic", ".heif", ".hif")

_HEVC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF = {b"avif", b"avis"}
_ANY_CODEC = {b"mif1", b"msf1", b"mif2"}
"""Brands that say HEIF and not what its pictures are encoded with."""

_THREADS = 4
"""What libheif may use for the tiles of one image: pi_heif's own choice."""

_MODES = ("L", "LA", "RGB", "RGBA", "RGBa")
"""What is decoded. Colour of 10 and 12 bits comes as 8; gray does not, and pi_heif 1.4.0 writes
past its memory where a file's gray has fewer bits than its header says."""

_MOST_BRANDS = 64
"""Brands that are looked at: a file's first box may claim any length."""


def is_heif(content: bytes) -> bool:
    """Return whether a file's bytes are HEIF, by the brands it starts with; AVIF is not meant."""
    if content[4:8] != b"ftyp":
        return False
    length = min(int.from_bytes(content[:4], "big"), 16 + 4 * _MOST_BRANDS)
    major = content[8:12]
    if major in _HEVC or major in _AVIF:
        return major in _HEVC
    brands = {content[at : at + 4] for at in range(16, length - 3, 4)}
    return bool(_HEVC & brands) or (major in _ANY_CODEC and not _AVIF & brands)


def decode(content: bytes, name: str, check: Callable[[tuple[int, int]], None]) -> Image.Image:
    """Return a HEIF file's primary image in RGB, upright.

    The container's own rotation and mirroring are carried out by libheif. The orientation in its
    EXIF block repeats them and must not be applied again.

    Args:
        content: the file's bytes.
        name: what to call it in messages.
        check: is called with width and height before anything is decoded; raises to refuse.

    Raises:
        MissingExtraError: without the extra ``heic``.
        ImageError: when it is gray of more than 8 bits.
        ValueError, OSError, RuntimeError, SyntaxError, EOFError: from libheif on a broken file.
    """
    try:
        import _pi_heif
    except ImportError as error:
        raise MissingExtraError(name, "HEIC", "heic") from error
    # What is below pi_heif's classes: those read the metadata as well, which nobody asks for here,
    # and a damaged item type in it ends the process (1.4.0). Nothing is registered with Pillow
    # either: what Image.open takes elsewhere in the process stays as it is.
    found = _pi_heif.load_file(
        content,
        _THREADS,
        True,  # 10 and 12 bits to 8
        False,  # BGR
        True,  # rows without padding
        True,  # of no effect with 8 bits
        "",  # any decoder of libheif's
        False,  # without its own limits
    )
    images = [one for one in found if one is not None]
    primary = next((one for one in images if one.primary), images[0])
    size, mode = primary.size_mode
    check(size)
    if mode not in _MODES:
        raise ImageError(
            f"{name}: is HEIC of mode {mode}, not 8-bit gray or colour: export it as JPEG"
        )
    pixels = primary.data
    size, mode = primary.size_mode  # as they have turned out
    return Image.frombytes(mode, size, pixels, "raw", mode, primary.stride).convert("RGB")
