"""Image embeddings: out of the vision tower, or out of the store where it has them."""

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
from zsic_index.store import Store

IMAGES_PER_BATCH = 32

_CPU_BATCH = 8
"""The least that a pass on a CPU takes together: one of eight takes a third of one alone."""

OVERSAMPLING = 2
"""A scaled image keeps at least so many times the side that the model scales it to."""


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """An image's embedding.

    Attributes:
        embedding: (D,) float32, unit norm.
        content_hash: 32 bytes, see ``images.content_hash``; None where embeddings are not kept.
    """

    embedding: Float32
    content_hash: bytes | None


@dataclass(frozen=True, slots=True, eq=False)
class Fresh:
    """An image for the vision tower.

    Attributes:
        pixels: the tower's input.
        content_hash: see ``Embedded``.
    """

    pixels: Pixels
    content_hash: bytes | None


class ImageEmbedder:
    """Turns images into embeddings.

    Args:
        source: the encoder; what else needs it takes it from here.
        fingerprint: what every image embedding of it depends on, but the way of decoding.
        dim: D, the length of an embedding.
        decode: how JPEGs are decoded; embeddings of one way are never taken for the other.
        store: where embeddings are looked up and kept, by content; None to keep none.
        limits: what is accepted as an image.
    """

    def __init__(
        self,
        source: EncoderSource,
        fingerprint: str,
        dim: int,
        *,
        decode: Decode = "exact",
        store: Store | None = None,
        limits: ImageLimits = LIMITS,
    ) -> None:
        self.source = source
        self._fingerprint = fingerprint
        self._dim = dim
        self._decode = decode
        self._store = store
        self._limits = limits

    def embed(
        self, sources: Iterable[ImageSource]
    ) -> Iterator[tuple[list[ImageError | None], Float32]]:
        """Yield for each batch what was refused where, and the (A, D) embeddings of the others.

        Raises:
            ModelError: when the vision tower is needed and cannot be loaded.
        """
        for batch in self.stream(sources):
            refused = [entry if isinstance(entry, ImageError) else None for entry in batch]
            rows = [entry.embedding for entry in batch if isinstance(entry, Embedded)]
            yield refused, np.array(rows, dtype=np.float32).reshape(-1, self._dim)

    def stream(self, sources: Iterable[ImageSource]) -> Iterator[list[Embedded | ImageError]]:
        """Yield for each batch of images their embeddings, or why they were refused.

        Raises:
            ModelError: when the vision tower is needed and cannot be loaded.
        """
        for batch in prepare_all(
            sources,
            self.prepare,
            batch_size=IMAGES_PER_BATCH,
            threads=available_cores(),
        ):
            yield self.finish(batch)

    def load(self) -> None:
        """Load the encoder now instead of when the first image needs it.

        Raises:
            ModelError: when it cannot be loaded.
        """
        self.source.encoder()

    def batch_size(self) -> int:
        """Return how many images one pass should have where others wait for it to end.

        A GPU takes as long for one as for many. A CPU takes longer for each, so that more than what
        keeps its cores busy only makes the first wait for the last.

        Raises:
            ModelError: when the encoder cannot be loaded.
        """
        if self.source.encoder().device_type != "cpu":
            return IMAGES_PER_BATCH
        return min(IMAGES_PER_BATCH, max(_CPU_BATCH, 2 * available_cores()))

    def key(self, content_hash: bytes) -> bytes:
        """Return what the embedding of an image of that content is kept under."""
        depends_on = f"{self._fingerprint} {self._decode} "
        return hashlib.sha256(depends_on.encode() + content_hash).digest()

    def prepare(self, source: ImageSource, name: str | None = None) -> Embedded | Fresh:
        """Look an image up or, where it is not known, decode it; may be called from many threads.

        Args:
            source: the image.
            name: what to call it in messages; by default what ``images.describe`` says.

        Raises:
            ImageError: when it is refused.
            ModelError: when the encoder is needed and cannot be loaded.
        """
        name = name or opening.describe(source)
        content = opening.read(source, self._limits)
        content_hash = None
        if self._store is not None:
            content_hash = opening.content_hash(content, name, self._limits)
            key = self.key(content_hash)
            known = self._store.embeddings.find([key]).get(key)
            if known is not None:
                return Embedded(known, content_hash)
        encoder = self.source.encoder()
        enough = None if self._decode == "exact" else OVERSAMPLING * encoder.image_size
        decoded = opening.decode(content, name, min_side=enough, limits=self._limits)
        pixels = encoder.preprocess(decoded)
        return Fresh(pixels, content_hash)

    def finish(self, batch: Sequence[Embedded | Fresh | ImageError]) -> list[Embedded | ImageError]:
        """Embed what was prepared, in the same order; ``encode_images`` has one batch of it."""
        fresh = [entry for entry in batch if isinstance(entry, Fresh)]
        made: Iterator[Embedded | ImageError] = iter(self._encoded(fresh) if fresh else ())
        return [next(made) if isinstance(entry, Fresh) else entry for entry in batch]

    def _encoded(self, fresh: Sequence[Fresh]) -> list[Embedded | ImageError]:
        encoded = self.source.encoder().encode_images([one.pixels for one in fresh])
        unit = iter(check_embeddings(encoded.embeddings, self._dim))
        found: list[Embedded | ImageError] = [
            encoded.refused[at] if at in encoded.refused else Embedded(next(unit), one.content_hash)
            for at, one in enumerate(fresh)
        ]
        self._keep([one for one in found if isinstance(one, Embedded)])
        return found

    def _keep(self, made: Sequence[Embedded]) -> None:
        rows = {
            self.key(one.content_hash): one.embedding
            for one in made
            if one.content_hash is not None
        }
        if self._store is None or not rows:
            return
        if self._store.encoders.find(self._fingerprint) is None:
            self._store.encoders.add(self.source.record(self._fingerprint))
        self._store.embeddings.add(self._fingerprint, list(rows), np.array(list(rows.values())))
