"""Settings of a service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zsic_index.images import opening
from zsic_index.images.opening import Decode, ImageLimits
from zsic_index.parallel import available_cores
from zsic_index.records import Runtime

IMAGE_FORMATS = (*opening.FORMATS, "HEIC")
"""Default image formats; RAW files are too large to be sent over a network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Indexes and limits of a service.

    Attributes:
        store: path, SQLAlchemy URL, or None for ``ZSIC_STORE`` or the user's folder.
        names: names of the indexes to serve; without any, all of the store.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        runtime: library that runs the vision towers; see ``LabelIndex.build``.
        decode: decoding of JPEGs; see ``LabelIndex.open``.
        formats: accepted image formats.
        max_pixels: maximum width x height of an image.
        max_image_bytes: maximum size of an image file.
        max_images: maximum number of images per request.
        max_prompts: maximum number of prompts or embeddings per request.
        max_labels: maximum number of labels that a query can choose.
        max_template_sets: maximum number of sets of templates from requests to keep in memory for
            each index, the least recently used being dropped; 0 refuses requests with templates.
        max_template_prompts: maximum number of prompts (names times templates) to encode for a
            request with its own templates.
        max_body: maximum size of a body, decompressed.
        max_pending_bytes: maximum size of all bodies in memory.
        max_requests: maximum number of concurrent requests; the next is refused at once.
        deadline: maximum duration of a request in seconds, receiving its body included.
        body_grace: seconds after which a body must have a minimum speed.
        min_body_rate: that speed in bytes per second.
        body_idle: maximum number of seconds between two parts of a body. Responses must be read
            at that speed too, measured over as many seconds.
        max_head: maximum size of a request's head in bytes.
        head_timeout: maximum number of seconds in which a head arrives.
        max_batch: maximum number of images per pass through the vision tower and per scan; None
            for the best one for the device.
        max_wait: seconds that a pass waits for images that are still being decoded.
        decoders: number of threads that decode images.
        allow_urls: whether images are fetched from URLs in requests.
        tokens: valid tokens; without any, requests need none.
        hosts: allowed names in the Host header; without any, all are allowed.
        max_store_wait: seconds to wait at the start for a store that another program has locked.
        origins: origins whose pages may use the service, or ``*`` for all.
        reload_every: seconds between two checks for rebuilt indexes.
    """

    store: str | Path | None = None
    names: tuple[str, ...] = ()
    device: str = "auto"
    runtime: Runtime | None = None
    decode: Decode = "exact"
    formats: tuple[str, ...] = IMAGE_FORMATS
    max_pixels: int = 50_000_000
    max_image_bytes: int = 32 << 20
    max_images: int = 64
    max_prompts: int = 1_000
    max_labels: int = 10_000
    max_template_sets: int = 0
    max_template_prompts: int = 50_000
    max_body: int = 64 << 20
    max_pending_bytes: int = 512 << 20
    max_requests: int = 128
    deadline: float = 30.0
    body_grace: float = 5.0
    min_body_rate: int = 1_024
    body_idle: float = 10.0
    max_head: int = 64 << 10
    head_timeout: float = 10.0
    max_batch: int | None = None
    max_wait: float = 0.003
    decoders: int = available_cores()
    allow_urls: bool = False
    tokens: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    max_store_wait: float = 30.0
    origins: tuple[str, ...] = ()
    reload_every: float = 1.0

    @property
    def image_limits(self) -> ImageLimits:
        """Limits on images."""
        return ImageLimits(self.max_pixels, self.formats)
