"""Approximate search through FAISS: a graph (``hnsw``) or inverted lists (``ivf``).

Neither gives similarities that are used: they find rows, which are looked at again in the float32
file. How thoroughly a search looks is raised when the file is written, until it finds 99.9 % of
what brute force finds for a sample of queries; what it came to is kept with the file.

No image is at hand at that time. A query of the sample is a label embedding mixed with a random
combination of others, to a similarity such as images have with their labels; search is much easier
for label embeddings themselves, and a figure for those would flatter.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from zsic_index.embedding_arrays import Float32, Int64
from zsic_index.errors import IndexFileError
from zsic_index.index_files import files
from zsic_index.records import IndexInfo
from zsic_index.scan.exact import scan

TARGET_RECALL = 0.999

SAMPLE_QUERIES = 256

RECALL_AT = 10

CANDIDATES = 256
"""Rows that are looked for, at least; the best of them, by their exact similarities, count."""

QUERY_SIMILARITY = 0.35
"""About what an image's similarity with its own label is in CLIP."""

_LINKS = 32
_EFFORT_OF_BUILDING = 80
_LARGEST_EFFORT = 2_048


@dataclass(frozen=True, slots=True)
class Approximate:
    """An open graph or open inverted lists.

    Attributes:
        effort: ``efSearch`` of a graph, ``nprobe`` of inverted lists.
        recall: share of the true best 10 that were among its candidates for the sample.
    """

    effort: int
    recall: float
    _index: Any
    _storage: Any
    """What owns the vectors of a graph."""

    def search(self, queries: Float32, count: int) -> Int64:
        """Return (B, count) int64 rows that are probably the nearest; -1 where none was found."""
        return _search(self._index, queries, count, self.effort)


def write(path: Path, info: IndexInfo, matrix: Float32) -> None:
    """Make the index of (N, D) float32 embeddings, find the effort it needs, and write it."""
    index = _graph(matrix) if info.kind == "hnsw" else _lists(matrix)
    effort, recall = _tune(index, matrix)
    flags = faiss.IO_FLAG_SKIP_STORAGE if info.kind == "hnsw" else 0
    with files.new_file(path.parent) as new:
        # FAISS's own annotations leave out the flags of files.
        write_index: Any = faiss.write_index
        write_index(index, str(new.path), flags)
        new.finish(path, info, effort=effort, measured=recall)


def open_file(path: Path, info: IndexInfo, flat_path: Path) -> Approximate:
    """Open the file, and map the vectors of a graph from ``flat_path``.

    Raises:
        IndexFileError: when it is not the one of ``info``.
    """
    trailer = files.read_trailer(path, info)
    try:
        flags = faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_SKIP_STORAGE
        index: Any = faiss.read_index(str(path), flags)
        storage = faiss.read_index(str(flat_path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise IndexFileError(f"index file {path} is damaged") from error
    if (index.ntotal, index.d) != (info.labels, info.dim):
        raise IndexFileError(f"index file {path} is not the one of index {info.name!r}")
    if info.kind == "hnsw":
        flat: Any = storage
        while hasattr(flat, "index"):
            flat = faiss.downcast_index(flat.index)
        index.storage = flat
        index.own_fields = False
    return Approximate(trailer.effort, trailer.measured, index, storage)


def _graph(matrix: Float32) -> faiss.IndexHNSWFlat:
    # It holds a copy of the vectors while it is built; the file has none.
    index = faiss.IndexHNSWFlat(matrix.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _EFFORT_OF_BUILDING
    index.add(matrix)
    return index


def _lists(matrix: Float32) -> faiss.IndexIVF:
    count, dim = matrix.shape
    # FAISS wants 39 vectors to learn a list from.
    number = max(1, min(int(4 * count**0.5), count // 39))
    quantizer: Any = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, dim, number, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    index.own_fields = True
    quantizer.this.disown()
    rng = np.random.default_rng(0)
    chosen = rng.choice(count, min(count, 64 * number), replace=False)
    index.train(matrix[np.sort(chosen)])
    index.add(matrix)
    return index


def _tune(index: Any, matrix: Float32) -> tuple[int, float]:
    """Double the effort until the target is reached; return it, and the recall it came to."""
    queries = sample_queries(matrix)
    truth = scan(matrix, queries, RECALL_AT, partition=False).rows
    count = min(CANDIDATES, len(matrix))
    is_graph = isinstance(index, faiss.IndexHNSW)
    effort, limit = (16, _LARGEST_EFFORT) if is_graph else (1, index.nlist)
    while True:
        recall = recall_of(_search(index, queries, count, effort), truth)
        if recall >= TARGET_RECALL or effort >= limit:
            break
        effort = min(2 * effort, limit)
    # Once more than the best ten need: a row that is missed further down has mass as well.
    effort = min(2 * effort, limit)
    return effort, recall_of(_search(index, queries, count, effort), truth)


def recall_of(found: Int64, truth: Int64) -> float:
    """Return the share of the (B, k) true rows that are among the (B, n) found ones."""
    hits = [np.isin(line, there).sum() for line, there in zip(truth, found, strict=True)]
    return float(np.sum(hits) / truth.size)


def sample_queries(matrix: Float32) -> Float32:
    """Return (SAMPLE_QUERIES, D) float32 unit-norm queries; see the module's docstring."""
    rng = np.random.default_rng(0)
    own = matrix[rng.integers(0, len(matrix), SAMPLE_QUERIES)]
    others = matrix[rng.integers(0, len(matrix), SAMPLE_QUERIES)]
    away = rng.standard_normal((SAMPLE_QUERIES, SAMPLE_QUERIES)) @ (others - others.mean(axis=0))
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-12)
    mixed = QUERY_SIMILARITY * own + (1 - QUERY_SIMILARITY**2) ** 0.5 * away
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), np.float32)


def _search(index: Any, queries: Float32, count: int, effort: int) -> Int64:
    # FAISS's own annotations do not know these names.
    library: Any = faiss
    if isinstance(index, faiss.IndexHNSW):
        parameters = library.SearchParametersHNSW(efSearch=max(effort, 2 * count))
    else:
        parameters = library.SearchParametersIVF(nprobe=effort)
    return np.asarray(index.search(queries, count, params=parameters)[1])
