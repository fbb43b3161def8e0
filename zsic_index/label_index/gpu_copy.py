"""The label matrix of an open index on a GPU."""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING, Literal

from zsic_index.errors import is_out_of_memory
from zsic_index.index_files import IndexFiles
from zsic_index.records import IndexInfo

if TYPE_CHECKING:
    from zsic_index.scan.device import DeviceMatrix

logger = logging.getLogger("zsic_index")

MIN_GPU_ELEMENTS = 1 << 24
"""Size of a label matrix from which a GPU is used: 32,768 rows of 512 dimensions."""


class GpuCopy:
    """The label matrix on a GPU, copied at the first search; shared by searchers of one index."""

    def __init__(self, info: IndexInfo, files: IndexFiles, device: str) -> None:
        self._half = info.kind == "float16"
        self._files = files
        self._device = device
        self._matrix: DeviceMatrix | None = None
        self._lock = threading.Lock()

    def matrix(self, *, reduced: bool) -> DeviceMatrix | None:
        """Return the matrix on the GPU; None without a GPU, or where it is not worth the copy.

        Args:
            reduced: rows are to be reduced to labels or groups, which only some devices can.
        """
        with self._lock:
            if self._matrix is None:
                self._matrix = self._copied(reduced=reduced)
            if self._matrix is None or (reduced and not self._matrix.reduces):
                return None
            return self._matrix

    def give_up(self) -> None:
        """Free the copy, and scan on the CPU from now on, after a scan that did not fit."""
        with self._lock:
            if self._matrix is None:
                return
            logger.warning(
                "a scan of %d rows x %d does not fit into the memory of %s: scanning on the CPU",
                *self._files.matrix.shape,
                self._matrix.device,
            )
            self._matrix = None
            self._device = "cpu"

    def _copied(self, *, reduced: bool) -> DeviceMatrix | None:
        matrix = self._files.matrix
        if self._device == "cpu" or matrix.size < MIN_GPU_ELEMENTS:
            return None
        if self._device == "auto" and "torch" not in sys.modules:
            # Without a model nothing needs torch, and importing it takes longer than many scans.
            return None
        from zsic_index.encoders.two_towers import select_device

        device = select_device(self._device)
        if device.type == "cpu":
            return None
        from zsic_index.scan.device import DeviceMatrix
        from zsic_index.scan.device_segments import REDUCING_DEVICES

        if reduced and device.type not in REDUCING_DEVICES:
            return None
        dtype: Literal["float16", "float32"] = "float16" if self._half else "float32"
        try:
            return DeviceMatrix(matrix, device, dtype)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        logger.warning(
            "%d rows x %d do not fit into the memory of %s: scanning on the CPU",
            *matrix.shape,
            device,
        )
        self._device = "cpu"
        return None
