"""Label embeddings: out of the store, and out of the text tower only where the store has none."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zsic_index import prompts, scoring
from zsic_index.encoder_source import EncoderSource
from zsic_index.encoders import Encoder
from zsic_index.errors import LabelError, StoreError
from zsic_index.scoring import Float32, Int64
from zsic_index.store import Store

logger = logging.getLogger("zsic_index")

LABELS_PER_COMMIT = 1_024
"""Labels that are encoded and committed together: what a kill can lose."""

Progress = Callable[[int, int], None]
"""Called with (labels done, labels to encode) after every commit."""


@dataclass(frozen=True, slots=True)
class Ensured:
    """Labels whose embeddings the store has now.

    Attributes:
        fingerprints: (n,) what each label's embedding depends on, 32 bytes each.
        encoded: how many labels had to be encoded.
        truncated: prompts that were over the token limit and were cut.
        model_loaded: whether the weights were needed.
    """

    fingerprints: tuple[bytes, ...]
    encoded: int
    truncated: tuple[str, ...]
    model_loaded: bool


def ensure(
    store: Store,
    source: EncoderSource,
    labels: Sequence[str],
    templates: Sequence[str],
    *,
    progress: Progress | None = None,
) -> Ensured:
    """Encode the labels that the store has no embedding for, committing in chunks.

    Raises:
        LabelError: for a label that the model cannot take.
        ModelError: when the checkpoint cannot be loaded.
        StoreError: when the store cannot be written.
    """
    keys = tuple(
        fingerprint(source.fingerprint, prompts.render(label, templates)) for label in labels
    )
    known = store.embedding_ids(keys)
    missing = list({key: row for row, key in enumerate(keys) if key not in known}.values())
    truncated: list[str] = []
    model_needed = bool(missing) or store.find_encoder(source.fingerprint) is None
    if model_needed:
        encoder = source.encoder()
        store.add_encoder(source.record(source.fingerprint))
        for done, rows in chunks_of(missing):
            embeddings, cut = _encode(encoder, [labels[row] for row in rows], templates)
            truncated += cut
            store.add_embeddings(source.fingerprint, [keys[row] for row in rows], embeddings)
            if progress:
                progress(done, len(missing))
    return Ensured(keys, len(missing), tuple(truncated), model_needed)


def fetch(
    store: Store, source: EncoderSource, labels: Sequence[str], templates: Sequence[str]
) -> Float32:
    """Return (n, D) float32 unit-norm label embeddings; see ``ensure``."""
    ensured = ensure(store, source, labels, templates)
    if ensured.truncated:
        logger.warning(
            "%d prompts over the token limit were cut, such as %r",
            len(ensured.truncated),
            ensured.truncated[0][:80],
        )
    encoder = store.find_encoder(source.fingerprint)
    assert encoder is not None, "ensure has added it"
    blocks = store.read_embeddings(ids_of(store, ensured.fingerprints), encoder.dim)
    return np.concatenate([np.empty((0, encoder.dim), dtype=np.float32), *blocks])


def ids_of(store: Store, fingerprints: Sequence[bytes]) -> Int64:
    """Return (n,) int64, the store's ids of embeddings that were ensured.

    Raises:
        StoreError: when some have been removed since.
    """
    ids = store.embedding_ids(fingerprints)
    if len(ids) < len(set(fingerprints)):
        raise StoreError("another process removed embeddings in the meantime: do it again")
    return np.fromiter((ids[key] for key in fingerprints), np.int64, len(fingerprints))


def fingerprint(encoder_fingerprint: str, rendered: Sequence[str]) -> bytes:
    """Return what a label's embedding depends on, as 32 bytes: the encoder and its prompts."""
    parts = json.dumps([encoder_fingerprint, *rendered], ensure_ascii=False)
    return hashlib.sha256(parts.encode()).digest()


def chunks_of(rows: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Yield (rows done after this chunk, the chunk's rows)."""
    for start in range(0, len(rows), LABELS_PER_COMMIT):
        chunk = list(rows[start : start + LABELS_PER_COMMIT])
        yield start + len(chunk), chunk


def _encode(
    encoder: Encoder, labels: Sequence[str], templates: Sequence[str]
) -> tuple[Float32, tuple[str, ...]]:
    """Return (n, D) label embeddings: each the normalised mean of its prompts' unit embeddings."""
    rendered = [prompt for label in labels for prompt in prompts.render(label, templates)]
    distinct = {prompt: row for row, prompt in enumerate(dict.fromkeys(rendered))}
    encoded = encoder.encode_prompts(list(distinct))
    rows = np.array([distinct[prompt] for prompt in rendered])
    embeddings = encoded.embeddings[rows].reshape(len(labels), len(templates), -1)
    means = embeddings.mean(axis=1, dtype=np.float64)
    norms = np.linalg.norm(means, axis=1)
    for label, norm in zip(labels, norms, strict=True):
        if not np.isfinite(norm) or norm < 1e-6:
            raise LabelError(
                f"label {label!r}: the mean of its prompts' embeddings has norm {norm:g}, so it "
                "points nowhere: check the model's weights, or use other templates"
            )
    return scoring.check_embeddings(means), encoded.truncated
