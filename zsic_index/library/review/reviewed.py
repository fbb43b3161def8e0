"""The photos that are reviewed: their embeddings, and how probable a label is for each."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, TypeVar

import numpy as np

from zsic_index.embedding_arrays import Float32, Float64, Int64
from zsic_index.embeddings.labels import Progress
from zsic_index.errors import InputError
from zsic_index.label_index import LabelIndex
from zsic_index.parallel import batched
from zsic_index.scan.goal import similarities_of
from zsic_index.scan.probabilities import activate

Value = TypeVar("Value")

_AT_ONCE = 4_096
"""Photos that are read and scanned together."""


class ReviewedPhotos:
    """Photos that an index has embeddings of, each content once.

    Embeddings lie in a temporary file that is memory-mapped, so that a label costs one pass over it
    and what is held does not grow with their length. The log-partition over all labels is computed
    once for each photo. Answers are the index's own, to the last digits of a float64, with what it
    was calibrated by when they were gathered.

    Attributes:
        photo_ids: (n,) int64, ascending; of copies that of the first.
        contents: n content hashes.
        copies: (n,) int64, how many photos have that content.
    """

    def __init__(
        self, index: LabelIndex, under: str | None = None, progress: Progress | None = None
    ) -> None:
        """Gather what the store has.

        Args:
            index: opened with ``keep_images``.
            under: only photos in and below this folder.
            progress: called with (photos gathered, photos there are in all).

        Raises:
            InputError: when there are none.
            ModelError: when the index has no model.
        """
        self._index = index
        self._hubs = index.searcher.calibration.hubs if index.searcher.calibration else None
        self._scale, self._bias = index.searcher.logit_scale, index.searcher.logit_bias
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        partitions: list[Float64] = []
        ids: list[int] = []
        copies: list[int] = []
        self.contents: list[bytes] = []
        self._places: dict[bytes, int] = {}
        total = index.store.photos.count()["photos"]
        for found, embeddings in _gathered(index, under, self._places, copies):
            ids += found.values()
            self.contents += found
            self._file.write(embeddings.data)
            if index.info.activation == "softmax":
                partition = index.searcher.search(embeddings, 1).log_partition
                assert partition is not None, "softmax has one"
                partitions.append(partition)
            if progress:
                progress(sum(copies), max(total, sum(copies)))
        if not ids:
            self._file.close()
            raise InputError(
                f"no photos with embeddings of index {index.info.name!r}"
                f"{f' below {under}' if under else ''}: run 'zsic-index tag' first"
            )
        self._file.flush()
        self._embeddings: Float32 = np.memmap(
            self._file, dtype=np.float32, mode="r", shape=(len(ids), index.info.dim)
        )
        self._log_partition = np.concatenate(partitions) if partitions else None
        self.photo_ids: Int64 = np.array(ids, dtype=np.int64)
        self.copies: Int64 = np.array(copies, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.contents)

    def close(self) -> None:
        """Let go of the temporary file."""
        self._file.close()

    def place_of(self, photo_id: int) -> int | None:
        """Return the place, 0 to n - 1, of a photo that is the first of its content, or None."""
        place = int(np.searchsorted(self.photo_ids, photo_id))
        known = place < len(self) and self.photo_ids[place] == photo_id
        return place if known else None

    def by_place(self, found: Mapping[bytes, Value]) -> dict[int, Value]:
        """Return what is known of contents by their places; those that are not here are left out.

        Args:
            found: content → what is known.
        """
        places = self._places
        return {places[content]: value for content, value in found.items() if content in places}

    def probabilities(self, row: int) -> Float64:
        """Return the (n,) probabilities of the label at a row of the index.

        Under softmax they are over all labels of the index.
        """
        index, label = self._index, np.array([row])
        rows = label if index.searcher.pooling is None else index.searcher.pooling.rows_of(label)
        photos = np.arange(len(self))
        similarities = np.stack(
            [similarities_of(self._embeddings, photos, index.embeddings[one]) for one in rows],
            axis=1,
        )
        if index.searcher.pooling is not None:
            similarities = index.searcher.pooling.take(label).similarities(
                similarities, self._scale
            )
        if self._hubs is not None:
            similarities = similarities - self._hubs.of(index.label_ids[label])
        logits = similarities * self._scale + self._bias
        activation = index.info.activation
        return activate(logits, activation, self._log_partition)[:, 0]


def _gathered(
    index: LabelIndex, under: str | None, places: dict[bytes, int], copies: list[int]
) -> Iterator[tuple[dict[bytes, int], Float32]]:
    """Yield contents with the first photo of each, and their (n, D) embeddings.

    Args:
        index: whose embeddings.
        under: only photos in and below this folder.
        places: content → its place; added to.
        copies: photos of each place; added to.
    """
    embedder = index.encoder.image_embedder()
    for part in batched(index.store.photos.iterate(under=under), _AT_ONCE):
        fresh: dict[bytes, list[int]] = {}
        for one in part:
            if one.content_hash is None or one.problem is not None:
                continue
            if one.content_hash in places:
                copies[places[one.content_hash]] += 1
            else:
                fresh.setdefault(one.content_hash, []).append(one.photo_id)
        keys = {content: embedder.key(content) for content in fresh}
        found = index.store.embeddings.find(list(keys.values()))
        have = [content for content in fresh if keys[content] in found]
        if have:
            places |= {content: len(places) + at for at, content in enumerate(have)}
            copies += [len(fresh[content]) for content in have]
            embeddings = np.array([found[keys[content]] for content in have], dtype=np.float32)
            yield {content: fresh[content][0] for content in have}, embeddings
