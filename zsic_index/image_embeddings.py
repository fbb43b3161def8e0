"""Image embeddings: out of the vision tower, or out of the store where it has them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zsic_index import images, scoring
from zsic_index.encoder_source import EncoderSource
from zsic_index.encoders import Pixels
from zsic_index.errors import ImageError
from zsic_index.images import Decode, ImageSource
from zsic_index.scoring import Float32
from zsic_index.store import Store

IMAGES_PER_BATCH = 32

OVERSAMPLING = 2
"""A scaled image keeps at least so many times the side that the model scales it to."""


@dataclass(frozen=True, slots=True)
class _Fresh:
    """An image for the vision tower; ``key`` is what its embedding is kept under, if it is."""

    pixels: Pixels
    key: bytes | None


class ImageEmbedder:
    """Turns images into embeddings.

    Args:
        source: the encoder.
        fingerprint: what every image embedding of it depends on, but the way of decoding.
        dim: D, the length of an embedding.
        decode: how JPEGs are decoded; embeddings of one way are never taken for the other.
        store: where embeddings are looked up and kept, by content; None to keep none.
    """

    def __init__(
        self,
        source: EncoderSource,
        fingerprint: str,
        dim: int,
        *,
        decode: Decode = "exact",
        store: Store | None = None,
    ) -> None:
        self._source = source
        self._fingerprint = fingerprint
        self._dim = dim
        self._decode = decode
        self._store = store

    def embed(
        self, sources: Iterable[ImageSource]
    ) -> Iterator[tuple[list[ImageError | None], Float32]]:
        """Yield for each batch what was refused where, and the (A, D) embeddings of the others.

        Raises:
            ModelError: when the vision tower is needed and cannot be loaded.
        """
        for batch in images.prepare_all(
            sources,
            self._prepare,
            batch_size=IMAGES_PER_BATCH,
            threads=scoring.available_cores(),
        ):
            yield self._finish(batch)

    def _prepare(self, source: ImageSource) -> Float32 | _Fresh:
        """Look an image up or, where it is not known, decode it; called from several threads."""
        name, content = images.describe(source), images.read(source)
        key = None
        if self._store is not None:
            key = self._key(images.content_hash(content, name))
            known = self._store.find_embedding(key)
            if known is not None:
                return known
        encoder = self._source.encoder()
        enough = None if self._decode == "exact" else OVERSAMPLING * encoder.image_size
        return _Fresh(encoder.preprocess(images.decode(content, name, at_least=enough)), key)

    def _finish(
        self, batch: Sequence[Float32 | _Fresh | ImageError]
    ) -> tuple[list[ImageError | None], Float32]:
        refused = [entry if isinstance(entry, ImageError) else None for entry in batch]
        found = {at: entry for at, entry in enumerate(batch) if isinstance(entry, np.ndarray)}
        fresh = {at: entry for at, entry in enumerate(batch) if isinstance(entry, _Fresh)}
        if fresh:
            places = list(fresh)
            encoded = self._source.encoder().encode_images([one.pixels for one in fresh.values()])
            for number, error in encoded.refused.items():
                refused[places[number]] = error
            unit = scoring.check_embeddings(encoded.embeddings, self._dim)
            made = dict(zip([at for at in places if refused[at] is None], unit, strict=True))
            self._keep({fresh[at].key: row for at, row in made.items()})
            found |= made
        rows = [found[at] for at in sorted(found)]
        return refused, np.array(rows, dtype=np.float32).reshape(-1, self._dim)

    def _key(self, content_hash: bytes) -> bytes:
        depends_on = f"{self._fingerprint} {self._decode} "
        return hashlib.sha256(depends_on.encode() + content_hash).digest()

    def _keep(self, embeddings: dict[bytes | None, Float32]) -> None:
        keys = [key for key in embeddings if key is not None]
        if self._store is None or not keys:
            return
        if self._store.find_encoder(self._fingerprint) is None:
            self._store.add_encoder(self._source.record(self._fingerprint))
        rows = np.array([embeddings[key] for key in keys])
        self._store.add_embeddings(self._fingerprint, keys, rows)
