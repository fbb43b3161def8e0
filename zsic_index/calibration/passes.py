"""Passes over all B x N similarities in blocks that fit into memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from zsic_index.embedding_arrays import Float32, Float64, Int64
from zsic_index.errors import EmbeddingError
from zsic_index.parallel import available_cores, one_blas_thread
from zsic_index.scan.pooling import Pooling

IMAGE_BATCH = 256
"""Images that a worker processes at a time."""

LABEL_BLOCK = 1_024
"""Labels per block: with IMAGE_BATCH images 1 MiB of similarities."""

Result = TypeVar("Result")


def map_slices(
    function: Callable[[slice], Result], total: int, size: int, threads: int | None
) -> list[Result]:
    """Call a function for each slice of ``size`` of 0 to ``total``, in threads.

    Returns:
        The results, in the order of the slices.
    """
    slices = [slice(start, min(start + size, total)) for start in range(0, total, size)]
    workers = max(1, min(threads or available_cores(), len(slices)))
    with (
        one_blas_thread(),
        ThreadPoolExecutor(workers, thread_name_prefix="zsic-calibrate") as pool,
    ):
        return list(pool.map(function, slices))


def row_blocks(
    matrix: Float32, queries: Float32, pooling: Pooling | None
) -> Iterator[tuple[int, int, Float32]]:
    """Yield first label, end (excluded) and (B, rows) similarities of each block of labels.

    The array is reused for the next block, and the caller may overwrite it.
    """
    if pooling is None:
        edges = [*range(0, len(matrix), LABEL_BLOCK), len(matrix)]
        starts: Int64 | range = range(len(matrix) + 1)
    else:
        edges = pooling.edges(0, pooling.labels, LABEL_BLOCK)
        starts = pooling.starts
    widest = LABEL_BLOCK if pooling is None else max(LABEL_BLOCK, pooling.most)
    buffer = np.empty((len(queries), widest), dtype=np.float32)
    for first, end in itertools.pairwise(edges):
        rows = matrix[starts[first] : starts[end]]
        block = buffer[:, : len(rows)]
        np.matmul(queries, rows.T, out=block)
        yield first, end, block


def similarity_blocks(
    matrix: Float32,
    queries: Float32,
    label_bias: Float32 | None,
    pooling: Pooling | None = None,
) -> Iterator[tuple[int, Float32]]:
    """Yield first label and (B, block) similarities, less the label bias, of each block of labels.

    Names are pooled by ``max``. The caller may overwrite the array.
    """
    for first, end, block in row_blocks(matrix, queries, pooling):
        if pooling is not None:
            block = pooling.pool(block, first, end)
        if label_bias is not None:
            block -= label_bias[first:end]
        yield first, block


def pair_similarities(
    matrix: Float32,
    queries: Float32,
    image: Int64,
    label: Int64,
    *,
    label_bias: Float32 | None = None,
    pooling: Pooling | None = None,
    scale: float = 1.0,
) -> Float64:
    """Return the (P,) float64 similarities of (image, label) pairs, less the label bias.

    Args:
        matrix: (N, D) float32 label embeddings, or with ``pooling`` a row for each name.
        queries: (B, D) float32 image embeddings.
        image: (P,) int64 image of each pair.
        label: (P,) int64 label of each pair.
        label_bias: (N,) float32; None for no bias.
        pooling: groups of rows that form one label; None if each row is a label.
        scale: multiplier of similarities; only used if names are pooled by ``mass``.
    """
    rows, of_row = label, image
    if pooling is not None:
        rows, of_row = pooling.rows_of(label), np.repeat(image, pooling.counts[label])
    similarities = np.empty(len(rows))
    for start in range(0, len(rows), 4_096):
        part = slice(start, start + 4_096)
        similarities[part] = np.einsum(
            "pd,pd->p", matrix[rows[part]].astype(np.float64), queries[of_row[part]]
        )
    if pooling is not None:
        similarities = pooling.take(label).similarities(similarities[None], scale)[0]
    return similarities if label_bias is None else similarities - label_bias[label]


def check_arrays(
    matrix: Float32,
    queries: Float32,
    label_bias: Float32 | None = None,
    pooling: Pooling | None = None,
) -> None:
    """Raise an EmbeddingError unless the shapes are (R, D), (B, D) and (N,), with N and B above 0.

    R is N, or with ``pooling`` its number of rows.
    """
    if matrix.ndim != 2 or queries.ndim != 2 or matrix.shape[1] != queries.shape[1]:
        raise EmbeddingError(
            f"label embeddings have shape {matrix.shape}, image embeddings {queries.shape}; "
            "give (N, D) and (B, D) of one model"
        )
    if not len(matrix) or not len(queries):
        raise EmbeddingError(
            f"{len(matrix)} labels and {len(queries)} images: give at least one of each"
        )
    if pooling is not None and pooling.starts[-1] != len(matrix):
        raise EmbeddingError(
            f"names are pooled from {pooling.starts[-1]:,} rows; there are {len(matrix):,}"
        )
    labels = len(matrix) if pooling is None else pooling.labels
    if label_bias is not None and label_bias.shape != (labels,):
        raise EmbeddingError(
            f"label_bias has shape {label_bias.shape}; give one number for each of "
            f"{labels:,} labels"
        )
