"""Image embeddings: from the store, and from the vision tower only those that it lacks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zsic_index.embedding_arrays import Float32, check_embeddings
from zsic_index.encoders import Pixels
from zsic_index.encoders.source import EncoderSource
from zsic_index.errors import ImageError
from zsic_index.images import opening
from zsic_index.images.opening import LIMITS, Decode, ImageLimits, ImageSource
from zsic_index.images.prefetch import prepare_all
from zsic_index.parallel import available_cores
from zsic_index.records import EncoderRecord
from zsic_index.store import Store

IMAGES_PER_BATCH = 32

_CPU_BATCH = 8
"""Minimum batch on a CPU: an image in a batch of eight takes a third of the time of one alone."""

OVERSAMPLING = 2
"""Scaled decoding keeps at least this multiple of the model's input size."""


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedImage:
    """An image that has been embedded.

    Attributes:
        embedding: (D,) float32, unit norm.
        content_hash: 32 bytes, see ``images.opening.content_hash``; None without a store.
    """

    embedding: Float32
    content_hash: bytes | None


@dataclass(frozen=True, slots=True, eq=False)
class PreparedImage:
    """An image that is ready for the vision tower.

    Attributes:
        pixels: input of the tower.
        content_hash: see ``EmbeddedImage``.
        name: its name in messages.
    """

    pixels: Pixels
    content_hash: bytes | None
    name: str


class ImageEmbedder:
    """Embedder of images, with the store as its cache.

    Args:
        source: the encoder.
        record: its record in the store, under a hash of everything that an image embedding depends
            on, except image and ``decode``.
        decode: mode of decoding JPEGs; part of an embedding's fingerprint.
        store: where embeddings are looked up and kept, by content; None to keep none.
        limits: limits of images that are accepted.
    """

    def __init__(
        self,
        source: EncoderSource,
        record: EncoderRecord,
        *,
        decode: Decode = "exact",
        store: Store | None = None,
        limits: ImageLimits = LIMITS,
    ) -> None:
        self.source = source
        self._record = record
        self._decode = decode
        self._store = store
        self._limits = limits

    def embed(
        self, sources: Iterable[ImageSource]
    ) -> Iterator[tuple[list[ImageError | None], Float32]]:
        """Yield, per batch, the error or None for each image, and the (A, D) accepted embeddings.

        Raises:
            ModelError: when the vision tower is needed and cannot be loaded.
        """
        for batch in self.stream(sources):
            errors = [entry if isinstance(entry, ImageError) else None for entry in batch]
            rows = [entry.embedding for entry in batch if isinstance(entry, EmbeddedImage)]
            yield errors, np.array(rows, dtype=np.float32).reshape(-1, self._record.dim)

    def stream(self, sources: Iterable[ImageSource]) -> Iterator[list[EmbeddedImage | ImageError]]:
        """Yield, per batch, the embedded image or the error for each image.

        Raises:
            ModelError: when the vision tower is needed and cannot be loaded.
        """
        for batch in prepare_all(
            sources,
            self.prepare,
            batch_size=IMAGES_PER_BATCH,
            threads=available_cores(),
        ):
            yield self.embed_prepared(batch)

    def load(self) -> None:
        """Load the vision tower now instead of when the first image needs it.

        Raises:
            ModelError: when it cannot be loaded.
        """
        self.source.vision_tower()

    def batch_size(self) -> int:
        """Return the number of images per pass that keeps waiting times short.

        A GPU takes as long for one image as for many. On a CPU the time grows with the number, so a
        batch beyond what keeps the cores busy only delays its first image.

        Raises:
            ModelError: when the encoder cannot be loaded.
        """
        if self.source.vision_tower().device_type != "cpu":
            return IMAGES_PER_BATCH
        return min(IMAGES_PER_BATCH, max(_CPU_BATCH, 2 * available_cores()))

    def fingerprint_image(self, content_hash: bytes) -> bytes:
        """Return the 32-byte fingerprint of the embedding of an image with that content."""
        depends_on = f"{self._record.fingerprint} {self._decode} "
        return hashlib.sha256(depends_on.encode() + content_hash).digest()

    def prepare(
        self, source: ImageSource, name: str | None = None
    ) -> EmbeddedImage | PreparedImage:
        """Return the stored embedding of an image, else decode it; thread-safe.

        Args:
            source: the image.
            name: its name in messages; ``images.opening.describe(source)`` by default.

        Raises:
            ImageError: when the image is rejected.
            ModelError: when the encoder is needed and cannot be loaded.
        """
        name = name or opening.describe(source)
        content = opening.read(source, self._limits)
        content_hash = None
        if self._store is not None:
            content_hash = opening.content_hash(content, name, self._limits)
            fingerprint = self.fingerprint_image(content_hash)
            embedding = self._store.embeddings.find([fingerprint]).get(fingerprint)
            if embedding is not None:
                return EmbeddedImage(embedding, content_hash)
        tower = self.source.vision_tower()
        min_side = None if self._decode == "exact" else OVERSAMPLING * tower.image_size
        decoded = opening.decode(content, name, min_side=min_side, limits=self._limits)
        pixels = tower.preprocess(decoded)
        return PreparedImage(pixels, content_hash, name)

    def embed_prepared(
        self, batch: Sequence[EmbeddedImage | PreparedImage | ImageError]
    ) -> list[EmbeddedImage | ImageError]:
        """Embed the prepared images of a batch in one pass; other entries stay in their places."""
        prepared = [entry for entry in batch if isinstance(entry, PreparedImage)]
        encoded: Iterator[EmbeddedImage | ImageError] = iter(
            self._encode(prepared) if prepared else ()
        )
        return [next(encoded) if isinstance(entry, PreparedImage) else entry for entry in batch]

    def _encode(self, prepared: Sequence[PreparedImage]) -> list[EmbeddedImage | ImageError]:
        """Encode images and add their embeddings to the store."""
        encoded = self.source.vision_tower().encode_images([image.pixels for image in prepared])
        embeddings = iter(check_embeddings(encoded.embeddings, self._record.dim))
        images: list[EmbeddedImage | ImageError] = [
            ImageError(f"{image.name}: {encoded.refused[position]}")
            if position in encoded.refused
            else EmbeddedImage(next(embeddings), image.content_hash)
            for position, image in enumerate(prepared)
        ]
        self._save([image for image in images if isinstance(image, EmbeddedImage)])
        return images

    def _save(self, images: Sequence[EmbeddedImage]) -> None:
        rows = {
            self.fingerprint_image(image.content_hash): image.embedding
            for image in images
            if image.content_hash is not None
        }
        if self._store is None or not rows:
            return
        self._store.encoders.add(self._record)
        self._store.embeddings.add(
            self._record.fingerprint, list(rows), np.array(list(rows.values()))
        )
