"""Approximate search through FAISS: a graph (``hnsw``) or inverted lists (``ivf``).

Both only find candidate rows, which are scored again with the float32 matrix. When a file is
written, the search effort is raised until it finds 99.9 % of the rows that an exact scan finds for
a sample of queries. The effort and the recall that it reached are stored with the file.

No images are available at that time. A sample query is a label embedding mixed with a random
combination of others, so that its similarity is about that of an image with its label. Label
embeddings themselves are much easier to find and would overstate the recall.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from zsic_index.embedding_arrays import Float32, Int64
from zsic_index.errors import IndexFileError
from zsic_index.index_files.files import create_file, read_trailer
from zsic_index.records import IndexInfo
from zsic_index.scan.exact import scan

TARGET_RECALL = 0.999

SAMPLE_QUERIES = 256

RECALL_AT = 10

CANDIDATES = 256
"""Minimum number of candidate rows of a search; the best of them by exact similarity are used."""

QUERY_SIMILARITY = 0.35
"""Typical similarity of an image with its label in CLIP."""

_LINKS = 32
_BUILD_EFFORT = 80
_MAX_EFFORT = 2_048


@dataclass(frozen=True, slots=True)
class ApproximateSearch:
    """An open graph or open inverted lists.

    Attributes:
        effort: ``efSearch`` of a graph, ``nprobe`` of inverted lists.
        recall: share of the true best 10 rows that were among the candidates for the sample.
    """

    effort: int
    recall: float
    _index: Any
    _storage: Any
    """Owner of a graph's vectors, kept alive with it."""

    def search(self, queries: Float32, count: int) -> Int64:
        """Return (B, count) int64 rows that are probably the nearest; -1 for each missing one."""
        return _search(self._index, queries, count, self.effort)


def write(path: Path, info: IndexInfo, matrix: Float32) -> None:
    """Index (N, D) float32 embeddings, find the search effort that it needs, and write it."""
    index = _build_graph(matrix) if info.kind == "hnsw" else _build_lists(matrix)
    effort, recall = _tune_effort(index, matrix)
    flags = faiss.IO_FLAG_SKIP_STORAGE if info.kind == "hnsw" else 0
    with create_file(path.parent) as new:
        # FAISS's annotations lack the flags argument.
        write_index: Any = faiss.write_index
        write_index(index, str(new.path), flags)
        new.finish(path, info, effort=effort, measured=recall)


def open_file(path: Path, info: IndexInfo, matrix_path: Path) -> ApproximateSearch:
    """Open the file, and map the vectors of a graph from the matrix file.

    Raises:
        IndexFileError: when it is not the file of ``info``.
    """
    trailer = read_trailer(path, info)
    try:
        flags = faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_SKIP_STORAGE
        index: Any = faiss.read_index(str(path), flags)
        storage = faiss.read_index(str(matrix_path), faiss.IO_FLAG_MMAP_IFC)
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
    return ApproximateSearch(trailer.effort, trailer.measured, index, storage)


def _build_graph(matrix: Float32) -> faiss.IndexHNSWFlat:
    # It holds a copy of the vectors in memory, which is not written to the file.
    index = faiss.IndexHNSWFlat(matrix.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _BUILD_EFFORT
    index.add(matrix)
    return index


def _build_lists(matrix: Float32) -> faiss.IndexIVF:
    count, dim = matrix.shape
    # FAISS recommends at least 39 training vectors per list.
    list_count = max(1, min(int(4 * count**0.5), count // 39))
    quantizer: Any = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, dim, list_count, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    index.own_fields = True
    quantizer.this.disown()
    rng = np.random.default_rng(0)
    training = rng.choice(count, min(count, 64 * list_count), replace=False)
    index.train(matrix[np.sort(training)])
    index.add(matrix)
    return index


def _tune_effort(index: Any, matrix: Float32) -> tuple[int, float]:
    """Double the effort until the target recall is reached; return both."""
    queries = make_sample_queries(matrix)
    truth = scan(matrix, queries, RECALL_AT, partition=False).rows
    count = min(CANDIDATES, len(matrix))
    is_graph = isinstance(index, faiss.IndexHNSW)
    effort, limit = (16, _MAX_EFFORT) if is_graph else (1, index.nlist)
    while True:
        recall = compute_recall(_search(index, queries, count, effort), truth)
        if recall >= TARGET_RECALL or effort >= limit:
            break
        effort = min(2 * effort, limit)
    # Twice what the best 10 need: rows further down have probability mass as well.
    effort = min(2 * effort, limit)
    return effort, compute_recall(_search(index, queries, count, effort), truth)


def compute_recall(candidates: Int64, truth: Int64) -> float:
    """Return the share of the (B, k) true rows that are among the (B, n) candidates."""
    hits = [
        np.isin(true_rows, rows).sum() for true_rows, rows in zip(truth, candidates, strict=True)
    ]
    return float(np.sum(hits) / truth.size)


def make_sample_queries(matrix: Float32) -> Float32:
    """Return (SAMPLE_QUERIES, D) float32 unit-norm queries; see the module's docstring."""
    rng = np.random.default_rng(0)
    own = matrix[rng.integers(0, len(matrix), SAMPLE_QUERIES)]
    others = matrix[rng.integers(0, len(matrix), SAMPLE_QUERIES)]
    away = rng.standard_normal((SAMPLE_QUERIES, SAMPLE_QUERIES)) @ (others - others.mean(axis=0))
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-12)
    mixed = QUERY_SIMILARITY * own + (1 - QUERY_SIMILARITY**2) ** 0.5 * away
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), np.float32)


def _search(index: Any, queries: Float32, count: int, effort: int) -> Int64:
    # FAISS's annotations lack these classes.
    library: Any = faiss
    if isinstance(index, faiss.IndexHNSW):
        parameters = library.SearchParametersHNSW(efSearch=max(effort, 2 * count))
    else:
        parameters = library.SearchParametersIVF(nprobe=effort)
    return np.asarray(index.search(queries, count, params=parameters)[1])
