"""Images on their way to a service: files as they are, in batches of bounded size."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from zsic_index.images.opening import ImageSource, decode, describe, read

MAX_IMAGES = 32
"""Images of a request, at most: those of one pass through the vision tower."""

MAX_BYTES = 16 << 20
"""Bytes of a request's images, but for one that has more alone."""

READERS = 4
"""Threads that read files while the batch before is answered."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An image that can be sent.

    Attributes:
        name: what it is called in messages.
        content: the bytes of a file.
    """

    name: str
    content: bytes


def batches(sources: Iterable[ImageSource], most: Callable[[], int]) -> Iterator[list[ImageSource]]:
    """Yield images in batches, none of them empty; sources are read only as far as asked for.

    Args:
        sources: any number of them; files are not opened.
        most: how many one may have; asked at each.
    """
    batch: list[ImageSource] = []
    size = 0
    for source in sources:
        added = _size(source)
        if batch and (len(batch) >= most() or size + added > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(source)
        size += added
    if batch:
        yield batch


def upload(source: ImageSource) -> Upload:
    """Return what is sent of an image: its file's bytes, or of a PIL image its pixels as PNG.

    Raises:
        ImageError: when it cannot be read, is no image source, or is an address.
    """
    name = describe(source)
    content = read(source)
    if isinstance(content, Image.Image):
        # Upright and in RGB, as it would be looked at here: PNG does not have all modes.
        file = io.BytesIO()
        decode(content, name).save(file, "PNG", compress_level=1)
        content = file.getvalue()
    return Upload(name, content)


def _size(source: ImageSource) -> int:
    """Return about how many bytes a source has; 0 for what will be refused."""
    match source:
        case bytes():
            return len(source)
        case Image.Image():
            return source.width * source.height * 3
        case str() | Path():
            try:
                return Path(source).stat().st_size
            except (OSError, ValueError):
                return 0
    return 0
