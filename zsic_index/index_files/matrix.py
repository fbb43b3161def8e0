"""The file of an index's float32 embeddings and label ids.

It is an ``IndexFlatIP`` of R embeddings in an ``IndexIDMap`` of label ids, as ``faiss.read_index``
reads it. Mapping it takes no time in proportion to R. The rows of a label with several names are
consecutive, each with the label's id.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from zsic_index.embedding_arrays import Float32, Int64
from zsic_index.errors import IndexFileError, StoreError
from zsic_index.index_files.files import compute_checksum, create_file, locate_file, read_trailer
from zsic_index.records import IndexInfo

# FAISS puts the vectors 45 bytes into the file of a flat index, so mapped floats would straddle
# their natural alignment, and NumPy copies such arrays before every product (3 to 15 times slower,
# measured on 500,000 x 512). An IndexIDMap adds 37 bytes and an IndexPreTransform without
# transforms 41: with one and two of them the vectors start at byte 164, a multiple of 4.
_PADDING_LAYERS = 2

_COUNT = struct.Struct("<Q")
"""FAISS writes the length of an array as this, before the array."""


def write_matrix(
    folder: Path,
    info: IndexInfo,
    label_ids: Int64,
    embeddings: Iterable[Float32],
    *,
    expected: str | None = None,
) -> IndexInfo:
    """Write the matrix of an index; see ``kinds.write_files``."""
    start = 0
    with create_file(folder) as new:
        with new.path.open("wb") as file:

            def written() -> Iterator[Float32]:
                nonlocal start
                for block in embeddings:
                    _check_norms(block, label_ids[start : start + len(block)])
                    start += len(block)
                    file.write(np.ascontiguousarray(block, "<f4").data)
                    yield block

            file.write(_make_head(len(label_ids), info.dim))
            file.write(_COUNT.pack(len(label_ids) * info.dim))
            info = replace(info, checksum=compute_checksum(label_ids, written()))
            file.write(_COUNT.pack(len(label_ids)))
            file.write(np.ascontiguousarray(label_ids, "<i8").data)
        if start != len(label_ids):
            raise StoreError(f"index {info.name!r}: {start} embeddings for {len(label_ids)} rows")
        if expected not in (None, info.checksum):
            raise StoreError(
                f"index {info.name!r}: the store's labels or embeddings are not those it was built "
                "from: restore the store from a backup, or rm the index with --prune and build it "
                "again"
            )
        new.finish(locate_file(folder, info), info)
    return info


def map_matrix(path: Path, info: IndexInfo) -> tuple[Int64, Float32]:
    """Map the (R,) label ids and the (R, D) embeddings of a file.

    Raises:
        IndexFileError: when it is not the file of ``info``.
    """
    ids_at = read_trailer(path, info).size - 8 * info.rows
    matrix_at = ids_at - _COUNT.size - 4 * info.rows * info.dim
    if matrix_at < 0:
        raise IndexFileError(f"index file {path} is not the one of index {info.name!r}")
    label_ids = np.memmap(path, "<i8", "r", ids_at, info.rows)
    matrix = np.memmap(path, "<f4", "r", matrix_at, (info.rows, info.dim))
    return np.asarray(label_ids), np.asarray(matrix)


def _make_head(count: int, dim: int) -> bytes:
    """Return the bytes that FAISS writes before the embeddings of an index of ``count`` rows.

    FAISS itself would have to hold all embeddings in memory to write the file.
    """
    layers: list[Any] = [faiss.IndexFlatIP(dim)]
    for _ in range(_PADDING_LAYERS):
        layers.append(faiss.IndexPreTransform(layers[-1]))
    layers.append(faiss.IndexIDMap(layers[-1]))
    for layer in layers:
        layer.ntotal = count
    serialized = faiss.serialize_index(layers[-1]).tobytes()
    counts = serialized[-2 * _COUNT.size :]
    assert counts == bytes(len(counts)), "embeddings and ids are not the last that FAISS writes"
    return bytes(serialized[: -len(counts)])


def _check_norms(block: Float32, label_ids: Int64) -> None:
    norms = np.linalg.norm(block, axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1.0) < 1e-3))
    if len(wrong):
        raise StoreError(
            f"the embedding of label {int(label_ids[wrong[0]])} has norm {norms[wrong[0]]:g}, "
            "not 1: the store is damaged; rm the index with --prune and build it again"
        )
