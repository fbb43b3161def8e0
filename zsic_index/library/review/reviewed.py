"""Reviewed photos: their embeddings, and the probability of any label for each."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, TypeVar

import numpy as np

from zsic_index.embedding_arrays import Float32, Float64, Int64
from zsic_index.embeddings.labels import ProgressCallback
from zsic_index.errors import InputError
from zsic_index.label_index import LabelIndex
from zsic_index.parallel import batched
from zsic_index.scan.probabilities import activate
from zsic_index.scan.spec import similarities_of

Value = TypeVar("Value")

_BATCH = 4_096
"""Photos that are read and scanned together."""


class ReviewedPhotos:
    """Photos with embeddings of an index; copies of a photo count as one.

    Embeddings are kept in a memory-mapped temporary file: a label costs one pass over it, and the
    memory in use does not grow with their dimension. The log-partition over all labels is computed
    once per photo. Probabilities equal the index's own to the last digits of a float64, with its
    calibration.

    A photo's place is its position in these arrays, 0 to n - 1.

    Attributes:
        photo_ids: (n,) int64, ascending; for copies the id of the first.
        contents: n content hashes.
        copies: (n,) int64, number of photos with that content.
    """

    def __init__(
        self, index: LabelIndex, under: str | None = None, progress: ProgressCallback | None = None
    ) -> None:
        """Copy the embeddings from the store.

        Args:
            index: index opened with ``keep_images``.
            under: only photos in and below this folder.
            progress: called with the number of photos so far, and the number of all photos.

        Raises:
            InputError: when there are no photos with embeddings.
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
        for photo_ids, embeddings in _batches(index, under, self._places, copies):
            ids += photo_ids.values()
            self.contents += photo_ids
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
        """Release the temporary file."""
        self._file.close()

    def place_of(self, photo_id: int) -> int | None:
        """Return the place of a photo, or None for one that is not among ``photo_ids``."""
        place = int(np.searchsorted(self.photo_ids, photo_id))
        is_here = place < len(self) and self.photo_ids[place] == photo_id
        return place if is_here else None

    def by_place(self, values: Mapping[bytes, Value]) -> dict[int, Value]:
        """Return values by the places of their contents; other contents are left out.

        Args:
            values: content hash → value.
        """
        places = self._places
        return {places[content]: value for content, value in values.items() if content in places}

    def probabilities(self, row: int) -> Float64:
        """Return the (n,) probabilities of the label at a row of the index.

        Under softmax they are over all labels of the index.
        """
        index, pooling, label = self._index, self._index.searcher.pooling, np.array([row])
        rows = label if pooling is None else pooling.rows_of(label)
        photos = np.arange(len(self))
        similarities = np.stack(
            [
                similarities_of(self._embeddings, photos, index.embeddings[name_row])
                for name_row in rows
            ],
            axis=1,
        )
        if pooling is not None:
            similarities = pooling.take(label).similarities(similarities, self._scale)
        if self._hubs is not None:
            similarities = similarities - self._hubs.of(index.label_ids[label])
        logits = similarities * self._scale + self._bias
        activation = index.info.activation
        return activate(logits, activation, self._log_partition)[:, 0]


def _batches(
    index: LabelIndex, under: str | None, places: dict[bytes, int], copies: list[int]
) -> Iterator[tuple[dict[bytes, int], Float32]]:
    """Yield new contents with the id of their first photo, and their (n, D) embeddings.

    Args:
        index: index whose embeddings are read.
        under: only photos in and below this folder.
        places: content hash → place; extended here.
        copies: number of photos of each place; extended here.
    """
    embedder = index.encoder.image_embedder()
    for photos in batched(index.store.photos.iterate(under=under), _BATCH):
        fresh: dict[bytes, list[int]] = {}
        for photo in photos:
            if photo.content_hash is None or photo.problem is not None:
                continue
            if photo.content_hash in places:
                copies[places[photo.content_hash]] += 1
            else:
                fresh.setdefault(photo.content_hash, []).append(photo.photo_id)
        keys = {content: embedder.fingerprint_image(content) for content in fresh}
        stored = index.store.embeddings.find(list(keys.values()))
        contents = [content for content in fresh if keys[content] in stored]
        if contents:
            places |= {content: len(places) + at for at, content in enumerate(contents)}
            copies += [len(fresh[content]) for content in contents]
            embeddings = np.array([stored[keys[content]] for content in contents], dtype=np.float32)
            yield {content: fresh[content][0] for content in contents}, embeddings
