"""The exact scan: top-k and log-partition over all labels in one pass. Arrays in, arrays out.

The label matrix is cut into segments of a fixed size, which worker threads take one after the
other; within a segment it is walked in blocks, each a product with one BLAS thread whose (B, block)
logits stay in the core's cache while they are looked at. What is held at a time is one such block
per worker, whatever N is; nothing of size B x N exists.

Two things make the result independent of how the work was cut. The best rows are computed again in
float64, from the float32 numbers that the matrix holds, and a bound on the float32 products' error
proves that no other row can belong to them; where it does not, because too many rows are nearly
equal, those in question are all computed again. And the sums of exponentials are kept by segment
and added in the order of the segments, in float64; the best rows' terms, which carry most of the
mass, give way to their exact ones.
"""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from zsic_index.scoring import Float32, Float64, Int64, available_cores

QUERY_BATCH = 256
"""Queries per pass; more are taken in several passes so that a block keeps enough rows."""

SEGMENT_ROWS = 1 << 16
"""Rows that a worker takes at a time, and that sums are kept for."""

BLOCK_ELEMENTS = 1 << 17
"""Logits per block: 512 KiB of float32, which stay in a core's L2 cache."""

BLOCK_ROWS = 1 << 14
"""Rows per block at most."""

SPARE_CANDIDATES = 8
"""Rows kept beyond k, so that it can be told whether one that was not kept belongs to the best."""

_ROOM = 64
"""Candidates that a query takes in before it goes back to the best of them."""

_RISE = 2.0
"""How far a logit may be above the one that exponentials are taken relative to: near it, their
arguments are small numbers, which float32 holds well."""


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
    segment_rows: int = SEGMENT_ROWS,
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
        block_elements: (B, block) logits that a worker holds at a time.
        segment_rows: rows that a worker takes at a time.

    Returns:
        A Scan with k = min(top_k, N).
    """
    k = min(top_k, len(matrix))
    plan = _Plan(
        k=k,
        keep=min(k + SPARE_CANDIDATES, len(matrix)),
        scale=logit_scale,
        partition=partition,
        workers=threads or available_cores(),
        block_elements=block_elements,
        segment_rows=segment_rows,
    )
    # One BLAS thread per worker: the workers are the parallelism.
    with _threadpools().limit(limits=1, user_api="blas"):
        parts = [
            _scan_batch(matrix, queries[start : start + QUERY_BATCH], plan)
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


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a scan is to be done; see ``scan``. ``keep`` candidates are kept for k results."""

    k: int
    keep: int
    scale: float
    partition: bool
    workers: int
    block_elements: int
    segment_rows: int


@dataclass(frozen=True, slots=True)
class _Part:
    """The scan for one batch of queries; ``log_sums`` has no bias in it yet."""

    rows: Int64
    similarities: Float64
    log_sums: Float64


def _scan_batch(matrix: Float32, queries: Float32, plan: _Plan) -> _Part:
    starts = range(0, len(matrix), plan.segment_rows)
    workers = max(1, min(plan.workers, len(starts)))
    # The product with scaled queries is the logit, but for the bias.
    scaled = queries * np.float32(plan.scale)
    log_sums = np.zeros((len(starts), len(queries)))
    held = [_Candidates(len(queries), plan.keep) for _ in range(workers)]
    tickets, lock = itertools.count(), threading.Lock()

    def work(worker: int) -> None:
        block = min(max(64, plan.block_elements // len(queries)), BLOCK_ROWS)
        space = np.empty((len(queries), block), dtype=np.float32)
        while True:
            with lock:
                segment = next(tickets)
            if segment >= len(starts):
                return
            start = starts[segment]
            rows = range(start, min(start + plan.segment_rows, len(matrix)), block)
            log_sums[segment] = _scan_segment(matrix, rows, scaled, space, held[worker], plan)

    if workers == 1:
        work(0)
    else:
        with ThreadPoolExecutor(workers, thread_name_prefix="zsic-scan") as pool:
            list(pool.map(work, range(workers)))
    return _finish(matrix, queries, held, np.logaddexp.reduce(log_sums), plan)


def _scan_segment(
    matrix: Float32,
    blocks: range,
    scaled: Float32,
    space: Float32,
    candidates: _Candidates,
    plan: _Plan,
) -> Float64:
    """Scan one segment; return (B,) the logsumexp of its logits, zeros when it was not asked for.

    Args:
        matrix: the label matrix.
        blocks: the first row of each block; ``stop`` is the end of the segment.
        scaled: (B, D) queries times the scale.
        space: (B, block) for the logits.
        candidates: the worker's; those of this segment are added.
        plan: how.
    """
    base = np.full(len(scaled), -np.inf, dtype=np.float32)
    total = np.zeros(len(scaled))
    for first in blocks:
        last = min(first + blocks.step, blocks.stop)
        logits = space[:, : last - first]
        if len(scaled) == 1:
            np.matmul(matrix[first:last], scaled[0], out=logits[0])
        else:
            np.matmul(scaled, matrix[first:last].T, out=logits)
        peak = logits.max(axis=1)
        candidates.offer(logits, peak, first)
        if plan.partition:
            risen = peak > base + _RISE
            if risen.any():
                total[risen] *= np.exp((base - peak)[risen].astype(np.float64))
                base[risen] = peak[risen]
            # In place: the logits of this block are not needed any more.
            logits -= base[:, None]
            np.exp(logits, out=logits)
            total += logits.sum(axis=1)
    if not plan.partition:
        return total
    return np.asarray(np.log(total) + base.astype(np.float64))


class _Candidates:
    """The rows that may be among the best of each query, of those that one worker has seen.

    Attributes:
        values: (B, keep + _ROOM) float32 logits without bias, -inf where there is none.
        rows: the same shape, int64.
        floor: (B,) no row that was left out has a larger value.
    """

    def __init__(self, batch: int, keep: int) -> None:
        self._keep = keep
        self.values = np.full((batch, keep + _ROOM), -np.inf, dtype=np.float32)
        self.rows = np.full((batch, keep + _ROOM), -1, dtype=np.int64)
        self.floor = np.full(batch, -np.inf, dtype=np.float32)
        self._count = np.zeros(batch, dtype=np.int64)

    def offer(self, logits: Float32, peak: Float32, first: int) -> None:
        """Take in what may be among the best of a (B, n) block that begins at row ``first``."""
        hot = np.flatnonzero(peak > self.floor)
        if not len(hot):
            return
        entering = logits[hot] > self.floor[hot, None]
        number = entering.sum(axis=1)
        fits = self._count[hot] + number <= self.values.shape[1]
        self._append(logits, first, hot[fits], entering[fits], number[fits])
        for query in hot[~fits]:
            self._merge(query, logits[query], first)

    def _append(
        self, logits: Float32, first: int, hot: Int64, entering: np.ndarray, number: Int64
    ) -> None:
        at, column = np.nonzero(entering)
        query = hot[at]
        # The entries come query by query: each query's are numbered on from what it has.
        place = self._count[query] + np.arange(len(at)) - (np.cumsum(number) - number)[at]
        self.values[query, place] = logits[query, column]
        self.rows[query, place] = column + first
        self._count[hot] += number

    def _merge(self, query: int, logits: Float32, first: int) -> None:
        """Keep the best of what a query has and of one block."""
        count = self._count[query]
        entering = np.flatnonzero(logits > self.floor[query])
        values = np.concatenate([self.values[query, :count], logits[entering]])
        rows = np.concatenate([self.rows[query, :count], entering + first])
        best = np.argpartition(values, len(values) - self._keep)[len(values) - self._keep :]
        self.values[query, : self._keep] = values[best]
        self.rows[query, : self._keep] = rows[best]
        self.values[query, self._keep :] = -np.inf
        self.floor[query] = values[best].min()
        self._count[query] = self._keep


def _finish(
    matrix: Float32, queries: Float32, held: list[_Candidates], log_sums: Float64, plan: _Plan
) -> _Part:
    """Compute the candidates again, exactly, and prove that the best are among them."""
    values = np.concatenate([one.values for one in held], axis=1)
    rows = np.concatenate([one.rows for one in held], axis=1)
    order = np.argpartition(-values, plan.keep - 1, axis=1)
    kept = order[:, : plan.keep]
    left_out = np.take_along_axis(values, order[:, plan.keep :], axis=1)
    bound = np.max([one.floor for one in held], axis=0)
    bound = np.maximum(bound, left_out.max(axis=1, initial=-np.inf))
    kept_rows = np.take_along_axis(rows, kept, axis=1)
    coarse = np.take_along_axis(values, kept, axis=1).astype(np.float64)

    exact = np.stack(
        [_similarities(matrix, line, q) for line, q in zip(kept_rows, queries, strict=True)]
    )
    if plan.partition:
        # The candidates carry most of the mass: their float32 terms give way to the exact ones.
        gain = np.exp(plan.scale * exact - log_sums[:, None]) - np.exp(coarse - log_sums[:, None])
        log_sums = log_sums + np.log1p(gain.sum(axis=1))
    best = np.lexsort((kept_rows, -exact), axis=1)[:, : plan.k]
    best_rows = np.take_along_axis(kept_rows, best, axis=1)
    best_exact = np.take_along_axis(exact, best, axis=1)
    # A product of D float32 numbers in any order is off by no more, for vectors of norm 1.
    error = (matrix.shape[1] + 4) * 2.0**-24
    for query in np.flatnonzero(bound / plan.scale + error >= best_exact[:, -1]):
        least = best_exact[query, -1] - 2 * error
        best_rows[query], best_exact[query] = _settle(matrix, queries[query], least, plan)
    return _Part(best_rows, best_exact, log_sums)


def _settle(matrix: Float32, query: Float32, least: float, plan: _Plan) -> tuple[Int64, Float64]:
    """Return the k best rows of one query, of which none is below ``least``, and their values."""
    rows, exact = np.empty(0, dtype=np.int64), np.empty(0)
    for first in range(0, len(matrix), BLOCK_ROWS):
        coarse = matrix[first : first + BLOCK_ROWS] @ query
        near = np.flatnonzero(coarse >= least) + first
        if not len(near):
            continue
        rows = np.concatenate([rows, near])
        exact = np.concatenate([exact, _similarities(matrix, near, query)])
        best = np.lexsort((rows, -exact))[: plan.k]
        rows, exact = rows[best], exact[best]
    return rows, exact


def _similarities(matrix: Float32, rows: Int64, query: Float32) -> Float64:
    """Return the (n,) float64 inner products of some rows with one query.

    einsum, not BLAS: its result for a row does not depend on which rows stand beside it.
    """
    wide = query.astype(np.float64)
    found = np.empty(len(rows))
    for start in range(0, len(rows), 4_096):
        some = matrix[rows[start : start + 4_096]].astype(np.float64)
        np.einsum("nd,d->n", some, wide, out=found[start : start + 4_096])
    return found


@cache
def _threadpools() -> ThreadpoolController:
    """Look the loaded BLAS libraries up once; the search takes milliseconds."""
    return ThreadpoolController()
