"""Looking numbers up by label id, so that they survive a rebuild that moves rows."""

from __future__ import annotations

import numpy as np

from zsic_index.scoring import Float64, Int64


def by_id(known: Int64, values: Float64, asked: Int64, otherwise: float) -> Float64:
    """Return the value of each asked label id, in the shape of ``asked``.

    Args:
        known: (n,) distinct label ids, ascending.
        values: (n,) one for each.
        asked: label ids in any shape.
        otherwise: the value of those that are not known.
    """
    if not len(known):
        return np.full(asked.shape, otherwise)
    at = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return np.where(known[at] == asked, values[at], otherwise)
