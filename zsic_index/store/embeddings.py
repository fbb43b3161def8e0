"""Embeddings of labels and images, by their fingerprints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from sqlalchemy import Connection, select

from zsic_index.embedding_arrays import Float32, Int64
from zsic_index.errors import StoreError
from zsic_index.store.database import Database
from zsic_index.store.statements import insert_missing, iter_chunks
from zsic_index.store.tables import EMBEDDING, ENCODER

VECTOR_DTYPE = np.dtype("<f4")
"""Embeddings are stored as little-endian float32."""

_BLOCK = 4_096
"""Embeddings read per transaction."""


class EmbeddingStore:
    """Embeddings, by their fingerprints or ids."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find_ids(self, fingerprints: Sequence[bytes]) -> dict[bytes, int]:
        """Return the ids of the embeddings that exist, by fingerprint."""
        ids: dict[bytes, int] = {}
        with self._database.read() as connection:
            for chunk in iter_chunks(fingerprints):
                rows = connection.execute(
                    select(EMBEDDING.c.fingerprint, EMBEDDING.c.id).where(
                        EMBEDDING.c.fingerprint.in_(chunk)
                    )
                )
                ids.update(rows.all())
        return ids

    def find(self, fingerprints: Sequence[bytes]) -> dict[bytes, Float32]:
        """Return the (D,) embeddings that exist, by fingerprint."""
        embeddings: dict[bytes, Float32] = {}
        with self._database.read() as connection:
            for chunk in iter_chunks(fingerprints):
                rows = connection.execute(
                    select(EMBEDDING.c.fingerprint, EMBEDDING.c.vector).where(
                        EMBEDDING.c.fingerprint.in_(chunk)
                    )
                )
                embeddings |= {
                    fingerprint: np.frombuffer(vector, dtype=VECTOR_DTYPE)
                    for fingerprint, vector in rows
                }
        return embeddings

    def add(
        self, encoder_fingerprint: str, fingerprints: Sequence[bytes], embeddings: Float32
    ) -> None:
        """Add (n, D) float32 embeddings of one encoder; existing fingerprints are skipped."""
        vectors = np.ascontiguousarray(embeddings, dtype=VECTOR_DTYPE)
        with self._database.write() as connection:
            encoder_id = connection.execute(
                select(ENCODER.c.id).where(ENCODER.c.fingerprint == encoder_fingerprint)
            ).scalar_one()
            insert_missing(
                connection,
                EMBEDDING,
                [
                    {
                        "fingerprint": fingerprint,
                        "encoder_id": encoder_id,
                        "vector": vector.tobytes(),
                    }
                    for fingerprint, vector in zip(fingerprints, vectors, strict=True)
                ],
            )

    def read(self, ids: Int64, dim: int) -> Iterator[Float32]:
        """Yield the embeddings of ``ids`` in their order, as (n, dim) float32 blocks.

        Each block is one transaction.

        Raises:
            StoreError: when an embedding is missing, or not ``4 * dim`` bytes long.
        """
        for start in range(0, len(ids), _BLOCK):
            block_ids = ids[start : start + _BLOCK]
            with self._database.read() as connection:
                vectors = _read_vectors(connection, block_ids)
            block = np.empty((len(block_ids), dim), dtype=np.float32)
            for row, embedding_id in enumerate(block_ids.tolist()):
                vector = vectors.get(embedding_id)
                if vector is None or len(vector) != VECTOR_DTYPE.itemsize * dim:
                    raise StoreError(
                        f"store {self._database.location.name}: embedding {embedding_id} is "
                        f"{'missing' if vector is None else 'of a wrong length'}: "
                        "restore the store from a backup, or rm the index and build it again"
                    )
                block[row] = np.frombuffer(vector, dtype=VECTOR_DTYPE)
            yield block


def _read_vectors(connection: Connection, ids: Int64) -> dict[int, bytes]:
    """Return the bytes of embeddings by id; may include a few ids that were not given."""
    rows = select(EMBEDDING.c.id, EMBEDDING.c.vector)
    first, last = int(ids.min()), int(ids.max())
    if last - first < 2 * len(ids):
        # A build stores them next to each other, and a range is read several times faster.
        return dict(connection.execute(rows.where(EMBEDDING.c.id.between(first, last))).all())
    vectors: dict[int, bytes] = {}
    for chunk in iter_chunks(ids.tolist()):
        vectors.update(connection.execute(rows.where(EMBEDDING.c.id.in_(chunk))).all())
    return vectors
