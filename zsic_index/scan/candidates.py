"""Candidates for the best rows of each query, and their exact order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from zsic_index.embedding_arrays import Bool, Float32, Float64, Int64
from zsic_index.scan.probabilities import log_sum_exp
from zsic_index.scan.spec import VECTOR_BLOCK_ROWS, BatchResult, Float16, ScanSpec

_ROOM = 64
"""Candidates beyond k that a query collects before those below the floor are dropped."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidates of one pass for a batch of queries.

    Attributes:
        values: (B, m) float32 logits without the logit bias, -inf for unused places; m is at least
            ``ScanSpec.settled``.
        rows: (B, m) int64 rows of the values, as in ``ScanResult``.
        overflowed: (B,) True where more candidates are within the margin than were collected.
        log_sums: (B,) float64 logsumexp of all logits without the logit bias.
        groups: (B, G) float64 probabilities of groups; None without a grouping.
    """

    values: Float32
    rows: Int64
    overflowed: Bool
    log_sums: Float64
    groups: Float64 | None = None


class CandidateCollector:
    """Collector of the rows, among those that one worker scans, that may be among the best.

    Attributes:
        batch: B, the number of queries.
        values: (B, k + room) float32 logits without bias, -inf for unused places.
        rows: (B, k + room) int64 rows of the values.
        floor: (B,) float32 logit below which nothing is a candidate; inf once there are too many.
    """

    def __init__(self, batch: int, k: int, margin: np.float32) -> None:
        self.batch = batch
        self._k = k
        self._margin = margin
        self.values = np.full((batch, k + _ROOM), -np.inf, dtype=np.float32)
        self.rows = np.full((batch, k + _ROOM), -1, dtype=np.int64)
        self.floor = np.full(batch, -np.inf, dtype=np.float32)
        self._count = np.zeros(batch, dtype=np.int64)

    def offer(self, logits: Float32, peak: Float32, first: int) -> None:
        """Collect the candidates of a (B, n) block of logits that begins at row ``first``."""
        active = np.flatnonzero(peak >= self.floor)
        if not len(active):
            return
        entering = logits[active] >= self.floor[active, None]
        number = entering.sum(axis=1)
        fits = self._count[active] + number <= self.values.shape[1]
        if fits.any():
            self._append(logits, first, active[fits], entering[fits], number[fits])
        for query in active[~fits]:
            self._merge(query, logits[query], first)

    def _append(
        self, logits: Float32, first: int, active: Int64, entering: Bool, number: Int64
    ) -> None:
        at, column = np.nonzero(entering)
        query = active[at]
        # Entries are ordered by query; each query's are placed behind those it already has.
        place = self._count[query] + np.arange(len(at)) - (np.cumsum(number) - number)[at]
        self.values[query, place] = logits[query, column]
        self.rows[query, place] = column + first
        self._count[active] += number

    def _merge(self, query: int, logits: Float32, first: int) -> None:
        """Merge one block into a query's candidates and drop those below the new floor."""
        count = self._count[query]
        entering = np.flatnonzero(logits >= self.floor[query])
        values = np.concatenate([self.values[query, :count], logits[entering]])
        rows = np.concatenate([self.rows[query, :count], entering + first])
        if len(values) > self._k:
            least = np.partition(values, len(values) - self._k)[len(values) - self._k]
            self.floor[query] = max(self.floor[query], least - self._margin)
        kept = np.flatnonzero(values >= self.floor[query])
        if len(kept) > self.values.shape[1]:
            # Too many are nearly equal: this query is scanned again, exactly, at the end.
            kept = kept[:0]
            self.floor[query] = np.inf
        self.values[query] = -np.inf
        self.values[query, : len(kept)] = values[kept]
        self.rows[query, : len(kept)] = rows[kept]
        self._count[query] = len(kept)


def settle(
    matrix: Float32 | Float16, queries: Float32, candidates: Candidates, spec: ScanSpec
) -> BatchResult:
    """Compute candidates again in float64 from the (N, D) matrix, and order them.

    Their terms in the log-partition, and in the values of groups, are replaced by the exact ones.
    """
    log_sums = candidates.log_sums.copy()
    groups = None if candidates.groups is None else candidates.groups.copy()
    best_rows = np.empty((len(queries), spec.k), dtype=np.int64)
    best = np.empty((len(queries), spec.k))
    for query, (line, line_rows) in enumerate(zip(candidates.values, candidates.rows, strict=True)):
        if candidates.overflowed[query]:
            best_rows[query], log_sums[query] = _scan_exactly(matrix, queries[query], spec)
            best[query] = spec.similarities(matrix, best_rows[query], queries[query])
            continue
        least = np.partition(line, len(line) - spec.settled)[len(line) - spec.settled]
        kept = np.flatnonzero(line >= least - np.float32(spec.margin * spec.scale))
        rows = line_rows[kept]
        similarities = spec.similarities(matrix, rows, queries[query])
        exact = spec.subtract_bias(similarities, rows)
        order = np.lexsort((rows, -exact))[: spec.k]
        best_rows[query], best[query] = rows[order], similarities[order]
        # Summed in row order, so that the result does not depend on the workers.
        order = np.argsort(rows)
        logits, rough = spec.scale * exact[order], line[kept][order].astype(np.float64)
        if groups is not None and spec.grouping is not None:
            relative_to = log_sums[query] if spec.grouping.reduction == "sum" else -spec.bias
            spec.grouping.settle(
                groups[query], rows[order], rough - relative_to, logits - relative_to
            )
        if spec.partition:
            terms = np.exp(logits - log_sums[query])
            terms -= np.exp(rough - log_sums[query])
            log_sums[query] += np.log1p(terms.sum())
    return BatchResult(best_rows, best, log_sums, groups)


def _scan_exactly(matrix: Float32 | Float16, query: Float32, spec: ScanSpec) -> tuple[Int64, float]:
    """Scan for one query with more nearly equal labels than a collector can hold.

    Each label that is not clearly worse than the k-th best so far is computed exactly, at once.

    Returns:
        (k,) labels, best first, and the logsumexp of all logits without the logit bias.
    """
    labels, exact = np.empty(0, dtype=np.int64), np.empty(0)
    log_sum = -np.inf
    for first, last in itertools.pairwise(spec.edges(0, spec.labels, VECTOR_BLOCK_ROWS)):
        start, end = spec.rows(first, last)
        block = matrix[start:end].astype(np.float32, copy=False)
        values = spec.scale * (block @ query).astype(np.float64)
        values = spec.pool_rows(values[None], first, last)[0] / spec.scale
        least = exact[-1] - spec.margin if len(exact) == spec.k else -np.inf
        near = np.flatnonzero(values >= least)
        here = near + first
        values[near] = spec.subtract_bias(spec.similarities(matrix, here, query), here)
        log_sum = float(np.logaddexp(log_sum, log_sum_exp(values * spec.scale)))
        labels = np.concatenate([labels, here])
        exact = np.concatenate([exact, values[near]])
        best = np.lexsort((labels, -exact))[: spec.k]
        labels, exact = labels[best], exact[best]
    return labels, log_sum
