"""Finding photos by words: their kept embeddings against the text's."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zsic_index.errors import InputError
from zsic_index.label_index import LabelIndex
from zsic_index.parallel import batched

_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True, order=True)
class FoundPhoto:
    """A photo that was found.

    Attributes:
        similarity: inner product of its embedding and the text's.
        photo: its path.
    """

    similarity: float
    photo: str


def search(
    index: LabelIndex, words: str, top_k: int, *, under: str | None = None
) -> list[FoundPhoto]:
    """Return the photos that are nearest to a text, nearest first.

    Args:
        index: whose encoder is asked, with its templates; opened as for tagging.
        words: the text.
        top_k: photos, at least 1.
        under: only in and below this folder.

    Raises:
        InputError: when there are no embeddings of this model.
        LabelError: for a text that the model cannot take.
    """
    (query,) = index.encoder.encode_labels([words]).astype(np.float64)
    best = heapq.nlargest(top_k, _similarities(index, query, under))
    if not best:
        raise InputError(
            f"no photos with embeddings of index {index.info.name!r}"
            f"{f' below {under}' if under else ''}: run 'zsic-index tag' first"
        )
    return best


def _similarities(
    index: LabelIndex, query: np.ndarray[tuple[int], np.dtype[np.float64]], under: str | None
) -> Iterator[FoundPhoto]:
    embedder = index.encoder.image_embedder()
    for part in batched(index.store.photos.iterate(under=under), _AT_ONCE):
        keys = {
            one.path: embedder.fingerprint_image(one.content_hash)
            for one in part
            if one.content_hash
        }
        found = index.store.embeddings.find(list(set(keys.values())))
        paths = [path for path, key in keys.items() if key in found]
        if paths:
            similarities = np.array([found[keys[path]] for path in paths]) @ query
            yield from map(FoundPhoto, similarities.tolist(), paths)
