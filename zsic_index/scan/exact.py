"""The exact scan: top-k and log-partition over all labels in one pass. Arrays in, arrays out.

The label matrix is cut into segments of a fixed size, which worker threads take one after the
other; within a segment it is walked in blocks, each a product on one thread whose (B, block)
logits stay in the core's cache while they are looked at. What is held at a time is one such block
per worker, whatever N is; nothing of size B x N exists.

Two things make the result independent of how the work was cut. Every row that is as good as the
k-th best, but for what a float32 product can be off by, is a candidate; candidates are computed
again in float64, from the float32 numbers that the matrix holds, and ordered by that. And the sums
of exponentials are kept by segment and added in the order of the segments, in float64; the
candidates' terms, which carry most of the mass, give way to their exact ones.

The same holds for a matrix in half precision beside the float32 one: what rounding can have done
is added to what a row can be off by, and candidates are looked at in float32.

A label may have several rows, which a ``Pooling`` makes one logit of, and a bias of its own. Both
are applied to a block's logits while they are in the cache, right after the product: whatever comes
then knows labels alone, and a scan without them does nothing more.
"""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from zsic_index.embedding_arrays import Float32, Float64
from zsic_index.parallel import available_cores, one_blas_thread
from zsic_index.scan.candidates import CandidateCollector, Candidates, finish
from zsic_index.scan.goal import VECTOR_BLOCK_ROWS, Float16, Goal, Part, Scan, joined
from zsic_index.scan.groups import Grouping, GroupValues
from zsic_index.scan.pooling import Pooling
from zsic_index.scan.sums import ExponentialSums

QUERY_BATCH = 256
"""Queries per pass; more are taken in several passes so that a block keeps enough rows."""

SEGMENT_ROWS = 1 << 16
"""Rows that a worker takes at a time, and that sums are kept for."""

BLOCK_ELEMENTS = 1 << 17
"""Logits per block: 512 KiB of float32, which stay in a core's L2 cache."""

BLOCK_ROWS = 1 << 10
"""Rows per block at most, where there are several queries: more of them stream no faster through
the product, and leave the cache."""

GROUP_ELEMENTS = 1 << 23
"""Queries times groups per pass, at most: 64 MiB of float64 for each worker."""

_FEW = 4
"""Up to so many queries, inner products one by one are faster than a matrix product: they run at
the speed of memory, while OpenBLAS copies the matrix first."""

_QUERY_STEP = 4
"""Products are made for a multiple of so many queries: OpenBLAS is half as fast on others."""


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
) -> Scan:
    """Find the k best labels for each query and, in the same pass, the log-partition.

    Args:
        matrix: (N, D) float32 unit-norm label embeddings, or the same rounded to float16; may be
            memory-mapped. With ``pooling`` it has R rows.
        queries: (B, D) float32 unit-norm image embeddings.
        top_k: k; more than N is taken as N.
        exact: (N, D) float32, what was rounded. The top-k is that of these; the log-partition is
            off by no more than ``logit_scale * rounding``, and by far less where the candidates
            carry most of the mass, because theirs is exact.
        rounding: the largest norm of a row of (exact - matrix).
        logit_scale: multiplier of similarities, > 0.
        logit_bias: added to every logit.
        pooling: which rows are one label; None where each is.
        label_bias: (N,) float32, taken from the similarities of each label; None for nothing.
        partition: whether to compute the log-partition.
        grouping: groups of labels to keep numbers for; ``sum`` needs the partition.
        threads: workers; by default one per available core.
        block_elements: (B, block) logits that a worker holds at a time.
        segment_rows: rows that a worker takes at a time.

    Returns:
        A Scan with k = min(top_k, N).
    """
    goal = Goal.of(
        matrix.shape,
        top_k,
        logit_scale,
        partition=partition,
        rounding=rounding,
        pooling=pooling,
        label_bias=label_bias,
    )
    batch = QUERY_BATCH
    if grouping is not None:
        batch = max(1, min(batch, GROUP_ELEMENTS // grouping.count))
    held = None if grouping is None else (grouping, logit_bias)
    cut = _Cut(threads or available_cores(), block_elements, segment_rows)
    settled_by = matrix if exact is None else exact
    with one_blas_thread():
        parts = [
            _scan_batch(matrix, settled_by, queries[start : start + batch], goal, cut, held)
            for start in range(0, len(queries), batch)
        ]
    return joined(parts, goal, logit_bias)


@dataclass(frozen=True, slots=True)
class _Cut:
    """How the work is cut; see ``scan``."""

    workers: int
    block_elements: int
    segment_rows: int


def _scan_batch(
    matrix: Float32 | Float16,
    exact: Float32 | Float16,
    queries: Float32,
    goal: Goal,
    cut: _Cut,
    grouped: tuple[Grouping, float] | None,
) -> Part:
    segments = list(itertools.pairwise(goal.edges(0, goal.labels, cut.segment_rows)))
    workers = max(1, min(cut.workers, len(segments)))
    # The product with scaled queries is the logit, but for the bias.
    scaled = _padded(queries * np.float32(goal.scale))
    log_sums = np.zeros((len(segments), len(queries)))
    margin = np.float32(goal.margin * goal.scale)
    held = [CandidateCollector(len(queries), goal.k, margin) for _ in range(workers)]
    groups = [GroupValues.of(len(queries), *grouped) if grouped else None for _ in range(workers)]
    tickets, lock = itertools.count(), threading.Lock()

    def work(worker: int) -> None:
        in_place = len(queries) == 1 and matrix.dtype == np.float32
        most = VECTOR_BLOCK_ROWS if in_place else BLOCK_ROWS
        block = min(max(64, cut.block_elements // len(queries)), most)
        widest = max(block, goal.most_rows)
        space = np.empty((len(scaled), widest), dtype=np.float32)
        read = _reader(matrix, widest)
        while True:
            with lock:
                segment = next(tickets)
            if segment >= len(segments):
                return
            # What one worker has seen is a lower bound for all.
            for other in held:
                np.maximum(held[worker].floor, other.floor, out=held[worker].floor)
            blocks = goal.edges(*segments[segment], block)
            log_sums[segment] = _scan_segment(
                read, blocks, scaled, space, held[worker], groups[worker], goal
            )

    if workers == 1:
        work(0)
    else:
        with ThreadPoolExecutor(workers, thread_name_prefix="zsic-scan") as pool:
            list(pool.map(work, range(workers)))
    found = Candidates(
        np.concatenate([one.values for one in held], axis=1),
        np.concatenate([one.rows for one in held], axis=1),
        np.isposinf(np.max([one.floor for one in held], axis=0)),
        np.logaddexp.reduce(log_sums),
    )
    part = finish(exact, queries, found, goal)
    merged = GroupValues.merged([one for one in groups if one is not None])
    return part if merged is None else replace(part, groups=merged)


def _reader(matrix: Float32 | Float16, block: int) -> Callable[[int, int], Float32]:
    """Return what gives the float32 rows from one number to another, at most ``block`` of them.

    Rows of half precision are converted into the same space at every call, by torch: NumPy takes
    twelve times as long.
    """
    if matrix.dtype == np.float32:
        full = cast("Float32", matrix)
        return lambda first, last: full[first:last]
    import torch

    space = np.empty((block, matrix.shape[1]), dtype=np.float32)
    # torch takes no array that is read-only without a word; it is only read here.
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
    goal: Goal,
) -> Float64:
    """Scan one segment; return (B,) the logsumexp of its logits, zeros when it was not asked for.

    Args:
        read: gives rows of the label matrix.
        blocks: the first label of each block, then the end of the segment.
        scaled: (P, D) queries times the scale, then rows that mean nothing.
        space: (P, block) for the logits.
        candidates: the worker's; those of this segment are added.
        groups: the worker's; what is in this segment is added.
        goal: what is wanted.
    """
    sums = ExponentialSums(candidates.batch)
    for first, last in itertools.pairwise(blocks):
        start, end = goal.rows(first, last)
        logits = space[:, : end - start]
        if len(scaled) <= _FEW:
            np.vecdot(read(start, end)[None], scaled[:, None], out=logits)
        else:
            np.matmul(scaled, read(start, end).T, out=logits)
        logits = goal.of_labels(logits[: candidates.batch], first, last)
        peak = logits.max(axis=1)
        candidates.offer(logits, peak, first)
        if groups is not None and not groups.takes_terms:
            groups.add(logits, first)
        if goal.partition:
            sums.add(logits, peak)
        if groups is not None and groups.takes_terms:
            groups.add(logits, first, sums.relative_to)
    return sums.log() if goal.partition else np.zeros(candidates.batch)


def _padded(queries: Float32) -> Float32:
    """Return (P, D) queries with rows of zeros behind them, where several are no multiple."""
    extra = -len(queries) % _QUERY_STEP if len(queries) > _FEW else 0
    return np.pad(queries, ((0, extra), (0, 0)))
