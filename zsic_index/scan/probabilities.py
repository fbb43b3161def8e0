"""Logits to probabilities. Arrays only."""

from __future__ import annotations

import numpy as np

from zsic_index.embedding_arrays import Float64
from zsic_index.records import Activation


def activate(logits: Float64, activation: Activation, log_partition: Float64 | None) -> Float64:
    """Turn (B, k) logits into probabilities of the same shape.

    Args:
        logits: float64 logits.
        activation: ``softmax`` needs the (B,) log-partition over the whole label set; ``sigmoid``
            looks at each logit alone.
        log_partition: see above; ignored for ``sigmoid``.
    """
    if activation == "softmax":
        assert log_partition is not None, "softmax is taken over all labels, never over the top-k"
        # Rounding can put the only label's logit an ulp over the log-partition.
        return np.minimum(np.exp(logits - log_partition[:, None]), 1.0)
    # 1 / (1 + exp(-x)), written so that neither tail overflows.
    return np.exp(-np.logaddexp(0.0, -logits))


def log_sum_exp(logits: Float64) -> Float64:
    """Return logsumexp over the last axis of (B, N) logits as (B,) float64."""
    top = logits.max(axis=-1)
    return np.asarray(top + np.log(np.exp(logits - top[..., None]).sum(axis=-1)))
