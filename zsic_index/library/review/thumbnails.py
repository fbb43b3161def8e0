"""Photos made small enough for a page: upright JPEGs, the latest of them held."""

from __future__ import annotations

import contextlib
import io
import threading
from pathlib import Path

from cachetools import LRUCache
from PIL import Image

from zsic_index.errors import ImageError
from zsic_index.images.opening import decode, read
from zsic_index.parallel import available_cores
from zsic_index.store.photo_records import StoredPhoto

SMALL, LARGE = 320, 1_600
"""Pixels of the longer side."""

HELD_BYTES = 64 << 20
"""Made pictures that are held, all together."""

_QUALITY = 82


class Thumbnails:
    """Makes small pictures of photos, as many at a time as there are cores."""

    def __init__(self, held_bytes: int = HELD_BYTES) -> None:
        self._cache: LRUCache[tuple[int, int], bytes] = LRUCache(held_bytes, getsizeof=len)
        self._lock = threading.Lock()
        self._making = threading.Semaphore(available_cores())

    def get(self, photo: StoredPhoto, side: int) -> bytes:
        """Return a photo as a JPEG.

        Args:
            photo: what the store knows of it.
            side: pixels of its longer side, at most; a smaller photo is not enlarged.

        Raises:
            ImageError: when it cannot be read, or is not any more what it was when it was tagged:
                a verdict would be about another picture.
        """
        _check_unchanged(photo)
        key = (photo.photo_id, side)
        with self._lock:
            held = self._cache.get(key)
        if held is not None:
            return held
        with self._making:
            made = _made(photo.path, side)
        # A picture larger than the whole cache is not held.
        with self._lock, contextlib.suppress(ValueError):
            self._cache[key] = made
        return made


def _check_unchanged(photo: StoredPhoto) -> None:
    try:
        found = Path(photo.path).stat()
    except OSError as error:
        raise ImageError(
            f"{photo.path}: cannot be read: {error.strerror or error}: is its drive mounted?"
        ) from error
    if (found.st_size, found.st_mtime_ns) != (photo.size, photo.mtime_ns):
        raise ImageError(f"{photo.path}: has changed since it was tagged: run 'zsic-index tag'")


def _made(path: str, side: int) -> bytes:
    image = decode(read(path), path, at_least=side)
    # Twice the side is enough for a good reduction, and the rest of the pixels is not gone through.
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
