"""The exact scan: top-k and log-partition over all labels in one pass. Arrays in, arrays out.

The label matrix is walked in blocks by worker threads that each own a range of rows and use one
BLAS thread. What is held at a time is one (B, block) array of similarities per worker, whatever N
is; nothing of size B x N exists. Similarities are float32 products, as in the reference; the sums
of exponentials are accumulated in float64. The best rows are re-scored in float64, in the result
and in the sum, so that neither depends on how the matrix was cut into blocks or the queries into
batches.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from zsic_index.errors import EmbeddingError
from zsic_index.records import Activation

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

BLOCK_ELEMENTS = 1 << 18
"""Similarities per worker and block: 1 MiB of float32, which stays in a core's L2 cache."""

QUERY_BATCH = 256
"""Queries per pass; more are taken in several passes so that a block keeps enough rows."""

_UNIT_TOLERANCE = 2.0**-23
"""How far rounding D numbers to float32 can move a norm of 1, with room to spare."""

SPARE_CANDIDATES = 8
"""Rows kept beyond k: float64 re-scoring may swap what float32 could not tell apart."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass over the label matrix found.

    Attributes:
        rows: (B, k) int64, best first; ties go to the lower row.
        similarities: (B, k) float64, inner products of the same rows.
        log_partition: (B,) float64, logsumexp of all N logits; None when it was not asked for.
    """

    rows: Int64
    similarities: Float64
    log_partition: Float64 | None


def check_embeddings(embeddings: npt.ArrayLike, dim: int | None = None) -> Float32:
    """Return (B, D) C-contiguous float32 unit-norm embeddings, or say what is wrong with them.

    A (D,) array is taken as one embedding. Rows are normalised in float64; one whose norm is 1 as
    far as float32 can tell stays as it is, so that checking twice changes nothing.

    Raises:
        EmbeddingError: for another shape or dtype, NaN, infinity, or a norm of about 0.
    """
    array = np.asarray(embeddings)
    if array.dtype.kind != "f":
        raise EmbeddingError(f"embeddings have dtype {array.dtype}; give floating-point ones")
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise EmbeddingError(f"embeddings have shape {array.shape}; give (B, D)")
    if dim is not None and array.shape[1] != dim:
        raise EmbeddingError(
            f"embeddings have {array.shape[1]} dimensions; this index has {dim}: "
            "use the model that the index was built with"
        )
    # Rows are taken a block at a time so that the float64 copy stays small.
    unit = np.empty(array.shape, dtype=np.float32)
    for start in range(0, len(array), 65_536):
        block = np.asarray(array[start : start + 65_536], dtype=np.float64)
        norms = np.linalg.norm(block, axis=1, keepdims=True)
        bad = np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] < 1e-6))
        if len(bad):
            raise EmbeddingError(
                f"embedding {start + int(bad[0])} has norm {float(norms[bad[0], 0]):g}; "
                "it must be finite and not 0"
            )
        norms[np.abs(norms - 1) <= _UNIT_TOLERANCE] = 1
        unit[start : start + 65_536] = block / norms
    return unit


def scan(
    matrix: Float32,
    queries: Float32,
    top_k: int,
    *,
    logit_scale: float = 1.0,
    logit_bias: float = 0.0,
    partition: bool = True,
    threads: int | None = None,
    block_elements: int = BLOCK_ELEMENTS,
) -> Scan:
    """Find the k best rows for each query and, in the same pass, the log-partition.

    Args:
        matrix: (N, D) float32 unit-norm label embeddings; may be memory-mapped.
        queries: (B, D) float32 unit-norm image embeddings.
        top_k: k; more than N is taken as N.
        logit_scale: multiplier of similarities, > 0.
        logit_bias: added to every logit.
        partition: whether to compute the log-partition.
        threads: workers; by default one per available core.
        block_elements: (B, block) similarities that a worker holds at a time.

    Returns:
        A Scan with k = min(top_k, N).
    """
    workers = threads or available_cores()
    k = min(top_k, len(matrix))
    parts = [
        _scan_batch(
            matrix,
            queries[start : start + QUERY_BATCH],
            k,
            logit_scale if partition else None,
            workers,
            block_elements,
        )
        for start in range(0, len(queries), QUERY_BATCH)
    ]
    if not parts:
        empty = np.empty((0, k))
        return Scan(empty.astype(np.int64), empty, np.empty(0) if partition else None)
    return Scan(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.similarities for part in parts]),
        np.concatenate([part.log_sums for part in parts]) + logit_bias if partition else None,
    )


def similarities(matrix: Float32, queries: Float32) -> Float32:
    """Return all (B, N) similarities: for small N only."""
    return queries @ matrix.T


def activate(logits: Float64, activation: Activation, log_partition: Float64 | None) -> Float64:
    """Turn (B, k) logits into probabilities of the same shape.

    Args:
        logits: float64 logits.
        activation: ``softmax`` needs the (B,) log-partition over the whole label set; ``sigmoid``
            looks at each logit alone.
        log_partition: see above; ignored for ``sigmoid``.
    """
    if activation == "softmax":
        assert log_partition is not None, "softmax is taken over all labels, never over the top-k"
        # Rounding can put the only label's logit an ulp over the log-partition.
        return np.minimum(np.exp(logits - log_partition[:, None]), 1.0)
    # 1 / (1 + exp(-x)), written so that neither tail overflows.
    return np.exp(-np.logaddexp(0.0, -logits))


def log_sum_exp(logits: Float64) -> Float64:
    """Return logsumexp over the last axis of (B, N) logits as (B,) float64."""
    top = logits.max(axis=-1)
    return np.asarray(top + np.log(np.exp(logits - top[..., None]).sum(axis=-1)))


def available_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class _Part:
    """The scan of some rows for one batch of queries; ``log_sums`` has no bias in it yet."""

    rows: Int64
    similarities: Float64
    log_sums: Float64


def _scan_batch(
    matrix: Float32,
    queries: Float32,
    k: int,
    scale: float | None,
    workers: int,
    block_elements: int,
) -> _Part:
    count = len(matrix)
    block = max(64, block_elements // len(queries))
    workers = max(1, min(workers, count // block))
    bounds = [count * worker // workers for worker in range(workers + 1)]
    keep = min(k + SPARE_CANDIDATES, count)

    def work(worker: int) -> _Part:
        return _scan_rows(matrix, bounds[worker], bounds[worker + 1], queries, keep, scale, block)

    # One BLAS thread per worker: the workers are the parallelism.
    with _threadpools().limit(limits=1, user_api="blas"):
        if workers == 1:
            parts = [work(0)]
        else:
            with ThreadPoolExecutor(workers, thread_name_prefix="zsic-scan") as pool:
                parts = list(pool.map(work, range(workers)))
    rows = np.concatenate([part.rows for part in parts], axis=1)
    coarse = np.concatenate([part.similarities for part in parts], axis=1)
    log_sums = np.logaddexp.reduce([part.log_sums for part in parts])
    exact = _exact_similarities(matrix, queries, rows)
    if scale is not None:
        # The candidates carry most of the mass: their float32 terms give way to the exact ones.
        gain = np.exp(scale * exact - log_sums[:, None]) - np.exp(
            scale * coarse - log_sums[:, None]
        )
        log_sums = log_sums + np.log1p(gain.sum(axis=1))
    order = np.lexsort((rows, -exact), axis=1)[:, :k]
    return _Part(
        np.take_along_axis(rows, order, axis=1), np.take_along_axis(exact, order, axis=1), log_sums
    )


def _scan_rows(
    matrix: Float32,
    start: int,
    stop: int,
    queries: Float32,
    keep: int,
    scale: float | None,
    block: int,
) -> _Part:
    """Scan rows ``start`` to ``stop``; ``keep`` candidates per query are returned unordered."""
    batch = len(queries)
    held = np.empty((batch, block), dtype=np.float32)
    best_rows = np.zeros((batch, 0), dtype=np.int64)
    best = np.zeros((batch, 0), dtype=np.float32)
    floor = np.full(batch, -np.inf, dtype=np.float32)
    peak = np.full(batch, -np.inf, dtype=np.float32)
    total = np.zeros(batch, dtype=np.float64)
    for first in range(start, stop, block):
        last = min(first + block, stop)
        values = held[:, : last - first]
        if batch == 1:
            np.matmul(matrix[first:last], queries[0], out=values[0])
        else:
            values = np.matmul(queries, matrix[first:last].T, out=values)
        block_peak = values.max(axis=1)
        if best.shape[1] < keep:
            candidates = np.concatenate([best, values], axis=1)
            candidate_rows = np.concatenate(
                [best_rows, np.broadcast_to(np.arange(first, last), values.shape)], axis=1
            )
            best, best_rows = _largest(candidates, candidate_rows, keep)
        else:
            for query in np.flatnonzero(block_peak > floor):
                entering = np.flatnonzero(values[query] > floor[query])
                merged, merged_rows = _largest(
                    np.concatenate([best[query], values[query, entering]])[None],
                    np.concatenate([best_rows[query], entering + first])[None],
                    keep,
                )
                best[query], best_rows[query] = merged[0], merged_rows[0]
        if best.shape[1] == keep:
            floor = best.min(axis=1)
        if scale is not None:
            # In place: the similarities of this block are not needed any more.
            new_peak = np.maximum(peak, block_peak)
            total *= np.exp(scale * (peak - new_peak).astype(np.float64))
            values -= new_peak[:, None]
            values *= np.float32(scale)
            np.exp(values, out=values)
            total += values.sum(axis=1, dtype=np.float64)
            peak = new_peak
    log_sums = np.zeros(batch) if scale is None else np.log(total) + scale * peak.astype(np.float64)
    return _Part(best_rows, best.astype(np.float64), log_sums)


def _largest(values: Float32, rows: Int64, keep: int) -> tuple[Float32, Int64]:
    """Keep the largest values of each line; among equal ones those of the lowest rows."""
    if values.shape[1] <= keep:
        return values, rows
    kept = np.empty((len(values), keep), dtype=np.int64)
    for line, entries in enumerate(values):
        floor = np.partition(entries, -keep)[-keep]
        above = np.flatnonzero(entries > floor)
        level = np.flatnonzero(entries == floor)
        if len(level) > keep - len(above):
            level = level[np.argsort(rows[line, level], kind="stable")]
        kept[line] = np.concatenate([above, level[: keep - len(above)]])
    return np.take_along_axis(values, kept, axis=1), np.take_along_axis(rows, kept, axis=1)


def _exact_similarities(matrix: Float32, queries: Float32, rows: Int64) -> Float64:
    """Return the (B, c) float64 similarities of (B, c) rows.

    einsum, not BLAS: its result for a row does not depend on which rows stand beside it.
    """
    return np.stack(
        [
            np.einsum("nd,d->n", matrix[line].astype(np.float64), query.astype(np.float64))
            for line, query in zip(rows, queries, strict=True)
        ]
    )


@cache
def _threadpools() -> ThreadpoolController:
    """Look the loaded BLAS libraries up once; the search takes milliseconds."""
    return ThreadpoolController()
