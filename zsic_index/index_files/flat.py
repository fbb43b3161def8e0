"""The file of an index's float32 embeddings and label ids, and which other file a kind has.

It is an ``IndexFlatIP`` of N embeddings in an ``IndexIDMap`` of label ids, as ``faiss.read_index``
reads it. What is opened is mapped: nothing takes time in proportion to N. Where labels have a row
for each of their names, it is one of R embeddings: the rows of a label stand together, each with
the label's id, and the ids are read to tell where labels begin.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from zsic_index.embedding_arrays import Float32, Int64
from zsic_index.errors import IndexFileError, StoreError
from zsic_index.index_files import approximate, files, half
from zsic_index.index_files.approximate import Approximate
from zsic_index.index_files.half import Half
from zsic_index.records import IndexInfo
from zsic_index.scan.pooling import Pooling

# FAISS puts the vectors 45 bytes into the file of a flat index, so mapped floats would straddle
# their natural alignment, and NumPy copies such arrays before every product (3 to 15 times slower,
# measured on 500,000 x 512). An IndexIDMap adds 37 bytes and an IndexPreTransform without
# transforms 41: with one and two of them the vectors start at byte 164, a multiple of 4.
_PADDING_LAYERS = 2

_COUNT = struct.Struct("<Q")
"""How FAISS writes the length of an array, before the array."""


@dataclass(frozen=True, slots=True)
class OpenIndex:
    """The open files of an index.

    Attributes:
        label_ids: (N,) int64, the label id of each label; memory-mapped where each has one row.
        matrix: (R, D) float32 unit-norm embeddings, memory-mapped and read-only.
        first: what a scan or a search goes through first; None for ``flat``.
        pooling: which rows are one label; None where each is.
    """

    label_ids: Int64
    matrix: Float32
    first: Half | Approximate | None
    pooling: Pooling | None = None


def write(
    folder: Path,
    info: IndexInfo,
    label_ids: Int64,
    embeddings: Iterable[Float32],
    *,
    expected: str | None = None,
) -> IndexInfo:
    """Write the files of ``info.generation``, each atomically.

    Args:
        folder: where; made when missing.
        info: gives name, id, generation, kind and D; its checksum is not looked at.
        label_ids: (R,) int64, the label of each row.
        embeddings: (n, D) float32 blocks of unit norm, R rows in all.
        expected: the checksum that the content must have, where it is known.

    Returns:
        ``info`` with the checksum of what was written.

    Raises:
        StoreError: when an embedding is not of norm 1, the checksum is not the expected one, or a
            file cannot be written.
    """
    start = 0
    with files.new_file(folder) as new:
        with new.path.open("wb") as file:

            def written() -> Iterator[Float32]:
                nonlocal start
                for block in embeddings:
                    _check_norms(block, label_ids[start : start + len(block)])
                    start += len(block)
                    file.write(np.ascontiguousarray(block, "<f4").data)
                    yield block

            file.write(_head(len(label_ids), info.dim))
            file.write(_COUNT.pack(len(label_ids) * info.dim))
            info = replace(info, checksum=files.checksum(label_ids, written()))
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
        new.finish(files.path_of(folder, info), info)
    if info.kind != "flat":
        _, matrix = _map(files.path_of(folder, info), info)
        write_first = half.write if info.kind == "float16" else approximate.write
        write_first(_path_of_first(folder, info), info, matrix)
    return info


def open_file(folder: Path, info: IndexInfo) -> OpenIndex:
    """Map the files of an index.

    Raises:
        IndexFileError: when one is missing, truncated, stale or another's, and says which.
    """
    path = files.path_of(folder, info)
    label_ids, matrix = _map(path, info)
    pooling = None
    if info.name_pooling != "mean" and info.rows != info.labels:
        pooling = Pooling.of_rows(label_ids, info.name_pooling)
        if pooling.labels != info.labels:
            raise IndexFileError(f"index file {path} is damaged: it has {pooling.labels} labels")
        label_ids = label_ids[pooling.starts[:-1]]
        label_ids.setflags(write=False)
    first: Half | Approximate | None = None
    match info.kind:
        case "flat":
            pass
        case "float16":
            first = half.open_file(_path_of_first(folder, info), info)
        case "hnsw" | "ivf":
            first = approximate.open_file(_path_of_first(folder, info), info, path)
    return OpenIndex(label_ids, matrix, first, pooling)


def verify(folder: Path, info: IndexInfo) -> None:
    """Read the whole float32 file and compare it with the store's checksum.

    Raises:
        IndexFileError: when it is not exactly what was written.
    """
    opened = open_file(folder, info)
    path = files.path_of(folder, info)
    label_ids, matrix = _map(path, info)
    if files.checksum(label_ids, [matrix]) != info.checksum:
        raise IndexFileError(f"index file {path} is damaged: its checksum differs")
    if isinstance(opened.first, Half):
        half.verify(_path_of_first(folder, info), opened.first, opened.matrix)


def _path_of_first(folder: Path, info: IndexInfo) -> Path:
    return files.path_of(folder, info, info.kind)


def _head(count: int, dim: int) -> bytes:
    """Return what FAISS writes before the embeddings of an index of ``count`` rows.

    FAISS would have to hold all of them to write the file by itself.
    """
    layers: list[Any] = [faiss.IndexFlatIP(dim)]
    for _ in range(_PADDING_LAYERS):
        layers.append(faiss.IndexPreTransform(layers[-1]))
    layers.append(faiss.IndexIDMap(layers[-1]))
    for layer in layers:
        layer.ntotal = count
    written = faiss.serialize_index(layers[-1]).tobytes()
    counts = written[-2 * _COUNT.size :]
    assert counts == bytes(len(counts)), "embeddings and ids are not the last that FAISS writes"
    return bytes(written[: -len(counts)])


def _map(path: Path, info: IndexInfo) -> tuple[Int64, Float32]:
    """Map the (R,) label ids and the (R, D) embeddings of a file."""
    ids_at = files.read_trailer(path, info).size - 8 * info.rows
    matrix_at = ids_at - _COUNT.size - 4 * info.rows * info.dim
    if matrix_at < 0:
        raise IndexFileError(f"index file {path} is not the one of index {info.name!r}")
    label_ids = np.memmap(path, "<i8", "r", ids_at, info.rows)
    matrix = np.memmap(path, "<f4", "r", matrix_at, (info.rows, info.dim))
    return np.asarray(label_ids), np.asarray(matrix)


def _check_norms(block: Float32, label_ids: Int64) -> None:
    norms = np.linalg.norm(block, axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1.0) < 1e-3))
    if len(wrong):
        raise StoreError(
            f"the embedding of label {int(label_ids[wrong[0]])} has norm {norms[wrong[0]]:g}, "
            "not 1: the store is damaged; rm the index with --prune and build it again"
        )
