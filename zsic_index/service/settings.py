"""What a service is started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zsic_index.images import opening
from zsic_index.images.opening import Decode, ImageLimits
from zsic_index.parallel import available_cores

FORMATS = (*opening.FORMATS, "HEIC")
"""Image formats that are accepted; RAW files are too large to be sent about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where a service has its indexes from, and its limits.

    Attributes:
        store: a path, an SQLAlchemy URL, or None for ``ZSIC_STORE`` or the user's folder.
        names: the indexes that are served; all of the store when there are none.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        decode: how JPEGs are decoded; see ``LabelIndex.open``.
        formats: image formats that are accepted.
        max_pixels: the largest width x height of an image.
        max_image_bytes: the largest file.
        max_images: images or embeddings of a request.
        max_prompts: prompts of a request.
        max_labels: labels that a request can be limited to.
        max_template_prompts: labels times templates that are encoded for a request with templates
            of its own.
        max_body: bytes of a request's body, decompressed.
        max_pending_bytes: bytes of all bodies that are held at a time.
        max_requests: requests that are answered at a time; the next is refused at once.
        deadline: seconds that a request may take, its body's arrival included.
        max_batch: images of one pass through the vision tower, and of one scan; None for what the
            device is best at.
        max_wait: seconds that a pass waits for images that are still being decoded.
        decoders: threads that decode.
        allow_urls: whether images are fetched from addresses that clients give.
        tokens: any of these opens the service; without any it is open to all who reach it.
        hosts: names that requests may call this service by; any when there are none.
        reload_every: seconds between two looks at what was built.
    """

    store: str | Path | None = None
    names: tuple[str, ...] = ()
    device: str = "auto"
    decode: Decode = "exact"
    formats: tuple[str, ...] = FORMATS
    max_pixels: int = 50_000_000
    max_image_bytes: int = 32 << 20
    max_images: int = 64
    max_prompts: int = 1_000
    max_labels: int = 10_000
    max_template_prompts: int = 50_000
    max_body: int = 64 << 20
    max_pending_bytes: int = 512 << 20
    max_requests: int = 128
    deadline: float = 30.0
    max_batch: int | None = None
    max_wait: float = 0.003
    decoders: int = available_cores()
    allow_urls: bool = False
    tokens: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    reload_every: float = 1.0

    @property
    def image_limits(self) -> ImageLimits:
        """What is accepted as an image."""
        return ImageLimits(self.max_pixels, self.formats)
