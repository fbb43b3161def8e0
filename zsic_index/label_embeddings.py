"""Label embeddings: out of the store, and out of the text tower only where the store has none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zsic_index import encoders, prompts, scoring
from zsic_index.encoders import Checkpoint, Encoder
from zsic_index.errors import LabelError, StoreError
from zsic_index.records import Dtype
from zsic_index.scoring import Float32, Int64
from zsic_index.store import EncoderRecord, Store

LABELS_PER_COMMIT = 1_024
"""Labels that are encoded and committed together: what a kill can lose."""

Progress = Callable[[int, int], None]
"""Called with (labels done, labels to encode) after every commit."""


@dataclass(frozen=True, slots=True)
class Source:
    """An encoder by what its embeddings depend on; its weights are loaded only when they must be.

    Attributes:
        fingerprint: what every embedding of it depends on, hashed.
        model_id: which checkpoint, for people.
        revision: its pinned commit, if it has one.
        dtype: what its towers compute in.
        load: gives the encoder; called at most once for each call that finds something missing.
    """

    fingerprint: str
    model_id: str
    revision: str | None
    dtype: Dtype
    load: Callable[[], Encoder]

    @classmethod
    def of(cls, checkpoint: Checkpoint, *, device: str) -> Source:
        """Return the source that a checkpoint is."""
        return cls(
            checkpoint.fingerprint,
            checkpoint.model_id,
            checkpoint.revision,
            checkpoint.dtype,
            lambda: encoders.load(checkpoint, device=device),
        )


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
    source: Source,
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
        encoder = source.load()
        store.add_encoder(_record(source, encoder))
        for done, rows in chunks_of(missing):
            embeddings, cut = _encode(encoder, [labels[row] for row in rows], templates)
            truncated += cut
            store.add_embeddings(source.fingerprint, [keys[row] for row in rows], embeddings)
            if progress:
                progress(done, len(missing))
    return Ensured(keys, len(missing), tuple(truncated), model_needed)


def fetch(store: Store, source: Source, labels: Sequence[str], templates: Sequence[str]) -> Float32:
    """Return (n, D) float32 unit-norm label embeddings; see ``ensure``."""
    keys = ensure(store, source, labels, templates).fingerprints
    encoder = store.find_encoder(source.fingerprint)
    assert encoder is not None, "ensure has added it"
    blocks = store.read_embeddings(ids_of(store, keys), encoder.dim)
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


def _record(source: Source, encoder: Encoder) -> EncoderRecord:
    return EncoderRecord(
        fingerprint=source.fingerprint,
        model_id=source.model_id,
        revision=source.revision,
        dtype=source.dtype,
        dim=encoder.info.dim,
        logit_scale=encoder.info.logit_scale,
        logit_bias=encoder.info.logit_bias,
        activation=encoder.info.activation,
    )
