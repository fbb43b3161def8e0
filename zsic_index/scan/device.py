"""The scan on a GPU, with the same contract as ``exact.scan``.

The device finds candidates and sums; candidates are settled on the CPU from the float32 matrix, so
rows and similarities equal those of the CPU scan to the last bit. In half precision the matrix
takes half the memory; blocks are converted to float32 before the product, so that the rounding of
embeddings is the only error.

Names are pooled, biases subtracted and groups reduced block by block, as on the CPU. Sums are of
float64 where the device has it. The host queues all blocks without waiting for the device.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from zsic_index.embedding_arrays import Float32, Float64
from zsic_index.scan.candidates import Candidates, settle
from zsic_index.scan.device_segments import (
    REDUCING_DEVICES,
    DeviceGrouping,
    DeviceGroupValues,
    DevicePooling,
)
from zsic_index.scan.exact import queries_per_pass
from zsic_index.scan.groups import Grouping
from zsic_index.scan.pooling import Pooling
from zsic_index.scan.spec import BatchResult, ScanResult, ScanSpec, join_batches

BLOCK_ELEMENTS = 1 << 25
"""Logits per block: 128 MiB of float32. Pooling takes three times that, groups another two."""

_CONVERTED = 2
"""Most numbers of a half-precision matrix that are converted at a time, per logit of a block."""

_COPIED_ROWS = 1 << 16

_ROOM = 64
"""Candidates beyond k."""

_COPIES = 8
"""Poolings, groupings and biases that are held on the device beside the matrix."""

T = TypeVar("T")


class DeviceMatrix:
    """Label embeddings on a device.

    Attributes:
        device: the device.
        rounding: largest norm of a row's rounding error; 0 in float32. The error of the
            log-partition is at most ``logit_scale`` times this.
    """

    def __init__(
        self,
        matrix: Float32,
        device: str | torch.device,
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    ) -> None:
        """Copy (R, D) float32 embeddings to the device, block by block.

        Raises:
            torch.OutOfMemoryError: when they do not fit.
        """
        self.device = torch.device(device)
        self._exact = matrix
        self._tensor = torch.empty(matrix.shape, dtype=getattr(torch, dtype), device=device)
        self._copies = _Copies()
        self.rounding = 0.0
        for start in range(0, len(matrix), _COPIED_ROWS):
            # Copied because torch refuses read-only memory maps.
            block = torch.from_numpy(matrix[start : start + _COPIED_ROWS].copy())
            rounded = block.to(self._tensor.dtype)
            self._tensor[start : start + _COPIED_ROWS] = rounded
            if dtype != "float32":
                off = torch.linalg.vector_norm(block - rounded.float(), dim=1)
                self.rounding = max(self.rounding, float(off.max()))

    @property
    def reduces(self) -> bool:
        """True when the device can pool names and reduce groups."""
        return self.device.type in REDUCING_DEVICES

    def scan(
        self,
        queries: Float32,
        top_k: int,
        *,
        logit_scale: float = 1.0,
        logit_bias: float = 0.0,
        pooling: Pooling | None = None,
        label_bias: Float32 | None = None,
        partition: bool = True,
        grouping: Grouping | None = None,
        block_elements: int = BLOCK_ELEMENTS,
    ) -> ScanResult:
        """Find the k best labels for each query, and the log-partition; see ``exact.scan``.

        Args:
            queries: (B, D) float32 unit-norm image embeddings.
            top_k: k; more than N is taken as N.
            logit_scale: multiplier of similarities, > 0.
            logit_bias: added to every logit.
            pooling: rows that are one label, where the device ``reduces``; None where each label
                has one row. It is copied to the device at the first scan, as are label bias and
                grouping: pass the same object again.
            label_bias: (N,) float32, subtracted from the similarities of each label; None for none.
            partition: compute the log-partition.
            grouping: groups of labels to reduce, where the device ``reduces``; reduction ``sum``
                needs the partition. In half precision their sums have the error of the
                log-partition.
            block_elements: number of logits, B times the rows of a block, held at a time.

        Raises:
            torch.OutOfMemoryError: when a block does not fit beside the matrix.
        """
        spec = ScanSpec.of(
            self._exact.shape,
            top_k,
            logit_scale,
            logit_bias,
            partition=partition,
            rounding=self.rounding,
            pooling=pooling,
            label_bias=label_bias,
            grouping=grouping,
        )
        results = []
        batch = queries_per_pass(grouping)
        with torch.inference_mode(), full_precision():
            for start in range(0, len(queries), batch):
                part = queries[start : start + batch]
                rows = self._rows_per_block(len(part), spec, block_elements)
                results.append(self._scan_batch(part, spec, rows))
        return join_batches(results, spec)

    def _rows_per_block(self, batch: int, spec: ScanSpec, elements: int) -> int:
        if spec.grouping is not None or spec.pooling is not None:
            # The same for any number of queries, so that groups are divided once.
            batch = queries_per_pass(spec.grouping)
        rows = elements // batch
        if self._tensor.dtype != torch.float32:
            rows = min(rows, _CONVERTED * elements // self._tensor.shape[1])
        return max(1, rows)

    def _scan_batch(self, queries: Float32, spec: ScanSpec, block_rows: int) -> BatchResult:
        device = self.device
        scaled = torch.from_numpy(queries * np.float32(spec.scale)).to(device)
        held = min(spec.settled + _ROOM, spec.labels)
        values = torch.full((len(queries), 0), -torch.inf, device=device)
        rows = torch.zeros((len(queries), 0), dtype=torch.int64, device=device)
        edges = spec.edges(0, spec.labels, block_rows)
        groups = self._group_values(spec, edges, block_rows, len(queries))
        wide = torch.float64 if self.reduces else torch.float32
        peaks, sums = [], []
        for number, (first, last) in enumerate(itertools.pairwise(edges)):
            logits = self._logits(scaled, spec, first, last)
            best, at = logits.topk(min(held, logits.shape[1]))
            values, rows = torch.cat([values, best], 1), torch.cat([rows, at + first], 1)
            values, order = values.topk(min(held, values.shape[1]))
            rows = rows.gather(1, order)
            if groups is not None and not groups.takes_exponentials:
                groups.add(number, logits)
            if spec.partition:
                peak = best[:, 0]
                peaks.append(peak)
                exponentials = logits.sub_(peak[:, None]).exp_()
                sums.append(exponentials.sum(1, dtype=wide))
                if groups is not None and groups.takes_exponentials:
                    groups.add(number, exponentials, peak)
        near = np.float32(spec.margin * spec.scale)
        held_values, held_rows = values.cpu().numpy(), rows.cpu().numpy()
        # If the worst of them is within the margin, rows that were dropped may be as well.
        least = held_values[:, spec.settled - 1] - near
        overflowed = (held_values[:, -1] >= least) & (held < spec.labels)
        log_sums = _combined(peaks, sums) if spec.partition else np.zeros(len(queries))
        probabilities = None if groups is None else groups.probabilities()
        candidates = Candidates(held_values, held_rows, overflowed, log_sums, probabilities)
        return settle(self._exact, queries, candidates, spec)

    def _logits(self, scaled: Tensor, spec: ScanSpec, first: int, last: int) -> Tensor:
        """Return the (B, n) float32 logits of labels first to last, without the logit bias."""
        device, pooling, label_bias = self.device, spec.pooling, spec.label_bias
        start, end = spec.rows(first, last)
        embeddings = self._tensor[start:end].float()
        if pooling is None or pooling.most == 1:
            logits = scaled @ embeddings.T
        else:
            on_device = self._copies.of(pooling, lambda: DevicePooling(pooling, device))
            logits = on_device.pool(embeddings @ scaled.T, first, last).T.contiguous()
        if label_bias is not None:
            bias = self._copies.of(label_bias, lambda: torch.tensor(label_bias, device=device))
            logits.sub_(bias[first:last], alpha=spec.scale)
        return logits

    def _group_values(
        self, spec: ScanSpec, edges: list[int], block_rows: int, batch: int
    ) -> DeviceGroupValues | None:
        device, grouping = self.device, spec.grouping
        if grouping is None:
            return None
        on_device = self._copies.of(
            grouping, lambda: DeviceGrouping(grouping, edges, device), spec.pooling, block_rows
        )
        return DeviceGroupValues(on_device, batch, spec.bias, device)


class _Copies:
    """Copies of objects on a device, by identity; the least recently used are dropped."""

    def __init__(self) -> None:
        self._copies: OrderedDict[tuple[int, ...], tuple[object, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, original: object, make: Callable[[], T], *more: object) -> T:
        """Return the copy of an object, made at the first call.

        Args:
            original: the object.
            make: makes the copy.
            more: small integers and objects that the copy depends on, too.
        """
        originals = (original, *more)
        key = tuple(item if isinstance(item, int) else id(item) for item in originals)
        with self._lock:
            if key not in self._copies:
                # The originals are held as well, so that no other object gets the identity.
                self._copies[key] = (make(), *originals)
                while len(self._copies) > _COPIES:
                    self._copies.popitem(last=False)
            self._copies.move_to_end(key)
            return cast("T", self._copies[key][0])


def _combined(peaks: list[Tensor], sums: list[Tensor]) -> Float64:
    """Return the (B,) logsumexp of blocks, each given by its peak and its sum relative to it."""
    logs = torch.stack(sums).cpu().numpy().astype(np.float64)
    np.log(logs, out=logs)
    logs += torch.stack(peaks).cpu().numpy()
    return np.asarray(np.logaddexp.reduce(logs, axis=0))


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute products and convolutions in full float32, never TF32, whatever the process has set.

    PyTorch allows TF32, with ten bits of mantissa, in convolutions on NVIDIA cards by default.
    """
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
