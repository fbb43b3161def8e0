"""Values by label id; unlike rows, ids stay the same when an index is built again."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from zsic_index.embedding_arrays import Float32, Float64, Int64

Values = TypeVar("Values", Float32, Float64)


def look_up(ids: Int64, values: Values, label_ids: Int64, default: float) -> Values:
    """Return the value of each label id, in the shape of ``label_ids``.

    Args:
        ids: (n,) distinct label ids, ascending.
        values: (n,) value of each of ``ids``.
        label_ids: label ids to look up, in any shape.
        default: value of label ids that are not among ``ids``.
    """
    if not len(ids):
        return np.full(label_ids.shape, default, dtype=values.dtype)
    at = np.minimum(np.searchsorted(ids, label_ids), len(ids) - 1)
    return np.where(ids[at] == label_ids, values[at], values.dtype.type(default))
