"""The user's keywords within a photo."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, ImageFile, IptcImagePlugin, TiffImagePlugin

from zsic_index import images
from zsic_index.errors import SidecarError
from zsic_index.library.keywords import TagPath
from zsic_index.library.sidecars import tags_within

_XMP = ("xmp", "XML:com.adobe.xmp")
"""Where Pillow has a photo's XMP packet."""

_XMP_TAG = 700
"""The same in a TIFF."""

_KEYWORDS = (2, 25)
"""Of IPTC."""


def embedded_tags(photo: Path) -> tuple[TagPath, ...]:
    """Return the tags in a photo's own XMP and IPTC; none where they, or it, cannot be read.

    Programs that read them would fail on the same damage, so nothing that they show is lost.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(photo, formats=images.FORMATS) as image:
                return tags_within(_xmp(image), _keywords(image))
    except SidecarError:
        return ()
    except Exception:
        # Pillow's readers raise SyntaxError, struct.error and more on broken files.
        return ()


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
