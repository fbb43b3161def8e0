"""Walking all B x N similarities in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from zsic_index.errors import EmbeddingError
from zsic_index.scoring import Float32, Float64, Int64, available_cores, one_blas_thread

IMAGE_BATCH = 256
"""Images that a worker takes at a time."""

LABEL_BLOCK = 1_024
"""Labels per block: with IMAGE_BATCH images 1 MiB of similarities."""

Result = TypeVar("Result")


def in_batches(
    total: int, size: int, work: Callable[[slice], Result], threads: int | None
) -> list[Result]:
    """Do ``work`` for each slice of ``size`` of ``total`` things, in threads; results in order."""
    slices = [slice(start, min(start + size, total)) for start in range(0, total, size)]
    workers = max(1, min(threads or available_cores(), len(slices)))
    with (
        one_blas_thread(),
        ThreadPoolExecutor(workers, thread_name_prefix="zsic-calibrate") as pool,
    ):
        return list(pool.map(work, slices))


def similarity_blocks(
    matrix: Float32, queries: Float32, label_bias: Float32 | None
) -> Iterator[tuple[int, Float32]]:
    """Yield the first row and the (B, block) similarities of each block of labels.

    The array is the same one each time; a caller may overwrite it.
    """
    space = np.empty((len(queries), LABEL_BLOCK), dtype=np.float32)
    for first in range(0, len(matrix), LABEL_BLOCK):
        rows = matrix[first : first + LABEL_BLOCK]
        block = space[:, : len(rows)]
        np.matmul(queries, rows.T, out=block)
        if label_bias is not None:
            block -= label_bias[first : first + LABEL_BLOCK]
        yield first, block


def pair_similarities(
    matrix: Float32, queries: Float32, image: Int64, label: Int64, label_bias: Float32 | None
) -> Float64:
    """Return the (P,) float64 similarities of pairs, less the label's bias."""
    found = np.empty(len(image))
    for start in range(0, len(image), 4_096):
        part = slice(start, start + 4_096)
        found[part] = np.einsum(
            "pd,pd->p", matrix[label[part]].astype(np.float64), queries[image[part]]
        )
    return found if label_bias is None else found - label_bias[label]


def check_arrays(matrix: Float32, queries: Float32, label_bias: Float32 | None = None) -> None:
    """Raise an EmbeddingError unless the shapes are (N, D), (B, D) and (N,), N and B above 0."""
    if matrix.ndim != 2 or queries.ndim != 2 or matrix.shape[1] != queries.shape[1]:
        raise EmbeddingError(
            f"label embeddings have shape {matrix.shape}, image embeddings {queries.shape}; "
            "give (N, D) and (B, D) of one model"
        )
    if not len(matrix) or not len(queries):
        raise EmbeddingError(
            f"{len(matrix)} labels and {len(queries)} images: give at least one of each"
        )
    if label_bias is not None and label_bias.shape != matrix.shape[:1]:
        raise EmbeddingError(
            f"label_bias has shape {label_bias.shape}; give one number for each of "
            f"{len(matrix):,} labels"
        )
