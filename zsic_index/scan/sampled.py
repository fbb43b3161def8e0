"""Log-partition of an approximate index: exact head, sampled tail, and an interval.

For each query the rows are split into those whose logits are computed (the head that a search
returned, and a uniform sample of all rows that is the same for every query) and the rest. The mass
of the computed rows is exact. The mean of the rest is estimated by the mean of the sampled rows
outside the head; the error is bounded by the empirical Bernstein inequality of Maurer and Pontil
(arXiv:0907.3740), which unlike a normal approximation holds for the very skewed terms that a logit
scale of 100 makes. It assumes that no term is larger than the head's smallest, which is true when
the head is complete; a larger term in the sample raises the bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zsic_index.embedding_arrays import Float32, Float64, Int64

SAMPLE_ROWS = 1 << 16

CONFIDENCE = 0.95

_QUERIES = 64
"""Queries whose logits over the sample are computed at a time."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows drawn uniformly, without replacement.

    Attributes:
        rows: (n,) int64, ascending.
        matrix: (n, D) float32 embeddings of the rows, in memory.
        population: N, the number of rows that the sample was drawn from.
    """

    rows: Int64
    matrix: Float32
    population: int


@dataclass(frozen=True, slots=True)
class SampledPartition:
    """Estimates of log-partitions, (B,) float64 each.

    Attributes:
        log_partition: the estimate.
        low: lower end of the interval with confidence CONFIDENCE.
        high: upper end of the interval.
    """

    log_partition: Float64
    low: Float64
    high: Float64


def draw(matrix: Float32, size: int = SAMPLE_ROWS, seed: int = 0) -> Sample:
    """Draw ``size`` rows of an (N, D) float32 matrix, or all when it has no more."""
    count = len(matrix)
    if count <= size:
        return Sample(np.arange(count), np.asarray(matrix), count)
    rows = np.random.default_rng(seed).choice(count, size, replace=False)
    rows.sort()
    return Sample(rows, matrix[rows], count)


def estimate(
    sample: Sample, queries: Float32, head_rows: Int64, head_logits: Float64, logit_scale: float
) -> SampledPartition:
    """Estimate the log-partition of each query, without the logit bias.

    Args:
        sample: n rows.
        queries: (B, D) float32 unit-norm image embeddings.
        head_rows: (B, h) int64 rows that a search returned, each once; -1 for unused places.
        head_logits: (B, h) float64 logits of these rows; -inf for unused places.
        logit_scale: multiplier of similarities, > 0.
    """
    estimates: list[tuple[float, float, float]] = []
    for start in range(0, len(queries), _QUERIES):
        batch = slice(start, start + _QUERIES)
        logits = (queries[batch] * np.float32(logit_scale)) @ sample.matrix.T
        estimates += [
            _estimate_one(sample, *query)
            for query in zip(logits, head_rows[batch], head_logits[batch], strict=True)
        ]
    return SampledPartition(*np.array(estimates).reshape(-1, 3).T)


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
    computed_mass = np.exp(head_logits - top).sum() + terms.sum()
    remaining = sample.population - len(head_rows) - len(terms)
    if remaining <= 0 or len(terms) < 2:
        return (float(top + np.log(computed_mass)),) * 3
    mean = terms.mean()
    largest = max(np.exp(head_logits.min(initial=np.inf) - top), terms.max())
    logarithm = np.log(4 / (1 - CONFIDENCE))
    off = np.sqrt(2 * terms.var(ddof=1) * logarithm / len(terms))
    off += 7 * largest * logarithm / (3 * (len(terms) - 1))
    masses = computed_mass + remaining * np.array([mean, max(mean - off, 0.0), mean + off])
    estimate, low, high = top + np.log(masses)
    return float(estimate), float(low), float(high)
