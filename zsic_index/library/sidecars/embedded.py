"""Read the user's keywords within a photo."""

from __future__ import annotations

import contextlib
import mmap
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageFile, IptcImagePlugin, TiffImagePlugin

from zsic_index.errors import SidecarError
from zsic_index.images import heif
from zsic_index.images.opening import FORMATS, SUFFIXES
from zsic_index.images.raw import RAW_SUFFIXES
from zsic_index.library.sidecars.keywords import TagPath, distinct, union
from zsic_index.library.sidecars.xmp import parse

_XMP_KEYS = ("xmp", "XML:com.adobe.xmp")
"""Keys under which Pillow has a photo's XMP packet."""

_XMP_TAG = 700
"""TIFF tag of the XMP packet."""

_KEYWORDS = (2, 25)
"""IPTC record and data set of keywords."""

_PILLOW_SUFFIXES = frozenset(SUFFIXES) - RAW_SUFFIXES - {*heif.HEIF_SUFFIXES}

_PACKET = re.compile(rb"<x:xmpmeta[\s>].{,2000000}?</x:xmpmeta>", re.DOTALL)
"""An XMP packet: containers store it as plain bytes, so that it can be searched for."""


def embedded_tags(photo: Path) -> tuple[TagPath, ...]:
    """Return the tags in a photo's own XMP and IPTC; none where they cannot be read.

    Other programs fail on the same damage, so they show no tags either that could be lost. RAW,
    HEIC and video files are searched for XMP packets, because their containers are not read here.
    """
    if photo.suffix.lower() not in _PILLOW_SUFFIXES:
        return _tags_in_packets(photo)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(photo, formats=FORMATS) as image:
                return tags_within(_find_xmp(image), _read_keywords(image))
    except SidecarError:
        return ()
    except Exception:
        # Pillow's readers raise SyntaxError, struct.error and more on broken files.
        return ()


def tags_within(xmp: bytes | None, keywords: Iterable[str] = ()) -> tuple[TagPath, ...]:
    """Return the user's tags from within a photo.

    Args:
        xmp: the photo's own XMP packet.
        keywords: its IPTC keywords, which are single names.

    Raises:
        SidecarError: when the packet cannot be read.
    """
    values = parse(xmp, "embedded XMP").keywords() if xmp else {}
    names = (keyword.strip() for keyword in keywords)
    return union(values, [(name,) for name in names if name])


def _tags_in_packets(photo: Path) -> tuple[TagPath, ...]:
    tags: list[TagPath] = []
    try:
        with photo.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            packets = [match[0] for match in _PACKET.finditer(data)]
    except (OSError, ValueError):  # ValueError: an empty file.
        return ()
    for packet in packets:
        with contextlib.suppress(SidecarError):
            tags += tags_within(packet)
    return distinct(tags)


def _find_xmp(image: Image.Image) -> bytes | None:
    packet = next((image.info[key] for key in _XMP_KEYS if key in image.info), None)
    if packet is None and isinstance(image, TiffImagePlugin.TiffImageFile):
        packet = image.tag_v2.get(_XMP_TAG)
    if isinstance(packet, str):
        return packet.encode()
    return packet if isinstance(packet, bytes) else None


def _read_keywords(image: ImageFile.ImageFile) -> list[str]:
    """Return the IPTC keywords of a JPEG or TIFF file."""
    if image.format not in ("JPEG", "TIFF"):
        return []
    keywords = (IptcImagePlugin.getiptcinfo(image) or {}).get(_KEYWORDS, [])
    values = keywords if isinstance(keywords, list) else [keywords]
    # IPTC rarely declares its encoding, and programs write UTF-8 today.
    return [value.decode("utf-8", "replace").replace("\0", "") for value in values]
