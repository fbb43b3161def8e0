"""Reductions over adjacent rows on a device: labels' names and groups of labels.

A reduction is ``torch.segment_reduce`` along the first axis, in which each segment and query has a
thread that goes through the segment's rows one after the other. It adds in a fixed order, unlike
``index_add_`` on CUDA, which adds by atomics in any order, and it keeps the relative precision of
small sums, unlike differences of cumulative sums. Long segments would leave most threads without
work, so that groups are reduced in several levels of short segments. Nothing waits for the device.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zsic_index.embedding_arrays import Float64, Int64
from zsic_index.scan.groups import Grouping, GroupValues
from zsic_index.scan.pooling import Pooling

REDUCING_DEVICES = ("cpu", "cuda")
"""Types of devices that have segment reductions, and float64 to sum in."""

SEGMENT_ROWS = 256
"""Most rows of a segment of a group, which one thread goes through."""


class DevicePooling:
    """A Pooling on a device; see ``Pooling.pool``."""

    def __init__(self, pooling: Pooling, device: torch.device) -> None:
        self._how = pooling.how
        self._counts = torch.from_numpy(pooling.counts).to(device)

    def pool(self, logits: Tensor, first: int, last: int) -> Tensor:
        """Return the (n, B) logits of labels ``first`` to ``last``.

        Args:
            logits: (r, B) float32 logits of their rows, which may be overwritten.
            first: first label.
            last: end of the labels.
        """
        counts = self._counts[first:last]
        pooled = _reduce(logits, "max", counts)
        if self._how == "mass":
            of_rows = pooled.repeat_interleave(counts, dim=0, output_size=len(logits))
            pooled += _reduce(logits.sub_(of_rows).exp_(), "sum", counts).log_()
        return pooled


@dataclass(frozen=True, slots=True)
class _Level:
    """Segments of at most SEGMENT_ROWS adjacent rows.

    Attributes:
        order: (n,) int64 order in which rows are adjacent; None where they are so already.
        lengths: (segments,) int64 rows of each segment.
    """

    order: Tensor | None
    lengths: Tensor


@dataclass(frozen=True, slots=True)
class _BlockGroups:
    """Groups of the labels of one block.

    Attributes:
        levels: one after the other, these leave one row for each group.
        groups: (g,) int64 groups that have labels in the block, each once, ascending.
    """

    levels: tuple[_Level, ...]
    groups: Tensor


class DeviceGrouping:
    """A Grouping on a device, for given blocks of labels.

    Attributes:
        grouping: the grouping.
        blocks: groups of each block.
    """

    def __init__(self, grouping: Grouping, edges: Sequence[int], device: torch.device) -> None:
        """Divide the groups between ``edges`` (first labels of blocks, then N) into segments."""
        self.grouping = grouping
        self.blocks = [
            _block_groups(grouping.group_of[first:last], device)
            for first, last in itertools.pairwise(edges)
        ]


class DeviceGroupValues:
    """Running reduction for each query and group over the blocks of one pass; see GroupValues.

    Sums are of float64, and (G, B) float64 is what it holds on the device.

    Attributes:
        takes_exponentials: True when ``add`` takes exponentials instead of logits.
    """

    def __init__(self, grouping: DeviceGrouping, batch: int, bias: float, device: torch.device):
        self._blocks = grouping.blocks
        self._grouping = grouping.grouping
        self.takes_exponentials = self._grouping.reduction == "sum"
        self._bias = bias
        shape = (grouping.grouping.count, batch)
        empty = -torch.inf if self._grouping.reduction == "max" else 0.0
        self._values = torch.full(shape, empty, dtype=torch.float64, device=device)
        self._relative_to = torch.full((batch,), -torch.inf, dtype=torch.float64, device=device)

    def add(self, number: int, block: Tensor, relative_to: Tensor | None = None) -> None:
        """Add the (B, n) float32 logits, or exponentials, of a block.

        Args:
            number: number of the block.
            block: logits without the logit bias, or exponentials of these.
            relative_to: (B,) float32 logits that were subtracted before exponentiation.
        """
        groups = self._blocks[number].groups
        if self._grouping.reduction == "max":
            reduced = self._reduced(number, block.T.contiguous(), "max").double()
            combined = torch.maximum(self._values.index_select(0, groups), reduced)
        else:
            if self._grouping.reduction == "noisy-or":
                # log(1 - sigmoid(x)) = -log(1 + exp(x))
                block = torch.nn.functional.softplus(block + self._bias)
            wide = torch.empty(block.T.shape, dtype=torch.float64, device=block.device)
            reduced = self._reduced(number, wide.copy_(block.T), "sum")
            if relative_to is not None:
                shift = torch.maximum(self._relative_to, relative_to.double())
                self._values *= (self._relative_to - shift).exp_()
                reduced *= (relative_to.double() - shift).exp_()
                self._relative_to = shift
            combined = self._values.index_select(0, groups) + reduced
        self._values.index_copy_(0, groups, combined)

    def probabilities(self) -> Float64:
        """Return (B, G) probabilities."""
        values = self._values.T.cpu().numpy()
        on_cpu = GroupValues.of(len(values), self._grouping, self._bias)
        on_cpu.values[:] = values
        return on_cpu.probabilities()

    def _reduced(self, number: int, rows: Tensor, reduction: str) -> Tensor:
        """Return the (g, B) reduction of the (n, B) rows of a block."""
        for level in self._blocks[number].levels:
            if level.order is not None:
                rows = rows.index_select(0, level.order)
            rows = _reduce(rows, reduction, level.lengths)
        return rows


def _block_groups(groups: Int64, device: torch.device) -> _BlockGroups:
    levels, order = [], None
    while True:
        starts = _segment_starts(groups)
        lengths = torch.from_numpy(np.diff(starts, append=len(groups))).to(device)
        levels.append(_Level(order, lengths))
        groups, order = groups[starts], None
        if (np.diff(groups) > 0).all():
            return _BlockGroups(tuple(levels), torch.from_numpy(groups).to(device))
        if (np.diff(groups) < 0).any():
            # Only before the second level: afterwards groups are in order.
            sorted_rows = np.argsort(groups, kind="stable")
            groups, order = groups[sorted_rows], torch.from_numpy(sorted_rows).to(device)


def _segment_starts(groups: Int64) -> Int64:
    """Return the first row of each run of one group, cut into at most SEGMENT_ROWS rows."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    lengths = np.diff(starts, append=len(groups))
    parts = -(-lengths // SEGMENT_ROWS)
    within = np.arange(int(parts.sum())) - np.repeat(np.cumsum(parts) - parts, parts)
    return np.asarray(np.repeat(starts, parts) + within * SEGMENT_ROWS)


def _reduce(rows: Tensor, reduction: str, lengths: Tensor) -> Tensor:
    """Reduce segments of (n, B) adjacent rows to (segments, B)."""
    # "unsafe" leaves out a check of the lengths for which the host would wait.
    return torch.segment_reduce(rows, reduction, lengths=lengths, unsafe=True)
