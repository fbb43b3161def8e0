"""Label embeddings: out of the store, and out of the text tower only where the store has none."""

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
"""Labels that are encoded and committed together; a kill can lose two such chunks, the one that is
being encoded and the one that is being committed."""

PromptsOf = Callable[[int], Sequence[str]]
"""Gives the prompts of a label by its position."""

Progress = Callable[[int, int], None]
"""Called with (labels done, labels to encode) after every commit."""


@dataclass(frozen=True, slots=True)
class Ensured:
    """Labels whose embeddings the store has now.

    Attributes:
        embedding_ids: (n,) int64, the store's id of each label's embedding.
        encoded: positions of the labels that had to be encoded.
        prompts: how many prompts went through the text tower for them.
        truncated: prompts that were over the token limit and were cut.
        model_loaded: whether the weights were needed.
    """

    embedding_ids: Int64
    encoded: tuple[int, ...]
    prompts: int
    truncated: tuple[str, ...]
    model_loaded: bool


def ensure(
    store: Store,
    source: EncoderSource,
    labels: Sequence[str],
    prompts_of: PromptsOf,
    *,
    known: Mapping[int, int] | None = None,
    progress: Progress | None = None,
) -> Ensured:
    """Encode the labels that the store has no embedding for, committing in chunks.

    Args:
        store: where they are looked up and kept.
        source: the encoder.
        labels: n labels.
        prompts_of: gives the prompts of a label by its position; at least one.
        known: embedding ids by position, of labels that were made by this encoder from these
            prompts.
        progress: called after every commit.

    Raises:
        LabelError: for a label that the model cannot take.
        ModelError: when the checkpoint cannot be loaded.
        StoreError: when the store cannot be written.
    """
    known = known or {}
    keys = {
        at: fingerprint(source.fingerprint, prompts_of(at))
        for at in range(len(labels))
        if at not in known
    }
    found = store.embeddings.find_ids(list(dict.fromkeys(keys.values())))
    # Labels with the same prompts share an embedding.
    missing = list({key: at for at, key in keys.items() if key not in found}.values())
    truncated: tuple[str, ...] = ()
    is_new = store.encoders.find(source.fingerprint) is None
    model_needed = bool(missing) or is_new
    prompt_count = 0
    if is_new:
        store.encoders.add(source.record(source.fingerprint))
    if missing:
        asked = _Asked(labels, prompts_of, missing)
        truncated, prompt_count = _encode_all(store, source, asked, keys, progress)
        found |= store.embeddings.find_ids([keys[at] for at in missing])
    try:
        ids = [known[at] if at in known else found[keys[at]] for at in range(len(labels))]
    except KeyError:
        raise StoreError(
            "another process removed embeddings in the meantime: do it again"
        ) from None
    return Ensured(
        np.array(ids, dtype=np.int64), tuple(missing), prompt_count, truncated, model_needed
    )


def fetch(
    store: Store, source: EncoderSource, labels: Sequence[str], prompts_of: PromptsOf
) -> Float32:
    """Return (n, D) float32 unit-norm label embeddings; see ``ensure``."""
    ensured = ensure(store, source, labels, prompts_of)
    _warn_of(ensured.truncated)
    encoder = store.encoders.find(source.fingerprint)
    assert encoder is not None, "ensure has added it"
    blocks = store.embeddings.read(ensured.embedding_ids, encoder.dim)
    return np.concatenate([np.empty((0, encoder.dim), dtype=np.float32), *blocks])


def embed(encoder: Encoder, labels: Sequence[str], templates: Sequence[str]) -> Float32:
    """Return (n, D) float32 unit-norm label embeddings, made now and kept nowhere.

    Raises:
        LabelError: for a label that the model cannot take.
        ModelError: see Encoder.
    """
    asked = _Asked(labels, rendered(labels, templates), range(len(labels)))
    encoded = encoder.encode_prompts(asked.distinct)
    _warn_of(encoded.truncated)
    return _pool(asked, encoded.embeddings)


def rendered(labels: Sequence[str], templates: Sequence[str]) -> PromptsOf:
    """Return what gives a label's prompts: its name in every template."""
    return lambda at: prompts.render(labels[at], templates)


def fingerprint(encoder_fingerprint: str, rendered: Sequence[str]) -> bytes:
    """Return what a label's embedding depends on, as 32 bytes: the encoder and its prompts."""
    parts = json.dumps([encoder_fingerprint, *rendered], ensure_ascii=False)
    return hashlib.sha256(parts.encode()).digest()


class _Asked:
    """Some labels and their prompts.

    Attributes:
        labels: their names.
        positions: where they stand among all labels.
        prompts: each one's prompts.
        distinct: the p different ones of all of them.
    """

    def __init__(
        self, labels: Sequence[str], prompts_of: PromptsOf, positions: Sequence[int]
    ) -> None:
        self._labels = labels
        self._prompts_of = prompts_of
        self.positions = positions

    def chunks(self, size: int) -> list[_Asked]:
        """Return the same in parts."""
        return [
            _Asked(self._labels, self._prompts_of, self.positions[at : at + size])
            for at in range(0, len(self.positions), size)
        ]

    @property
    def labels(self) -> list[str]:
        return [self._labels[at] for at in self.positions]

    @cached_property
    def prompts(self) -> list[Sequence[str]]:
        return [self._prompts_of(at) for at in self.positions]

    @cached_property
    def distinct(self) -> list[str]:
        return list(dict.fromkeys(prompt for each in self.prompts for prompt in each))


def _encode_all(
    store: Store,
    source: EncoderSource,
    asked: _Asked,
    keys: Mapping[int, bytes],
    progress: Progress | None,
) -> tuple[tuple[str, ...], int]:
    """Encode and commit labels, chunk by chunk; return the prompts that were cut, and how many.

    While one chunk goes through the text tower, the next is tokenised and the one before is
    committed, each in a thread.
    """
    encoder = source.encoder()
    truncated: list[str] = []

    def tokenise(chunk: _Asked) -> Tokens:
        return encoder.tokenise(chunk.distinct)

    def commit(chunk: _Asked, embeddings: Float32) -> None:
        store.embeddings.add(source.fingerprint, [keys[at] for at in chunk.positions], embeddings)

    total = len(asked.positions)
    done = prompt_count = 0
    waiting = deque(asked.chunks(LABELS_PER_COMMIT))
    with (
        ThreadPoolExecutor(1, thread_name_prefix="zsic-tokenise") as tokenising,
        ThreadPoolExecutor(1, thread_name_prefix="zsic-commit") as committing,
    ):
        ahead = tokenising.submit(tokenise, waiting[0])
        committed: Future[None] | None = None
        while waiting:
            # Let go of when it is done: a chunk holds its prompts.
            chunk = waiting.popleft()
            tokens = ahead.result()
            if waiting:
                ahead = tokenising.submit(tokenise, waiting[0])
            encoded = encoder.encode_tokens(tokens)
            truncated += encoded.truncated
            prompt_count += len(chunk.distinct)
            embeddings = _pool(chunk, encoded.embeddings)
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


def _warn_of(truncated: Sequence[str]) -> None:
    if truncated:
        logger.warning(
            "%d prompts over the token limit were cut, such as %r",
            len(truncated),
            truncated[0][:80],
        )


def _pool(asked: _Asked, embeddings: Float32) -> Float32:
    """Return (n, D) label embeddings: each the normalised mean of its prompts' unit embeddings.

    Args:
        asked: n labels with p different prompts.
        embeddings: (p, D) float32, unit norm, of the different prompts.
    """
    place = {prompt: row for row, prompt in enumerate(asked.distinct)}
    rows = [place[prompt] for each in asked.prompts for prompt in each]
    counts = np.array([len(each) for each in asked.prompts])
    starts = np.cumsum(counts) - counts
    sums = np.add.reduceat(embeddings[rows].astype(np.float64), starts, axis=0)
    means = sums / counts[:, None]
    norms = np.linalg.norm(means, axis=1)
    for label, norm in zip(asked.labels, norms, strict=True):
        if not np.isfinite(norm) or norm < 1e-6:
            raise LabelError(
                f"label {label!r}: the mean of its prompts' embeddings has norm {norm:g}, so it "
                "points nowhere: check the model's weights, or use other templates"
            )
    return check_embeddings(means)
