"""Search for photos by text: compare their stored embeddings with that of the text."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zsic_index.errors import InputError
from zsic_index.label_index import LabelIndex
from zsic_index.parallel import batched

_BATCH = 4_096
"""Number of photos whose embeddings are read together."""


@dataclass(frozen=True, slots=True, order=True)
class PhotoMatch:
    """A photo that matches a text.

    Attributes:
        similarity: inner product of the photo's embedding and the text's.
        photo: path of the photo.
    """

    similarity: float
    photo: str


def search(
    index: LabelIndex, words: str, top_k: int, *, under: str | None = None
) -> list[PhotoMatch]:
    """Return the photos most similar to a text, best first.

    Args:
        index: the index whose encoder and templates embed the text; opened as for tagging.
        words: the text.
        top_k: largest number of photos, at least 1.
        under: searches only photos in and below this folder.

    Raises:
        InputError: when there are no embeddings of this model.
        LabelError: for a text that the model cannot encode.
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
) -> Iterator[PhotoMatch]:
    embedder = index.encoder.image_embedder()
    for photos in batched(index.store.photos.iterate(under=under), _BATCH):
        keys = {
            photo.path: embedder.fingerprint_image(photo.content_hash)
            for photo in photos
            if photo.content_hash
        }
        embeddings = index.store.embeddings.find(list(set(keys.values())))
        paths = [path for path, key in keys.items() if key in embeddings]
        if paths:
            similarities = np.array([embeddings[keys[path]] for path in paths]) @ query
            yield from map(PhotoMatch, similarities.tolist(), paths)
