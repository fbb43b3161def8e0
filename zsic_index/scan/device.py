"""The scan on a GPU, with the same contract as ``exact.scan``.

The device finds candidates and sums; candidates are settled on the CPU from the float32 matrix, so
rows and similarities equal those of the CPU scan to the last bit. In half precision the matrix
takes half the memory; blocks are converted to float32 before the product, so that the rounding of
embeddings is the only error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from zsic_index.embedding_arrays import Float32, Float64
from zsic_index.scan.candidates import Candidates, settle
from zsic_index.scan.exact import QUERY_BATCH
from zsic_index.scan.spec import BatchResult, ScanResult, ScanSpec, join_batches

BLOCK_ELEMENTS = 1 << 25
"""Logits per block: 128 MiB of float32."""

LEAST_BLOCK = 1 << 12

_COPIED_ROWS = 1 << 16

_ROOM = 64
"""Candidates beyond k."""


class DeviceMatrix:
    """Label embeddings on a device.

    Attributes:
        rounding: largest norm of a row's rounding error; 0 in float32. The error of the
            log-partition is at most ``logit_scale`` times this.
    """

    def __init__(
        self,
        matrix: Float32,
        device: str | torch.device,
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    ) -> None:
        """Copy (N, D) float32 embeddings to the device, block by block.

        Raises:
            torch.OutOfMemoryError: when they do not fit.
        """
        self._exact = matrix
        self._tensor = torch.empty(matrix.shape, dtype=getattr(torch, dtype), device=device)
        self.rounding = 0.0
        for start in range(0, len(matrix), _COPIED_ROWS):
            # Copied because torch refuses read-only memory maps.
            block = torch.from_numpy(matrix[start : start + _COPIED_ROWS].copy())
            rounded = block.to(self._tensor.dtype)
            self._tensor[start : start + _COPIED_ROWS] = rounded
            if dtype != "float32":
                off = torch.linalg.vector_norm(block - rounded.float(), dim=1)
                self.rounding = max(self.rounding, float(off.max()))

    def scan(
        self,
        queries: Float32,
        top_k: int,
        *,
        logit_scale: float = 1.0,
        logit_bias: float = 0.0,
        partition: bool = True,
        block_elements: int = BLOCK_ELEMENTS,
    ) -> ScanResult:
        """Find the k best rows for each query, and the log-partition; see ``exact.scan``.

        Args:
            queries: (B, D) float32 unit-norm image embeddings.
            top_k: k; more than N is taken as N.
            logit_scale: multiplier of similarities, > 0.
            logit_bias: added to every logit.
            partition: compute the log-partition.
            block_elements: number of logits, B times the rows of a block, held at a time.
        """
        spec = ScanSpec.of(
            self._exact.shape, top_k, logit_scale, partition=partition, rounding=self.rounding
        )
        results = []
        with torch.inference_mode(), full_precision():
            for start in range(0, len(queries), QUERY_BATCH):
                batch = queries[start : start + QUERY_BATCH]
                results.append(self._scan_batch(batch, spec, block_elements))
        return join_batches(results, spec, logit_bias)

    def _scan_batch(self, queries: Float32, spec: ScanSpec, block_elements: int) -> BatchResult:
        count, device = len(self._tensor), self._tensor.device
        scaled = torch.from_numpy(queries * np.float32(spec.scale)).to(device)
        held = min(spec.k + _ROOM, count)
        values = torch.full((len(queries), 0), -torch.inf, device=device)
        rows = torch.zeros((len(queries), 0), dtype=torch.int64, device=device)
        peaks, sums = [], []
        block = max(LEAST_BLOCK, block_elements // len(queries))
        for first in range(0, count, block):
            logits = scaled @ self._tensor[first : first + block].float().T
            best, at = logits.topk(min(held, logits.shape[1]))
            values, rows = torch.cat([values, best], 1), torch.cat([rows, at + first], 1)
            values, order = values.topk(min(held, values.shape[1]))
            rows = rows.gather(1, order)
            if spec.partition:
                peak = best[:, :1]
                peaks.append(peak[:, 0])
                sums.append(logits.sub_(peak).exp_().sum(1))
        near = np.float32(spec.margin * spec.scale)
        held_values, held_rows = values.cpu().numpy(), rows.cpu().numpy()
        # If the worst of them is within the margin, rows that were dropped may be as well.
        overflowed = (held_values[:, -1] >= held_values[:, spec.k - 1] - near) & (held < count)
        log_sums = _combined(peaks, sums) if spec.partition else np.zeros(len(queries))
        candidates = Candidates(held_values, held_rows, overflowed, log_sums)
        return settle(self._exact, queries, candidates, spec)


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
