"""The files of an index together: the float32 matrix, and the second file that its kind has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zsic_index.embedding_arrays import Float32, Int64
from zsic_index.errors import IndexFileError
from zsic_index.index_files import approximate_search, half_precision
from zsic_index.index_files.approximate_search import ApproximateSearch
from zsic_index.index_files.files import compute_checksum, locate_file
from zsic_index.index_files.half_precision import HalfPrecision
from zsic_index.index_files.matrix import map_matrix, write_matrix
from zsic_index.records import IndexInfo
from zsic_index.scan.pooling import Pooling


@dataclass(frozen=True, slots=True)
class IndexFiles:
    """Open files of an index.

    Attributes:
        label_ids: (N,) int64, the id of each label; memory-mapped if each label has one row.
        matrix: (R, D) float32 unit-norm embeddings, memory-mapped and read-only.
        first_pass: smaller data to find candidates in, which are then scored with ``matrix``; None
            for kind ``flat``.
        pooling: rows of each label; None if each label has one row.
    """

    label_ids: Int64
    matrix: Float32
    first_pass: HalfPrecision | ApproximateSearch | None
    pooling: Pooling | None = None


def write_files(
    folder: Path,
    info: IndexInfo,
    label_ids: Int64,
    embeddings: Iterable[Float32],
    *,
    expected: str | None = None,
) -> IndexInfo:
    """Write the files of ``info.generation``, each atomically.

    Args:
        folder: created when missing.
        info: gives name, id, generation, kind and D; its checksum is ignored.
        label_ids: (R,) int64, the label of each row.
        embeddings: (n, D) float32 blocks of unit norm, R rows in all.
        expected: checksum that the content must have; None accepts any.

    Returns:
        ``info`` with the checksum of what was written.

    Raises:
        StoreError: when an embedding is not of norm 1, the checksum is not the expected one, or a
            file cannot be written.
    """
    info = write_matrix(folder, info, label_ids, embeddings, expected=expected)
    if info.kind != "flat":
        _, matrix = map_matrix(locate_file(folder, info), info)
        write = half_precision.write if info.kind == "float16" else approximate_search.write
        write(_first_pass_path(folder, info), info, matrix)
    return info


def open_files(folder: Path, info: IndexInfo) -> IndexFiles:
    """Map the files of an index.

    Raises:
        IndexFileError: when a file is missing, truncated, stale or belongs to another index; the
            message says which.
    """
    path = locate_file(folder, info)
    label_ids, matrix = map_matrix(path, info)
    pooling = None
    if info.name_pooling != "mean" and info.rows != info.labels:
        pooling = Pooling.of_rows(label_ids, info.name_pooling)
        if pooling.labels != info.labels:
            raise IndexFileError(f"index file {path} is damaged: it has {pooling.labels} labels")
        label_ids = label_ids[pooling.starts[:-1]]
        label_ids.setflags(write=False)
    first_pass: HalfPrecision | ApproximateSearch | None = None
    match info.kind:
        case "flat":
            pass
        case "float16":
            first_pass = half_precision.open_file(_first_pass_path(folder, info), info)
        case "hnsw" | "ivf":
            first_pass = approximate_search.open_file(_first_pass_path(folder, info), info, path)
    return IndexFiles(label_ids, matrix, first_pass, pooling)


def verify_files(folder: Path, info: IndexInfo) -> None:
    """Read the whole float32 matrix and compare it with the store's checksum.

    Half-precision embeddings are compared with the matrix. Graphs and inverted lists are opened
    only.

    Raises:
        IndexFileError: when a file is not exactly what was written.
    """
    files = open_files(folder, info)
    path = locate_file(folder, info)
    label_ids, matrix = map_matrix(path, info)
    if compute_checksum(label_ids, [matrix]) != info.checksum:
        raise IndexFileError(f"index file {path} is damaged: its checksum differs")
    if isinstance(files.first_pass, HalfPrecision):
        half_precision.verify(_first_pass_path(folder, info), files.first_pass, files.matrix)


def _first_pass_path(folder: Path, info: IndexInfo) -> Path:
    return locate_file(folder, info, info.kind)
