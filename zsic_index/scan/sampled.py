"""The log-partition where not every label is looked at: exact head, sampled tail, an interval.

A label set is split, for each query, into rows whose logits are known (the head that a search
found, and a uniform sample of all rows that is the same for every query) and the rest. The known
rows' mass is exact. The mean of the rest is estimated by that of the sampled rows outside the head,
and how far off it can be is bounded by Maurer and Pontil's empirical Bernstein inequality
(arXiv:0907.3740): unlike a normal approximation, it holds for the very skewed terms that a scale
of 100 makes. It takes terms to be bounded by the head's least one, which is the case when the head
is complete; a term of the sample that is larger raises the bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zsic_index.embedding_arrays import Float32, Float64, Int64

SAMPLE_ROWS = 1 << 16

CONFIDENCE = 0.95

_QUERIES = 64
"""Queries whose logits over the sample are held at a time."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows drawn uniformly, without replacement.

    Attributes:
        rows: (n,) int64, ascending.
        matrix: (n, D) float32, their embeddings, in memory.
        population: N, the number of rows that they were drawn from.
    """

    rows: Int64
    matrix: Float32
    population: int


@dataclass(frozen=True, slots=True)
class SampledPartition:
    """Estimates of log-partitions, (B,) float64 each.

    Attributes:
        log_partition: the estimate.
        low: it is not below this,
        high: nor above this, both with a confidence of CONFIDENCE.
    """

    log_partition: Float64
    low: Float64
    high: Float64


def draw(matrix: Float32, size: int = SAMPLE_ROWS, seed: int = 0) -> Sample:
    """Draw rows of an (N, D) float32 matrix; of one that has no more than ``size``, all."""
    count = len(matrix)
    if count <= size:
        return Sample(np.arange(count), np.asarray(matrix), count)
    rows = np.random.default_rng(seed).choice(count, size, replace=False)
    rows.sort()
    return Sample(rows, matrix[rows], count)


def estimate(
    sample: Sample, queries: Float32, head_rows: Int64, head_logits: Float64, logit_scale: float
) -> SampledPartition:
    """Estimate the log-partition of each query; no bias is in it.

    Args:
        sample: n rows.
        queries: (B, D) float32 unit-norm image embeddings.
        head_rows: (B, h) int64 rows that a search found, each once; -1 for none.
        head_logits: (B, h) float64 logits of these; -inf for none.
        logit_scale: multiplier of similarities, > 0.
    """
    found: list[tuple[float, float, float]] = []
    for start in range(0, len(queries), _QUERIES):
        some = slice(start, start + _QUERIES)
        logits = (queries[some] * np.float32(logit_scale)) @ sample.matrix.T
        found += map(
            lambda *of_one: _estimate_one(sample, *of_one),
            logits, head_rows[some], head_logits[some],
        )  # fmt: skip
    return SampledPartition(*np.array(found).reshape(-1, 3).T)


def _estimate_one(
    sample: Sample, logits: Float32, head_rows: Int64, head_logits: Float64
) -> tuple[float, float, float]:
    """Return the estimate and its bounds for one query."""
    present = head_rows >= 0
    head_rows, head_logits = head_rows[present], head_logits[present]
    outside = np.isin(sample.rows, head_rows, assume_unique=True, invert=True)
    tail = logits[outside].astype(np.float64)
    top = max(head_logits.max(initial=-np.inf), tail.max(initial=-np.inf))
    terms = np.exp(tail - top)
    known = np.exp(head_logits - top).sum() + terms.sum()
    unknown = sample.population - len(head_rows) - len(terms)
    if unknown <= 0 or len(terms) < 2:
        return (float(top + np.log(known)),) * 3
    mean = terms.mean()
    largest = max(np.exp(head_logits.min(initial=np.inf) - top), terms.max())
    logarithm = np.log(4 / (1 - CONFIDENCE))
    off = np.sqrt(2 * terms.var(ddof=1) * logarithm / len(terms))
    off += 7 * largest * logarithm / (3 * (len(terms) - 1))
    masses = known + unknown * np.array([mean, max(mean - off, 0.0), mean + off])
    estimate, low, high = top + np.log(masses)
    return float(estimate), float(low), float(high)
