"""The user's keywords within a photo."""

from __future__ import annotations

import contextlib
import mmap
import re
import warnings
from pathlib import Path

from PIL import Image, ImageFile, IptcImagePlugin, TiffImagePlugin

from zsic_index.errors import SidecarError
from zsic_index.images import heif
from zsic_index.images.opening import FORMATS, SUFFIXES
from zsic_index.images.raw import RAW_SUFFIXES
from zsic_index.library.sidecars.keywords import TagPath, distinct
from zsic_index.library.sidecars.prepared import tags_within

_XMP = ("xmp", "XML:com.adobe.xmp")
"""Where Pillow has a photo's XMP packet."""

_XMP_TAG = 700
"""The same in a TIFF."""

_KEYWORDS = (2, 25)
"""Of IPTC."""


_PILLOW_SUFFIXES = frozenset(SUFFIXES) - RAW_SUFFIXES - {*heif.HEIF_SUFFIXES}

_PACKET = re.compile(rb"<x:xmpmeta[\s>].{,2000000}?</x:xmpmeta>", re.DOTALL)
"""An XMP packet, which lies in every container as it is so that it can be found like this."""


def embedded_tags(photo: Path) -> tuple[TagPath, ...]:
    """Return the tags in a photo's own XMP and IPTC; none where they, or it, cannot be read.

    Programs that read them would fail on the same damage, so nothing that they show is lost. In
    RAW, HEIC and video files, whose containers nothing here reads, XMP packets are searched for.
    """
    if photo.suffix.lower() not in _PILLOW_SUFFIXES:
        return _tags_in_packets(photo)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(photo, formats=FORMATS) as image:
                return tags_within(_xmp(image), _keywords(image))
    except SidecarError:
        return ()
    except Exception:
        # Pillow's readers raise SyntaxError, struct.error and more on broken files.
        return ()


def _tags_in_packets(photo: Path) -> tuple[TagPath, ...]:
    found: list[TagPath] = []
    try:
        with photo.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            packets = [match[0] for match in _PACKET.finditer(data)]
    except (OSError, ValueError):  # ValueError: an empty file.
        return ()
    for packet in packets:
        with contextlib.suppress(SidecarError):
            found += tags_within(packet)
    return distinct(found)


def _xmp(image: Image.Image) -> bytes | None:
    found = next((image.info[name] for name in _XMP if name in image.info), None)
    if found is None and isinstance(image, TiffImagePlugin.TiffImageFile):
        found = image.tag_v2.get(_XMP_TAG)
    if isinstance(found, str):
        return found.encode()
    return found if isinstance(found, bytes) else None


def _keywords(image: ImageFile.ImageFile) -> list[str]:
    if image.format not in ("JPEG", "TIFF"):
        return []
    found = (IptcImagePlugin.getiptcinfo(image) or {}).get(_KEYWORDS, [])
    values = found if isinstance(found, list) else [found]
    # IPTC says its encoding rarely, and UTF-8 is what programs write today.
    return [value.decode("utf-8", "replace").replace("\0", "") for value in values]
