"""Running sums of exponentials."""

from __future__ import annotations

import numpy as np

from zsic_index.embedding_arrays import Float32, Float64

_SHIFT_FREE = 40.0
"""Largest absolute logit that is exponentiated without a shift: exp(40) is far from overflow, and
exp(-40) from underflow. Larger logits are shifted by one that is near the largest so far."""

_RISE = 2.0
"""Distance above the shift at which the shift is raised."""


class ExponentialSums:
    """Running sums of exponentials, (B,), each with a shift of its own.

    Attributes:
        relative_to: (B,) float32 logit that is subtracted before exponentiation.
    """

    def __init__(self, batch: int) -> None:
        self.relative_to = np.zeros(batch, dtype=np.float32)
        self._total = np.zeros(batch)
        self._shifted = False

    def add(self, logits: Float32, peak: Float32) -> None:
        """Add a (B, n) block of logits, which is overwritten; ``peak`` is its (B,) maximum."""
        if self._shifted or np.abs(peak).max() > _SHIFT_FREE:
            self._shift(peak)
            logits -= self.relative_to[:, None]
        np.exp(logits, out=logits)
        self._total += logits.sum(axis=1)

    def log(self) -> Float64:
        """Return the (B,) logarithms of the sums."""
        return np.asarray(np.log(self._total) + self.relative_to.astype(np.float64))

    def _shift(self, peak: Float32) -> None:
        empty = self._total == 0
        risen = empty | (peak > self.relative_to + _RISE)
        down = (self.relative_to - peak)[risen].astype(np.float64)
        self._total[risen] *= np.exp(np.minimum(down, 0.0))
        self.relative_to[risen] = peak[risen]
        self._shifted = True
