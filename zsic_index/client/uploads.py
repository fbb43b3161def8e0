"""Uploads to a service: files as they are, in batches of bounded size."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from zsic_index.images.opening import ImageSource, decode, describe, read

MAX_IMAGES = 32
"""Maximum number of images per request: a batch of the vision tower."""

MAX_BYTES = 16 << 20
"""Maximum size of a batch in bytes; a larger image is sent alone."""

READERS = 4
"""Number of threads that read files while the service works on the batch before."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An image that can be sent.

    Attributes:
        name: name of the image in messages.
        content: bytes of an image file.
    """

    name: str
    content: bytes


def batches(
    sources: Iterable[ImageSource], max_images: Callable[[], int]
) -> Iterator[list[ImageSource]]:
    """Yield images in batches, none of them empty; ``sources`` is consumed lazily.

    Args:
        sources: any number of images; files are not opened.
        max_images: returns the maximum number per batch; called for each image.
    """
    batch: list[ImageSource] = []
    size = 0
    for source in sources:
        added = _size(source)
        if batch and (len(batch) >= max_images() or size + added > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(source)
        size += added
    if batch:
        yield batch


def upload(source: ImageSource) -> Upload:
    """Return an image as an upload: the bytes of its file; a PIL image is encoded as PNG.

    Raises:
        ImageError: if it cannot be read, is not an image source, or is a URL.
    """
    name = describe(source)
    content = read(source)
    if isinstance(content, Image.Image):
        # Upright and in RGB, as the vision tower would get it: PNG does not support all modes.
        file = io.BytesIO()
        decode(content, name).save(file, "PNG", compress_level=1)
        content = file.getvalue()
    return Upload(name, content)


def _size(source: ImageSource) -> int:
    """Return the approximate size of an image in bytes; 0 if it will be refused."""
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
