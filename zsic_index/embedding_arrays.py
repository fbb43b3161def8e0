"""Array types, and the check that every embedding from outside passes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zsic_index.errors import EmbeddingError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

_UNIT_TOLERANCE = 2.0**-23
"""Tolerance of a norm of 1 after rounding to float32, with room to spare."""


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
