"""Label embeddings: from the store, and from the text tower only those that it lacks."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zsic_index import prompts
from zsic_index.embedding_arrays import Float32, Int64, check_embeddings
from zsic_index.encoders import Encoder, Tokens
from zsic_index.encoders.source import EncoderSource
from zsic_index.errors import LabelError, StoreError
from zsic_index.store import Store

logger = logging.getLogger("zsic_index")

LABELS_PER_COMMIT = 512
"""Labels that are encoded and committed together. A kill can lose two such chunks: the one that is
being encoded and the one that is being committed."""

PromptsOf = Callable[[int], Sequence[str]]
"""Function that returns the prompts of a label, given its position."""

ProgressCallback = Callable[[int, int], None]
"""Function that is called with the number done and the total."""


@dataclass(frozen=True, slots=True)
class EnsuredEmbeddings:
    """Embeddings of labels, all of which are in the store now.

    Attributes:
        embedding_ids: (n,) int64, id of each label's embedding.
        encoded: positions of the labels that were encoded.
        prompts: number of prompts that were encoded for them.
        truncated: prompts that were truncated to the token limit.
        model_loaded: whether the model was loaded.
    """

    embedding_ids: Int64
    encoded: tuple[int, ...]
    prompts: int
    truncated: tuple[str, ...]
    model_loaded: bool


def ensure_embeddings(
    store: Store,
    source: EncoderSource,
    labels: Sequence[str],
    prompts_of: PromptsOf,
    *,
    existing: Mapping[int, int] | None = None,
    progress: ProgressCallback | None = None,
) -> EnsuredEmbeddings:
    """Encode the labels that the store has no embedding for, committing in chunks.

    Args:
        store: read, and written to.
        source: the encoder.
        labels: n labels.
        prompts_of: returns the prompts of a label, at least one, given its position.
        existing: embedding ids, by position, of labels that this encoder has embedded with the same
            prompts.
        progress: called with the labels encoded and to encode after every commit.

    Raises:
        LabelError: for a label that the model cannot encode.
        ModelError: when the checkpoint cannot be loaded.
        StoreError: when the store cannot be written.
    """
    existing = existing or {}
    fingerprints = {
        position: fingerprint_prompts(source.fingerprint, prompts_of(position))
        for position in range(len(labels))
        if position not in existing
    }
    ids = store.embeddings.find_ids(list(dict.fromkeys(fingerprints.values())))
    # Labels with the same prompts share an embedding: the last of them is encoded for all.
    missing_positions = {
        fingerprint: position
        for position, fingerprint in fingerprints.items()
        if fingerprint not in ids
    }
    missing = list(missing_positions.values())
    truncated: tuple[str, ...] = ()
    is_new = store.encoders.find(source.fingerprint) is None
    model_needed = bool(missing) or is_new
    prompt_count = 0
    if is_new:
        store.encoders.add(source.record(source.fingerprint))
    if missing:
        batch = _PromptBatch(labels, prompts_of, missing)
        truncated, prompt_count = _encode_all(store, source, batch, fingerprints, progress)
        ids |= store.embeddings.find_ids([fingerprints[position] for position in missing])
    try:
        embedding_ids = [
            existing[position] if position in existing else ids[fingerprints[position]]
            for position in range(len(labels))
        ]
    except KeyError:
        raise StoreError(
            "another process removed embeddings in the meantime: do it again"
        ) from None
    return EnsuredEmbeddings(
        np.array(embedding_ids, dtype=np.int64),
        tuple(missing),
        prompt_count,
        truncated,
        model_needed,
    )


def fetch_embeddings(
    store: Store,
    source: EncoderSource,
    labels: Sequence[str],
    prompts_of: PromptsOf,
    *,
    keep: bool = True,
) -> Float32:
    """Return (n, D) float32 unit-norm label embeddings; see ``ensure_embeddings``.

    Args:
        store: read, and written to if ``keep``.
        source: the encoder.
        labels: n labels.
        prompts_of: returns the prompts of a label, at least one, given its position.
        keep: whether embeddings that the store lacks are kept in it.
    """
    if not keep:
        return _look_up_or_embed(store, source, labels, prompts_of)
    ensured = ensure_embeddings(store, source, labels, prompts_of)
    _warn_if_truncated(ensured.truncated)
    encoder = store.encoders.find(source.fingerprint)
    assert encoder is not None, "ensure_embeddings has added it"
    blocks = store.embeddings.read(ensured.embedding_ids, encoder.dim)
    return np.concatenate([np.empty((0, encoder.dim), dtype=np.float32), *blocks])


def embed_labels(encoder: Encoder, labels: Sequence[str], templates: Sequence[str]) -> Float32:
    """Return (n, D) float32 unit-norm label embeddings without using a store.

    Raises:
        LabelError: for a label that the model cannot encode.
        ModelError: see Encoder.
    """
    return _embed(
        encoder, _PromptBatch(labels, bind_templates(labels, templates), range(len(labels)))
    )


def _embed(encoder: Encoder, batch: _PromptBatch) -> Float32:
    encoded = encoder.encode_prompts(batch.distinct)
    _warn_if_truncated(encoded.truncated)
    return _pool_prompts(batch, encoded.embeddings)


def _look_up_or_embed(
    store: Store, source: EncoderSource, labels: Sequence[str], prompts_of: PromptsOf
) -> Float32:
    """Return (n, D) embeddings; those that the store lacks are encoded and not kept."""
    fingerprints = [
        fingerprint_prompts(source.fingerprint, prompts_of(position))
        for position in range(len(labels))
    ]
    vectors = store.embeddings.find(list(dict.fromkeys(fingerprints)))
    # Labels with the same prompts share an embedding: the last of them is encoded for all.
    missing = {
        fingerprint: position
        for position, fingerprint in enumerate(fingerprints)
        if fingerprint not in vectors
    }
    for batch in _PromptBatch(labels, prompts_of, list(missing.values())).split(LABELS_PER_COMMIT):
        embeddings = _embed(source.encoder(), batch)
        vectors |= zip([fingerprints[at] for at in batch.positions], embeddings, strict=True)
    return np.stack([vectors[fingerprint] for fingerprint in fingerprints])


def bind_templates(labels: Sequence[str], templates: Sequence[str]) -> PromptsOf:
    """Return a function that renders all templates for a label, given its position."""
    return lambda position: prompts.render(labels[position], templates)


def fingerprint_prompts(encoder_fingerprint: str, label_prompts: Sequence[str]) -> bytes:
    """Return the 32-byte fingerprint of a label embedding: a hash of encoder and prompts."""
    parts = json.dumps([encoder_fingerprint, *label_prompts], ensure_ascii=False)
    return hashlib.sha256(parts.encode()).digest()


class _PromptBatch:
    """Some of all labels, with their prompts.

    Attributes:
        labels: n names.
        positions: n positions among all labels.
        prompts: prompts of each label.
        distinct: p different prompts of all of them.
    """

    def __init__(
        self, labels: Sequence[str], prompts_of: PromptsOf, positions: Sequence[int]
    ) -> None:
        self._labels = labels
        self._prompts_of = prompts_of
        self.positions = positions

    def split(self, size: int) -> list[_PromptBatch]:
        """Split into batches of at most ``size`` labels."""
        return [
            _PromptBatch(self._labels, self._prompts_of, self.positions[start : start + size])
            for start in range(0, len(self.positions), size)
        ]

    @property
    def labels(self) -> list[str]:
        return [self._labels[position] for position in self.positions]

    @cached_property
    def prompts(self) -> list[Sequence[str]]:
        return [self._prompts_of(position) for position in self.positions]

    @cached_property
    def distinct(self) -> list[str]:
        return list(dict.fromkeys(prompt for of_label in self.prompts for prompt in of_label))


def _encode_all(
    store: Store,
    source: EncoderSource,
    batch: _PromptBatch,
    fingerprints: Mapping[int, bytes],
    progress: ProgressCallback | None,
) -> tuple[tuple[str, ...], int]:
    """Encode and commit labels chunk by chunk; return truncated prompts and the prompt count.

    While one chunk is encoded, the next is tokenised and the previous one is committed, each in a
    thread of its own.
    """
    encoder = source.encoder()
    truncated: list[str] = []

    def tokenise(chunk: _PromptBatch) -> Tokens:
        return encoder.tokenise(chunk.distinct)

    def commit(chunk: _PromptBatch, embeddings: Float32) -> None:
        chunk_fingerprints = [fingerprints[position] for position in chunk.positions]
        store.embeddings.add(source.fingerprint, chunk_fingerprints, embeddings)

    total = len(batch.positions)
    done = prompt_count = 0
    waiting = deque(batch.split(LABELS_PER_COMMIT))
    with (
        ThreadPoolExecutor(1, thread_name_prefix="zsic-tokenise") as tokenising,
        ThreadPoolExecutor(1, thread_name_prefix="zsic-commit") as committing,
    ):
        ahead = tokenising.submit(tokenise, waiting[0])
        committed: Future[None] | None = None
        while waiting:
            # Removed from the queue to free its prompts when it is done.
            chunk = waiting.popleft()
            tokens = ahead.result()
            if waiting:
                ahead = tokenising.submit(tokenise, waiting[0])
            encoded = encoder.encode_tokens(tokens)
            truncated += encoded.truncated
            prompt_count += len(chunk.distinct)
            embeddings = _pool_prompts(chunk, encoded.embeddings)
            if committed is not None:
                committed.result()
                done += LABELS_PER_COMMIT
                if progress:
                    progress(done, total)
            committed = committing.submit(commit, chunk, embeddings)
        if committed is not None:
            committed.result()
            if progress:
                progress(total, total)
    return tuple(truncated), prompt_count


def _warn_if_truncated(truncated: Sequence[str]) -> None:
    if truncated:
        logger.warning(
            "%d prompts over the token limit were cut, such as %r",
            len(truncated),
            truncated[0][:80],
        )


def _pool_prompts(batch: _PromptBatch, embeddings: Float32) -> Float32:
    """Return (n, D) label embeddings: the normalised mean of each label's prompt embeddings.

    Args:
        batch: n labels with p different prompts.
        embeddings: (p, D) float32 unit-norm embeddings of ``batch.distinct``.
    """
    row_of = {prompt: row for row, prompt in enumerate(batch.distinct)}
    rows = [row_of[prompt] for of_label in batch.prompts for prompt in of_label]
    counts = np.array([len(of_label) for of_label in batch.prompts])
    starts = np.cumsum(counts) - counts
    sums = np.add.reduceat(embeddings[rows].astype(np.float64), starts, axis=0)
    means = sums / counts[:, None]
    norms = np.linalg.norm(means, axis=1)
    for label, norm in zip(batch.labels, norms, strict=True):
        if not np.isfinite(norm) or norm < 1e-6:
            raise LabelError(
                f"label {label!r}: the mean of its prompts' embeddings has norm {norm:g}, so it "
                "points nowhere: check the model's weights, or use other templates"
            )
    return check_embeddings(means)
