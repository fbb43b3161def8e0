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
import numpy.typing as npt

from zsic_index.group_values import Grouping, GroupValues
from zsic_index.pooling import Logits, Pooling
from zsic_index.scoring import (
    Bool,
    Float32,
    Float64,
    Int64,
    available_cores,
    log_sum_exp,
    one_blas_thread,
)

QUERY_BATCH = 256
"""Queries per pass; more are taken in several passes so that a block keeps enough rows."""

SEGMENT_ROWS = 1 << 16
"""Rows that a worker takes at a time, and that sums are kept for."""

BLOCK_ELEMENTS = 1 << 17
"""Logits per block: 512 KiB of float32, which stay in a core's L2 cache."""

BLOCK_ROWS = 1 << 10
"""Rows per block at most, where there are several queries: more of them stream no faster through
the product, and leave the cache."""

VECTOR_BLOCK_ROWS = 1 << 13
"""The same for one query."""

GROUP_ELEMENTS = 1 << 23
"""Queries times groups per pass, at most: 64 MiB of float64 for each worker."""

_FEW = 4
"""Up to so many queries, inner products one by one are faster than a matrix product: they run at
the speed of memory, while OpenBLAS copies the matrix first."""

_QUERY_STEP = 4
"""Products are made for a multiple of so many queries: OpenBLAS is half as fast on others."""

_ROOM = 64
"""Candidates beyond k that a query takes in before it goes back to those that still are some."""

_SHIFT_FREE = 40.0
"""Logits up to here, either way, are exponentiated as they are: exp(40) is far from overflow, and
exp(-40) from underflow. Others are taken relative to one that is near the largest so far."""

_RISE = 2.0
"""How far a logit may be above the one that others are taken relative to."""

Float16 = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass over the label matrix found.

    A label is meant by its row; where labels have several, by its place among the N labels.

    Attributes:
        rows: (B, k) int64, best first; ties go to the lower row.
        similarities: (B, k) float64, inner products of the same rows; of several, pooled.
        logits: (B, k) float64, of the similarities less the label's bias.
        log_partition: (B,) float64, logsumexp of all N logits; None when it was not asked for.
        groups: (B, G) float64 probabilities of the groups; None when there are none. Sums add up
            to 1 over all groups.
    """

    rows: Int64
    similarities: Float64
    logits: Float64
    log_partition: Float64 | None
    groups: Float64 | None = None


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


@dataclass(frozen=True, slots=True, eq=False)
class Goal:
    """What a scan is to find, on whatever device.

    Attributes:
        labels: N.
        k: labels per query.
        scale: multiplier of similarities.
        margin: a label is a candidate unless its similarity is so far below the k-th best.
        partition: whether to sum.
        pooling: see ``scan``.
        label_bias: see ``scan``.
    """

    labels: int
    k: int
    scale: float
    margin: float
    partition: bool
    pooling: Pooling | None = None
    label_bias: Float32 | None = None

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        top_k: int,
        scale: float,
        *,
        partition: bool,
        rounding: float,
        pooling: Pooling | None = None,
        label_bias: Float32 | None = None,
    ) -> Goal:
        """Return the goal for a matrix of an (N, D) shape; see ``scan``."""
        # A product of D float32 numbers, summed in any order, is off by no more than this, for
        # vectors of norm 1; and what is done to it afterwards by a little more.
        off = (shape[1] + 4) * 2.0**-24 + rounding
        if pooling is not None:
            off += pooling.rounding(scale)
        if label_bias is not None:
            off += 2.0**-23 * (1 + float(np.abs(label_bias).max(initial=0)))
        labels = shape[0] if pooling is None else pooling.labels
        return cls(labels, min(top_k, labels), scale, 2 * off, partition, pooling, label_bias)

    def edges(self, first: int, last: int, rows: int) -> list[int]:
        """Return where to cut labels ``first`` to ``last`` into parts of at most so many rows."""
        if self.pooling is None:
            return [*range(first, last, rows), last]
        return self.pooling.edges(first, last, rows)

    def rows(self, first: int, last: int) -> tuple[int, int]:
        """Return the first row of label ``first``, and that of label ``last``."""
        if self.pooling is None:
            return first, last
        return int(self.pooling.starts[first]), int(self.pooling.starts[last])

    @property
    def most_rows(self) -> int:
        """The most rows that one label has."""
        return 1 if self.pooling is None else self.pooling.most

    def of_labels(self, logits: Logits, first: int, last: int) -> Logits:
        """Return the (B, n) logits of labels from those of their rows, which may be overwritten."""
        if self.pooling is not None:
            logits = self.pooling.pool(logits, first, last)
        if self.label_bias is not None:
            logits -= (self.label_bias[first:last] * self.scale).astype(logits.dtype)
        return logits

    def similarities(self, matrix: Float32 | Float16, labels: Int64, query: Float32) -> Float64:
        """Return the (n,) similarities of labels with one query, exactly, without their bias."""
        if self.pooling is None:
            return similarities_of(matrix, labels, query)
        of_rows = similarities_of(matrix, self.pooling.rows_of(labels), query)
        pooled: Float64 = self.pooling.take(labels).similarities(of_rows[None], self.scale)[0]
        return pooled

    def less_bias(self, similarities: Float64, labels: Int64) -> Float64:
        """Return similarities less the bias of their labels, both of one shape."""
        if self.label_bias is None:
            return similarities
        return np.asarray(similarities - self.label_bias[labels])


@dataclass(frozen=True, slots=True)
class Candidates:
    """What one pass found for a batch of queries.

    Attributes:
        values: (B, m) float32 logits without the model's bias, -inf where there is none; m >= k.
        rows: (B, m) int64, whose they are, as in ``Scan``.
        crowded: (B,) whether there are more of them within the margin than were held.
        log_sums: (B,) float64 logsumexp of all logits without the model's bias.
    """

    values: Float32
    rows: Int64
    crowded: Bool
    log_sums: Float64


@dataclass(frozen=True, slots=True)
class Part:
    """The scan for one batch of queries; ``log_sums`` has no bias in it yet."""

    rows: Int64
    similarities: Float64
    log_sums: Float64
    groups: Float64 | None = None


@dataclass(frozen=True, slots=True)
class _Cut:
    """How the work is cut; see ``scan``."""

    workers: int
    block_elements: int
    segment_rows: int


def joined(parts: Sequence[Part], goal: Goal, logit_bias: float) -> Scan:
    """Return the scan of all batches."""
    rows = np.concatenate([np.empty((0, goal.k), dtype=np.int64), *(part.rows for part in parts)])
    similarities = np.concatenate([np.empty((0, goal.k)), *(part.similarities for part in parts)])
    log_sums = np.concatenate([np.empty(0), *(part.log_sums for part in parts)])
    groups = [part.groups for part in parts if part.groups is not None]
    return Scan(
        rows,
        similarities,
        goal.less_bias(similarities, rows) * goal.scale + logit_bias,
        log_sums + logit_bias if goal.partition else None,
        np.concatenate(groups) if groups else None,
    )


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
    held = [_Candidates(len(queries), goal.k, margin) for _ in range(workers)]
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
    candidates: _Candidates,
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
    sums = _Sums(candidates.batch)
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


class _Sums:
    """Running sums of exponentials, (B,), each relative to a logit of its own.

    Attributes:
        relative_to: (B,) float32, that logit.
    """

    def __init__(self, batch: int) -> None:
        self.relative_to = np.zeros(batch, dtype=np.float32)
        self._total = np.zeros(batch)
        self._shifted = False

    def add(self, logits: Float32, peak: Float32) -> None:
        """Add a (B, n) block of logits, which is overwritten; ``peak`` has its (B,) largest."""
        if self._shifted or np.abs(peak).max() > _SHIFT_FREE:
            self._shift(peak)
            logits -= self.relative_to[:, None]
        np.exp(logits, out=logits)
        self._total += logits.sum(axis=1)

    def log(self) -> Float64:
        """Return (B,) the logarithms of the sums."""
        return np.asarray(np.log(self._total) + self.relative_to.astype(np.float64))

    def _shift(self, peak: Float32) -> None:
        empty = self._total == 0
        risen = empty | (peak > self.relative_to + _RISE)
        down = (self.relative_to - peak)[risen].astype(np.float64)
        self._total[risen] *= np.exp(np.minimum(down, 0.0))
        self.relative_to[risen] = peak[risen]
        self._shifted = True


class _Candidates:
    """The rows that may be among the best of each query, of those that one worker has seen.

    Attributes:
        batch: B, the number of queries.
        values: (B, k + room) float32 logits without bias, -inf where there is none.
        rows: the same shape, int64.
        floor: (B,) a logit that no candidate is below; inf where there are too many of them.
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
        """Take in what may be among the best of a (B, n) block that begins at row ``first``."""
        hot = np.flatnonzero(peak >= self.floor)
        if not len(hot):
            return
        entering = logits[hot] >= self.floor[hot, None]
        number = entering.sum(axis=1)
        fits = self._count[hot] + number <= self.values.shape[1]
        if fits.any():
            self._append(logits, first, hot[fits], entering[fits], number[fits])
        for query in hot[~fits]:
            self._merge(query, logits[query], first)

    def _append(
        self, logits: Float32, first: int, hot: Int64, entering: Bool, number: Int64
    ) -> None:
        at, column = np.nonzero(entering)
        query = hot[at]
        # The entries come query by query: each query's are numbered on from what it has.
        place = self._count[query] + np.arange(len(at)) - (np.cumsum(number) - number)[at]
        self.values[query, place] = logits[query, column]
        self.rows[query, place] = column + first
        self._count[hot] += number

    def _merge(self, query: int, logits: Float32, first: int) -> None:
        """Go back to what still is a candidate, of what a query has and of one block."""
        count = self._count[query]
        entering = np.flatnonzero(logits >= self.floor[query])
        values = np.concatenate([self.values[query, :count], logits[entering]])
        rows = np.concatenate([self.rows[query, :count], entering + first])
        if len(values) > self._k:
            least = np.partition(values, len(values) - self._k)[len(values) - self._k]
            self.floor[query] = max(self.floor[query], least - self._margin)
        kept = np.flatnonzero(values >= self.floor[query])
        if len(kept) > self.values.shape[1]:
            # Too many are nearly equal: all of this query is settled at the end.
            kept = kept[:0]
            self.floor[query] = np.inf
        self.values[query] = -np.inf
        self.values[query, : len(kept)] = values[kept]
        self.rows[query, : len(kept)] = rows[kept]
        self._count[query] = len(kept)


def finish(matrix: Float32 | Float16, queries: Float32, candidates: Candidates, goal: Goal) -> Part:
    """Compute candidates again, exactly, from the (N, D) matrix, and put them in order."""
    log_sums = candidates.log_sums.copy()
    best_rows = np.empty((len(queries), goal.k), dtype=np.int64)
    best = np.empty((len(queries), goal.k))
    for query, (line, line_rows) in enumerate(zip(candidates.values, candidates.rows, strict=True)):
        if candidates.crowded[query]:
            best_rows[query], log_sums[query] = _settle(matrix, queries[query], goal)
            best[query] = goal.similarities(matrix, best_rows[query], queries[query])
            continue
        least = np.partition(line, len(line) - goal.k)[len(line) - goal.k]
        kept = np.flatnonzero(line >= least - np.float32(goal.margin * goal.scale))
        found = line_rows[kept]
        similarities = goal.similarities(matrix, found, queries[query])
        exact = goal.less_bias(similarities, found)
        order = np.lexsort((found, -exact))[: goal.k]
        best_rows[query], best[query] = found[order], similarities[order]
        if goal.partition:
            # In the order of the rows, whichever worker found them.
            order = np.argsort(found)
            terms = np.exp(goal.scale * exact[order] - log_sums[query])
            rough = np.exp(line[kept][order].astype(np.float64) - log_sums[query])
            log_sums[query] += np.log1p((terms - rough).sum())
    return Part(best_rows, best, log_sums)


def _settle(matrix: Float32 | Float16, query: Float32, goal: Goal) -> tuple[Int64, float]:
    """Scan for one query where so many labels are nearly equal that they cannot be held.

    Whatever is not clearly worse than the k-th best so far is computed exactly, at once.

    Returns:
        (k,) labels, best first, and the logsumexp.
    """
    labels, exact = np.empty(0, dtype=np.int64), np.empty(0)
    log_sum = -np.inf
    for first, last in itertools.pairwise(goal.edges(0, goal.labels, VECTOR_BLOCK_ROWS)):
        start, end = goal.rows(first, last)
        block = matrix[start:end].astype(np.float32, copy=False)
        values = goal.scale * (block @ query).astype(np.float64)
        values = goal.of_labels(values[None], first, last)[0] / goal.scale
        least = exact[-1] - goal.margin if len(exact) == goal.k else -np.inf
        near = np.flatnonzero(values >= least)
        here = near + first
        values[near] = goal.less_bias(goal.similarities(matrix, here, query), here)
        log_sum = float(np.logaddexp(log_sum, log_sum_exp(values * goal.scale)))
        labels = np.concatenate([labels, here])
        exact = np.concatenate([exact, values[near]])
        best = np.lexsort((labels, -exact))[: goal.k]
        labels, exact = labels[best], exact[best]
    return labels, log_sum


def similarities_of(matrix: Float32 | Float16, rows: Int64, query: Float32) -> Float64:
    """Return the (n,) float64 inner products of some rows with one query.

    einsum, not BLAS: its result for a row does not depend on which rows stand beside it.
    """
    wide = query.astype(np.float64)
    found = np.empty(len(rows))
    for start in range(0, len(rows), 4_096):
        some = matrix[rows[start : start + 4_096]].astype(np.float64)
        np.einsum("nd,d->n", some, wide, out=found[start : start + 4_096])
    return found


def _padded(queries: Float32) -> Float32:
    """Return (P, D) queries with rows of zeros behind them, where several are no multiple."""
    extra = -len(queries) % _QUERY_STEP if len(queries) > _FEW else 0
    return np.pad(queries, ((0, extra), (0, 0)))
