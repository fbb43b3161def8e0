"""A stand-in for a GPU: the CPU, which an index is told is ``cuda``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from zsic_index.embedding_arrays import Float32
from zsic_index.scan.device import DeviceMatrix
from zsic_index.scan.spec import ScanResult


class FakeGpu:
    """Counts what happens on the stand-in, and can run out of memory.

    Attributes:
        copies: number of label matrices that were copied to it.
        scans: number of scans on it, those that failed included.
        on_copy: called before a copy; may raise.
        on_block: called with the number of a block of logits before it is computed; may raise.
    """

    def __init__(self) -> None:
        self.copies = 0
        self.scans = 0
        self.on_copy: Callable[[], None] = lambda: None
        self.on_block: Callable[[int], None] = lambda _number: None


@contextmanager
def fake_gpu(*, block_elements: int = 1 << 14, name: str = "cuda") -> Iterator[FakeGpu]:
    """Let indexes that are opened for device ``auto`` or ``name`` scan on a stand-in.

    Args:
        block_elements: see ``DeviceMatrix.scan``.
        name: device that the stand-in is called.
    """
    gpu = FakeGpu()

    class OnCpu(DeviceMatrix):
        def __init__(self, matrix: Float32, _device: object, dtype: Any) -> None:
            gpu.on_copy()
            super().__init__(matrix, "cpu", dtype)
            gpu.copies += 1
            self._blocks = 0

        @property
        def reduces(self) -> bool:
            return name != "mps"

        def scan(self, *arguments: Any, **options: Any) -> ScanResult:
            gpu.scans += 1
            self._blocks = 0
            return super().scan(*arguments, block_elements=block_elements, **options)

        def _logits(self, *arguments: Any) -> Tensor:
            gpu.on_block(self._blocks)
            self._blocks += 1
            return super()._logits(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zsic_index.label_index.gpu_copy.MIN_GPU_ELEMENTS", 1)
        patch.setattr(
            "zsic_index.encoders.two_towers.select_device", lambda _name: torch.device(name)
        )
        patch.setattr("zsic_index.scan.device.DeviceMatrix", OnCpu)
        yield gpu
