"""Label embeddings: out of the store, and out of the text tower only where the store has none."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from zsic_index import prompts, scoring
from zsic_index.encoder_source import EncoderSource
from zsic_index.encoders import Encoder, Tokens
from zsic_index.errors import LabelError, StoreError
from zsic_index.scoring import Float32, Int64
from zsic_index.store import Store

logger = logging.getLogger("zsic_index")

LABELS_PER_COMMIT = 512
"""Labels that are encoded and committed together; a kill can lose two such chunks, the one that is
being encoded and the one that is being committed."""

Progress = Callable[[int, int], None]
"""Called with (labels done, labels to encode) after every commit."""


@dataclass(frozen=True, slots=True)
class Ensured:
    """Labels whose embeddings the store has now.

    Attributes:
        embedding_ids: (n,) int64, the store's id of each label's embedding.
        encoded: how many labels had to be encoded.
        truncated: prompts that were over the token limit and were cut.
        model_loaded: whether the weights were needed.
    """

    embedding_ids: Int64
    encoded: int
    truncated: tuple[str, ...]
    model_loaded: bool


def ensure(
    store: Store,
    source: EncoderSource,
    labels: Sequence[str],
    templates: Sequence[str],
    *,
    known: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> Ensured:
    """Encode the labels that the store has no embedding for, committing in chunks.

    Args:
        store: where they are looked up and kept.
        source: the encoder.
        labels: n labels.
        templates: T templates.
        known: embedding ids of labels that were made by this encoder with these templates.
        progress: called after every commit.

    Raises:
        LabelError: for a label that the model cannot take.
        ModelError: when the checkpoint cannot be loaded.
        StoreError: when the store cannot be written.
    """
    known = known or {}
    keys = {
        label: fingerprint(source.fingerprint, prompts.render(label, templates))
        for label in dict.fromkeys(labels)
        if label not in known
    }
    found = store.embedding_ids(list(keys.values()))
    missing = [label for label, key in keys.items() if key not in found]
    truncated: tuple[str, ...] = ()
    is_new = store.find_encoder(source.fingerprint) is None
    model_needed = bool(missing) or is_new
    if is_new:
        store.add_encoder(source.record(source.fingerprint))
    if missing:
        truncated = _encode_all(store, source, missing, keys, templates, progress)
        found |= store.embedding_ids([keys[label] for label in missing])
    try:
        ids = [known[label] if label in known else found[keys[label]] for label in labels]
    except KeyError:
        raise StoreError(
            "another process removed embeddings in the meantime: do it again"
        ) from None
    return Ensured(np.array(ids, dtype=np.int64), len(missing), truncated, model_needed)


def fetch(
    store: Store, source: EncoderSource, labels: Sequence[str], templates: Sequence[str]
) -> Float32:
    """Return (n, D) float32 unit-norm label embeddings; see ``ensure``."""
    ensured = ensure(store, source, labels, templates)
    _warn_of(ensured.truncated)
    encoder = store.find_encoder(source.fingerprint)
    assert encoder is not None, "ensure has added it"
    blocks = store.read_embeddings(ensured.embedding_ids, encoder.dim)
    return np.concatenate([np.empty((0, encoder.dim), dtype=np.float32), *blocks])


def embed(encoder: Encoder, labels: Sequence[str], templates: Sequence[str]) -> Float32:
    """Return (n, D) float32 unit-norm label embeddings, made now and kept nowhere.

    Raises:
        LabelError: for a label that the model cannot take.
        ModelError: see Encoder.
    """
    distinct = _distinct_prompts(labels, templates)
    encoded = encoder.encode_prompts(distinct)
    _warn_of(encoded.truncated)
    return _pool(labels, templates, distinct, encoded.embeddings)


def fingerprint(encoder_fingerprint: str, rendered: Sequence[str]) -> bytes:
    """Return what a label's embedding depends on, as 32 bytes: the encoder and its prompts."""
    parts = json.dumps([encoder_fingerprint, *rendered], ensure_ascii=False)
    return hashlib.sha256(parts.encode()).digest()


def _encode_all(
    store: Store,
    source: EncoderSource,
    labels: Sequence[str],
    keys: Mapping[str, bytes],
    templates: Sequence[str],
    progress: Progress | None,
) -> tuple[str, ...]:
    """Encode and commit labels, chunk by chunk; return the prompts that were cut.

    While one chunk goes through the text tower, the next is tokenised and the one before is
    committed, each in a thread.
    """
    encoder = source.encoder()
    truncated: list[str] = []

    def tokenise(chunk: Sequence[str]) -> Tokens:
        return encoder.tokenise(_distinct_prompts(chunk, templates))

    def commit(chunk: Sequence[str], embeddings: Float32) -> None:
        store.add_embeddings(source.fingerprint, [keys[label] for label in chunk], embeddings)

    chunks = [
        labels[at : at + LABELS_PER_COMMIT] for at in range(0, len(labels), LABELS_PER_COMMIT)
    ]
    done = 0
    with (
        ThreadPoolExecutor(1, thread_name_prefix="zsic-tokenise") as tokenising,
        ThreadPoolExecutor(1, thread_name_prefix="zsic-commit") as committing,
    ):
        ahead = (tokenising.submit(tokenise, chunk) for chunk in chunks)
        following = next(ahead, None)
        committed: Future[None] | None = None
        for chunk in chunks:
            assert following is not None, "there is one for each chunk"
            tokens = following.result()
            following = next(ahead, None)
            encoded = encoder.encode_tokens(tokens)
            truncated += encoded.truncated
            embeddings = _pool(chunk, templates, tokens.prompts, encoded.embeddings)
            if committed is not None:
                committed.result()
                done += LABELS_PER_COMMIT
                if progress:
                    progress(done, len(labels))
            committed = committing.submit(commit, chunk, embeddings)
        if committed is not None:
            committed.result()
            if progress:
                progress(len(labels), len(labels))
    return tuple(truncated)


def _distinct_prompts(labels: Sequence[str], templates: Sequence[str]) -> list[str]:
    rendered = (prompt for label in labels for prompt in prompts.render(label, templates))
    return list(dict.fromkeys(rendered))


def _warn_of(truncated: Sequence[str]) -> None:
    if truncated:
        logger.warning(
            "%d prompts over the token limit were cut, such as %r",
            len(truncated),
            truncated[0][:80],
        )


def _pool(
    labels: Sequence[str], templates: Sequence[str], distinct: Sequence[str], embeddings: Float32
) -> Float32:
    """Return (n, D) label embeddings: each the normalised mean of its prompts' unit embeddings.

    Args:
        labels: n labels.
        templates: T templates.
        distinct: the p different prompts of these labels.
        embeddings: (p, D) float32, unit norm.
    """
    place = {prompt: row for row, prompt in enumerate(distinct)}
    rows = [[place[prompt] for prompt in prompts.render(label, templates)] for label in labels]
    means = embeddings[np.array(rows)].mean(axis=1, dtype=np.float64)
    norms = np.linalg.norm(means, axis=1)
    for label, norm in zip(labels, norms, strict=True):
        if not np.isfinite(norm) or norm < 1e-6:
            raise LabelError(
                f"label {label!r}: the mean of its prompts' embeddings has norm {norm:g}, so it "
                "points nowhere: check the model's weights, or use other templates"
            )
    return scoring.check_embeddings(means)
