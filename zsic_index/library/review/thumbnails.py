"""Small JPEGs of photos for the page, upright; the latest are cached."""

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

CACHE_BYTES = 64 << 20
"""Size of the cache."""

_QUALITY = 82


class Thumbnails:
    """Makes thumbnails on as many threads as there are cores. Thread-safe."""

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self._cache: LRUCache[tuple[int, int], bytes] = LRUCache(cache_bytes, getsizeof=len)
        self._lock = threading.Lock()
        self._cores = threading.Semaphore(available_cores())

    def get(self, photo: StoredPhoto, side: int) -> bytes:
        """Return a photo as a JPEG.

        Args:
            photo: the photo's record in the store.
            side: maximum number of pixels of the longer side; smaller photos are not enlarged.

        Raises:
            ImageError: when the file cannot be read, or has changed since it was tagged: a verdict
                would be about another picture.
        """
        _check_unchanged(photo)
        key = (photo.photo_id, side)
        with self._lock:
            thumbnail = self._cache.get(key)
        if thumbnail is None:
            with self._cores:
                thumbnail = _render(photo.path, side)
            # ValueError: a thumbnail larger than the cache is not kept.
            with self._lock, contextlib.suppress(ValueError):
                self._cache[key] = thumbnail
        return thumbnail


def _check_unchanged(photo: StoredPhoto) -> None:
    try:
        status = Path(photo.path).stat()
    except OSError as error:
        raise ImageError(
            f"{photo.path}: cannot be read: {error.strerror or error}: is its drive mounted?"
        ) from error
    if (status.st_size, status.st_mtime_ns) != (photo.size, photo.mtime_ns):
        raise ImageError(f"{photo.path}: has changed since it was tagged: run 'zsic-index tag'")


def _render(path: str, side: int) -> bytes:
    image = decode(read(path), path, min_side=side)
    # reducing_gap: a cheap reduction to twice the side first, Lanczos for the rest.
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
