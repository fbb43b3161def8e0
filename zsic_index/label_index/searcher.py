"""What an open index is asked: the best rows and the log-partition, whatever kind it is."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from zsic_index.embedding_arrays import Float32, Float64
from zsic_index.index_files import Approximate, Half, OpenIndex
from zsic_index.index_files.approximate import CANDIDATES, recall_of
from zsic_index.records import IndexInfo
from zsic_index.scan.exact import scan
from zsic_index.scan.goal import Float16, Scan, similarities_of
from zsic_index.scan.groups import Grouping
from zsic_index.scan.pooling import Pooling
from zsic_index.scan.sampled import Sample, draw, estimate

if TYPE_CHECKING:
    from zsic_index.scan.device import DeviceMatrix

logger = logging.getLogger("zsic_index")

_WORTH_A_GPU = 1 << 24
"""Numbers of a label matrix from which on a GPU is asked: 32,768 labels of 512 dimensions."""

_MORE = 4
"""Rows that are looked at for each one that is asked for."""


@dataclass(frozen=True, slots=True)
class Found:
    """The best rows of B queries.

    Attributes:
        best: their rows, similarities, logits and log-partition.
        low: (B,) float64, what the log-partition is not below with 95 % confidence; None where it
            is exact.
        high: (B,) float64, what it is not above; None where it is exact.
    """

    best: Scan
    low: Float64 | None = None
    high: Float64 | None = None


class Searcher:
    """Asks one open index. Nothing that it holds grows with N, but a GPU's copy of the matrix."""

    def __init__(self, info: IndexInfo, opened: OpenIndex, device: str) -> None:
        self._info = info
        self._opened = opened
        self._device = device
        self._resident: DeviceMatrix | None = None
        self.use(info.logit_scale, info.logit_bias, None)

    def use(self, logit_scale: float, logit_bias: float, label_bias: Float32 | None) -> None:
        """Make logits with these from now on; ``label_bias`` is (N,), for exact kinds alone."""
        assert label_bias is None or not isinstance(self._opened.first, Approximate)
        self._logit_scale = logit_scale
        self._logit_bias = logit_bias
        self._label_bias = label_bias

    def find(self, queries: Float32, top_k: int) -> Found:
        """Find the ``top_k`` best rows for (B, D) float32 unit-norm queries."""
        match self._opened.first:
            case Half() | None if (resident := self._on_gpu()) is not None:
                return Found(resident.scan(queries, top_k, **self._numbers))
            case Half() as half:
                exactly = {"exact": self._opened.matrix, "rounding": half.rounding}
                return Found(self._scan_index(half.matrix, queries, top_k, **exactly))
            case Approximate() as approximate if max(CANDIDATES, _MORE * top_k) < self._info.labels:
                return self._search(approximate, queries, top_k)
            case _:
                return Found(self._scan_index(self._opened.matrix, queries, top_k))

    def find_groups(self, queries: Float32, top_k: int, grouping: Grouping) -> Scan:
        """Find the same in one exact pass that also keeps numbers for groups of rows."""
        return self._scan_index(self._opened.matrix, queries, top_k, grouping=grouping)

    def scan(
        self,
        matrix: Float32,
        queries: Float32,
        top_k: int,
        *,
        pooling: Pooling | None,
        label_bias: Float32 | None,
    ) -> Scan:
        """Scan some labels exactly, with the index's scale, bias and activation."""
        return self._scan(matrix, queries, top_k, pooling=pooling, label_bias=label_bias)

    def recall(self, queries: Float32, top_k: int) -> float:
        """Return the share of the true ``top_k`` best rows that ``find`` finds."""
        found = self.find(queries, top_k).best.rows
        return recall_of(found, self._scan_index(self._opened.matrix, queries, top_k).rows)

    def _scan_index(
        self, matrix: Float32 | Float16, queries: Float32, top_k: int, **more: Any
    ) -> Scan:
        own = {"pooling": self._opened.pooling, "label_bias": self._label_bias}
        return self._scan(matrix, queries, top_k, **own, **more)

    def _scan(self, matrix: Float32 | Float16, queries: Float32, top_k: int, **more: Any) -> Scan:
        return scan(matrix, queries, top_k, **self._numbers, **more)

    def _search(self, approximate: Approximate, queries: Float32, top_k: int) -> Found:
        rows = approximate.search(queries, max(CANDIDATES, _MORE * top_k))
        if (rows[:, :top_k] < 0).any():
            # A graph that falls apart: nothing is left out without a word.
            return Found(self._scan_index(self._opened.matrix, queries, top_k))
        similarities = np.full(rows.shape, -np.inf)
        for query, line, found in zip(queries, rows, similarities, strict=True):
            found[line >= 0] = similarities_of(self._opened.matrix, line[line >= 0], query)
        order = np.lexsort((rows, -similarities))
        rows = np.take_along_axis(rows, order, axis=1)
        similarities = np.take_along_axis(similarities, order, axis=1)
        scale, bias = self._logit_scale, self._logit_bias
        best_rows, best = rows[:, :top_k], similarities[:, :top_k]
        logits = best * scale + bias
        if not self._softmax:
            return Found(Scan(best_rows, best, logits, None))
        partition = estimate(self._sample, queries, rows, similarities * scale, scale)
        return Found(
            Scan(best_rows, best, logits, partition.log_partition + bias),
            partition.low + bias,
            partition.high + bias,
        )

    def _on_gpu(self) -> DeviceMatrix | None:
        """Return the matrix on a GPU, where there is one and it is worth it.

        What is done to logits before they are looked at is done on the CPU alone.
        """
        if self._opened.pooling is not None or self._label_bias is not None:
            return None
        if self._resident is not None:
            return self._resident
        info = self._info
        if self._device == "cpu" or info.labels * info.dim < _WORTH_A_GPU:
            return None
        if self._device == "auto" and "torch" not in sys.modules:
            # Without a model nothing needs torch, and to load it takes longer than many scans.
            return None
        from zsic_index.encoders.two_towers import device_of

        device = device_of(self._device)
        if device.type == "cpu":
            return None
        from zsic_index.scan.device import DeviceMatrix

        dtype: Any = "float16" if info.kind == "float16" else "float32"
        try:
            self._resident = DeviceMatrix(self._opened.matrix, device, dtype)
        except RuntimeError as error:
            if "out of memory" not in str(error):
                raise
            logger.warning(
                "%d labels x %d do not fit into the memory of %s: scanning on the CPU",
                info.labels,
                info.dim,
                device,
            )
            self._device = "cpu"
        return self._resident

    @property
    def _numbers(self) -> dict[str, Any]:
        return {
            "logit_scale": self._logit_scale,
            "logit_bias": self._logit_bias,
            "partition": self._softmax,
        }

    @property
    def _softmax(self) -> bool:
        return self._info.activation == "softmax"

    @cached_property
    def _sample(self) -> Sample:
        return draw(self._opened.matrix)
