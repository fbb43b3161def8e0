"""Deprecated: use ``zsic_index.querying.decider``."""

import warnings

from zsic_index.querying.decider import Decider, label_floors

__all__ = ["Decider", "label_floors"]

warnings.warn(
    "zsic_index.decider has moved: import from zsic_index.querying.decider",
    DeprecationWarning,
    stacklevel=2,
)
