"""Looking numbers up by label id, so that they survive a rebuild that moves rows."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from zsic_index.embedding_arrays import Float32, Float64, Int64

Values = TypeVar("Values", Float32, Float64)


def by_id(known: Int64, values: Values, asked: Int64, otherwise: float) -> Values:
    """Return the value of each asked label id, in the shape of ``asked``.

    Args:
        known: (n,) distinct label ids, ascending.
        values: (n,) one for each.
        asked: label ids in any shape.
        otherwise: the value of those that are not known.
    """
    if not len(known):
        return np.full(asked.shape, otherwise, dtype=values.dtype)
    at = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return np.where(known[at] == asked, values[at], values.dtype.type(otherwise))
