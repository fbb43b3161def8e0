"""The exact scan: top-k and log-partition over all labels in one pass. Arrays only.

The label matrix is divided into segments of a fixed size, which worker threads take one after the
other. A segment is scanned in blocks, each one product on one thread, whose (B, block) logits stay
in the core's cache until they are reduced. Memory is one such block per worker, whatever N is;
nothing of size B x N is ever held.

The result does not depend on the division, for two reasons. First, every row whose float32 logit is
within the rounding error of the k-th best is a candidate; candidates are computed again in float64
from the float32 matrix and ordered by that. Second, sums of exponentials are kept per segment and
added in the order of the segments, in float64; the terms of candidates, which carry most of the
mass, are replaced by their exact values. So are those in the values of groups, for which more
candidates are collected; these values are kept per worker and depend on the division by about 1e-7.

A half-precision matrix is scanned the same way beside the float32 one: its rounding error is added
to the margin, and candidates are computed from the float32 matrix.

A label may have several rows, which a ``Pooling`` reduces to one logit, and a bias of its own. Both
are applied to a block's logits right after the product, while they are in the cache, so that all
later steps see labels only. A scan without them does no extra work.
"""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import numpy as np

from zsic_index.embedding_arrays import Float32, Float64
from zsic_index.parallel import available_cores, one_blas_thread
from zsic_index.scan.candidates import CandidateCollector, Candidates, settle
from zsic_index.scan.groups import Grouping, GroupValues
from zsic_index.scan.pooling import Pooling
from zsic_index.scan.spec import (
    VECTOR_BLOCK_ROWS,
    BatchResult,
    Float16,
    ScanResult,
    ScanSpec,
    join_batches,
)
from zsic_index.scan.sums import ExponentialSums

QUERY_BATCH = 256
"""Queries per pass; more are scanned in several passes, so that a block keeps enough rows."""

SEGMENT_ROWS = 1 << 16
"""Rows per segment: the unit of work, and of the sums."""

BLOCK_ELEMENTS = 1 << 17
"""Logits per block: 512 KiB of float32, which stay in a core's L2 cache."""

BLOCK_ROWS = 1 << 10
"""Most rows per block with several queries: larger blocks are no faster and leave the cache."""

GROUP_ELEMENTS = 1 << 23
"""Most queries times groups per pass: 64 MiB of float64 per worker."""

_VECDOT_QUERIES = 4
"""Most queries for which separate inner products beat a matrix product: they run at the speed of
memory, while OpenBLAS copies the matrix first."""

_QUERY_STEP = 4
"""Queries are padded to a multiple of this: OpenBLAS is half as fast on other numbers."""


def scan(
    matrix: Float32 | Float16,
    queries: Float32,
    top_k: int,
    *,
    exact: Float32 | None = None,
    rounding: float = 0.0,
    logit_scale: float = 1.0,
    logit_bias: float = 0.0,
    pooling: Pooling | None = None,
    label_bias: Float32 | None = None,
    partition: bool = True,
    grouping: Grouping | None = None,
    threads: int | None = None,
    block_elements: int = BLOCK_ELEMENTS,
    segment_rows: int = SEGMENT_ROWS,
) -> ScanResult:
    """Find the k best labels for each query and, in the same pass, the log-partition.

    Args:
        matrix: (N, D) float32 unit-norm label embeddings, or the same rounded to float16; may be
            memory-mapped. With ``pooling`` it has R rows.
        queries: (B, D) float32 unit-norm image embeddings.
        top_k: k, capped at N.
        exact: (N, D) float32 matrix that ``matrix`` was rounded from, which decides the top-k. The
            error of the log-partition is at most ``logit_scale * rounding``, and far smaller where
            the candidates carry most of the mass, because their terms are exact.
        rounding: largest norm of a row of ``exact - matrix``.
        logit_scale: multiplier of similarities, > 0.
        logit_bias: added to every logit.
        pooling: rows that are one label; None where each label has one row.
        label_bias: (N,) float32, subtracted from the similarities of each label; None for none.
        partition: compute the log-partition.
        grouping: groups of labels to reduce; reduction ``sum`` needs the partition.
        threads: number of workers; by default one per available core.
        block_elements: number of logits, B times the rows of a block, that a worker holds.
        segment_rows: rows per segment.

    Returns:
        A ScanResult with k = min(top_k, N).
    """
    spec = ScanSpec.of(
        matrix.shape,
        top_k,
        logit_scale,
        logit_bias,
        partition=partition,
        rounding=rounding,
        pooling=pooling,
        label_bias=label_bias,
        grouping=grouping,
    )
    batch = queries_per_pass(grouping)
    division = _Division(threads or available_cores(), block_elements, segment_rows)
    settled_by = matrix if exact is None else exact
    with one_blas_thread():
        results = [
            _scan_batch(matrix, settled_by, queries[start : start + batch], spec, division)
            for start in range(0, len(queries), batch)
        ]
    return join_batches(results, spec)


def queries_per_pass(grouping: Grouping | None) -> int:
    """Return the largest number of queries that one pass takes."""
    if grouping is None:
        return QUERY_BATCH
    return max(1, min(QUERY_BATCH, GROUP_ELEMENTS // grouping.count))


@dataclass(frozen=True, slots=True)
class _Division:
    """Division of the work among workers; see ``scan``."""

    workers: int
    block_elements: int
    segment_rows: int


def _scan_batch(
    matrix: Float32 | Float16,
    exact: Float32 | Float16,
    queries: Float32,
    spec: ScanSpec,
    division: _Division,
) -> BatchResult:
    segments = list(itertools.pairwise(spec.edges(0, spec.labels, division.segment_rows)))
    workers = max(1, min(division.workers, len(segments)))
    # The product with scaled queries is the logit without bias.
    scaled = _padded(queries * np.float32(spec.scale))
    log_sums = np.zeros((len(segments), len(queries)))
    margin = np.float32(spec.margin * spec.scale)
    collectors = [CandidateCollector(len(queries), spec.settled, margin) for _ in range(workers)]
    grouping = spec.grouping
    groups = [
        None if grouping is None else GroupValues.of(len(queries), grouping, spec.bias)
        for _ in range(workers)
    ]
    tickets, lock = itertools.count(), threading.Lock()

    def work(worker: int) -> None:
        own = collectors[worker]
        in_place = len(queries) == 1 and matrix.dtype == np.float32
        most = VECTOR_BLOCK_ROWS if in_place else BLOCK_ROWS
        block = min(max(64, division.block_elements // len(queries)), most)
        widest = max(block, spec.most_rows)
        space = np.empty((len(scaled), widest), dtype=np.float32)
        read = _reader(matrix, widest)
        while True:
            with lock:
                segment = next(tickets)
            if segment >= len(segments):
                return
            # The floor of any worker is a lower bound for all.
            for other in collectors:
                np.maximum(own.floor, other.floor, out=own.floor)
            blocks = spec.edges(*segments[segment], block)
            log_sums[segment] = _scan_segment(
                read, blocks, scaled, space, own, groups[worker], spec
            )

    if workers == 1:
        work(0)
    else:
        with ThreadPoolExecutor(workers, thread_name_prefix="zsic-scan") as pool:
            list(pool.map(work, range(workers)))
    candidates = Candidates(
        np.concatenate([collector.values for collector in collectors], axis=1),
        np.concatenate([collector.rows for collector in collectors], axis=1),
        np.isposinf(np.max([collector.floor for collector in collectors], axis=0)),
        np.logaddexp.reduce(log_sums),
        GroupValues.merged([values for values in groups if values is not None]),
    )
    return settle(exact, queries, candidates, spec)


def _reader(matrix: Float32 | Float16, block: int) -> Callable[[int, int], Float32]:
    """Return a function that returns float32 rows ``first`` to ``last``, at most ``block`` of them.

    Half-precision rows are converted into one buffer, by torch: NumPy takes twelve times as long.
    """
    if matrix.dtype == np.float32:
        full = cast("Float32", matrix)
        return lambda first, last: full[first:last]
    import torch

    space = np.empty((block, matrix.shape[1]), dtype=np.float32)
    # torch warns about read-only arrays; this one is only read.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        halves = torch.from_numpy(matrix)
    floats = torch.from_numpy(space)

    def read(first: int, last: int) -> Float32:
        floats[: last - first].copy_(halves[first:last])
        return space[: last - first]

    return read


def _scan_segment(
    read: Callable[[int, int], Float32],
    blocks: Sequence[int],
    scaled: Float32,
    space: Float32,
    candidates: CandidateCollector,
    groups: GroupValues | None,
    spec: ScanSpec,
) -> Float64:
    """Scan one segment; return the (B,) logsumexp of its logits, zeros when it is not requested.

    Args:
        read: returns rows of the label matrix.
        blocks: first label of each block, then the end of the segment.
        scaled: (P, D) queries times the scale, padded.
        space: (P, block) buffer for the logits.
        candidates: the worker's candidates, to which those of this segment are added.
        groups: the worker's group values, to which those of this segment are added.
        spec: the scan to do.
    """
    sums = ExponentialSums(candidates.batch)
    for first, last in itertools.pairwise(blocks):
        start, end = spec.rows(first, last)
        logits = space[:, : end - start]
        if len(scaled) <= _VECDOT_QUERIES:
            np.vecdot(read(start, end)[None], scaled[:, None], out=logits)
        else:
            np.matmul(scaled, read(start, end).T, out=logits)
        logits = spec.pool_rows(logits[: candidates.batch], first, last)
        peak = logits.max(axis=1)
        candidates.offer(logits, peak, first)
        if groups is not None and not groups.takes_exponentials:
            groups.add(logits, first)
        if spec.partition:
            sums.add(logits, peak)
        if groups is not None and groups.takes_exponentials:
            groups.add(logits, first, sums.relative_to)
    return sums.log() if spec.partition else np.zeros(candidates.batch)


def _padded(queries: Float32) -> Float32:
    """Return the queries padded with rows of zeros to (P, D)."""
    extra = -len(queries) % _QUERY_STEP if len(queries) > _VECDOT_QUERIES else 0
    return np.pad(queries, ((0, extra), (0, 0)))
