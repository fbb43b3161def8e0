"""Encoders that embeddings were made by."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import select

from zsic_index.records import EncoderRecord
from zsic_index.store.database import Database
from zsic_index.store.statements import insert_missing
from zsic_index.store.tables import ENCODER


class EncoderStore:
    """Encoders, by their fingerprints."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, fingerprint: str) -> EncoderRecord | None:
        """Return the record of an encoder, or None."""
        with self._database.read() as connection:
            row = connection.execute(
                select(ENCODER).where(ENCODER.c.fingerprint == fingerprint)
            ).one_or_none()
        if row is None:
            return None
        return EncoderRecord(
            row.fingerprint,
            row.model_id,
            row.revision,
            row.dtype,
            row.dim,
            row.logit_scale,
            row.logit_bias,
            row.activation,
            row.loaded_fingerprint,
        )

    def add(self, record: EncoderRecord) -> None:
        """Add an encoder, unless one with its fingerprint exists."""
        if self.find(record.fingerprint) is None:
            with self._database.write() as connection:
                insert_missing(connection, ENCODER, [asdict(record)])
