"""From similarities to probabilities, and what an embedding is. Arrays in, arrays out."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from functools import cache

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from zsic_index.errors import EmbeddingError
from zsic_index.records import Activation

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

_UNIT_TOLERANCE = 2.0**-23
"""How far rounding D numbers to float32 can move a norm of 1, with room to spare."""


def check_embeddings(embeddings: npt.ArrayLike, dim: int | None = None) -> Float32:
    """Return (B, D) C-contiguous float32 unit-norm embeddings, or say what is wrong with them.

    A (D,) array is taken as one embedding. Rows are normalised in float64; one whose norm is 1 as
    far as float32 can tell stays as it is, so that checking twice changes nothing.

    Raises:
        EmbeddingError: for another shape or dtype, NaN, infinity, or a norm of about 0.
    """
    array = np.asarray(embeddings)
    if array.dtype.kind != "f":
        raise EmbeddingError(f"embeddings have dtype {array.dtype}; give floating-point ones")
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise EmbeddingError(f"embeddings have shape {array.shape}; give (B, D)")
    if dim is not None and array.shape[1] != dim:
        raise EmbeddingError(
            f"embeddings have {array.shape[1]} dimensions; this index has {dim}: "
            "use the model that the index was built with"
        )
    # Rows are taken a block at a time so that the float64 copy stays small.
    unit = np.empty(array.shape, dtype=np.float32)
    for start in range(0, len(array), 65_536):
        block = np.asarray(array[start : start + 65_536], dtype=np.float64)
        norms = np.linalg.norm(block, axis=1, keepdims=True)
        bad = np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] < 1e-6))
        if len(bad):
            raise EmbeddingError(
                f"embedding {start + int(bad[0])} has norm {float(norms[bad[0], 0]):g}; "
                "it must be finite and not 0"
            )
        norms[np.abs(norms - 1) <= _UNIT_TOLERANCE] = 1
        unit[start : start + 65_536] = block / norms
    return unit


def similarities(matrix: Float32, queries: Float32) -> Float32:
    """Return all (B, N) similarities: for small N only."""
    return queries @ matrix.T


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


def available_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def one_blas_thread() -> AbstractContextManager[object]:
    """Keep BLAS to one thread meanwhile: for worker threads that are the parallelism."""
    limited: AbstractContextManager[object] = _threadpools().limit(limits=1, user_api="blas")
    return limited


@cache
def _threadpools() -> ThreadpoolController:
    """Look the loaded BLAS libraries up once; the search takes milliseconds."""
    return ThreadpoolController()
