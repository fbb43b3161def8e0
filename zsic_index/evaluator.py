"""Deprecated: use ``zsic_index.evaluation``."""

import warnings

from zsic_index.evaluation.fitting import calibrate, fit_hubs
from zsic_index.evaluation.known import Known, References, embed, embed_references
from zsic_index.evaluation.measuring import evaluate

__all__ = ["Known", "References", "calibrate", "embed", "embed_references", "evaluate", "fit_hubs"]

warnings.warn(
    "zsic_index.evaluator has moved: import from zsic_index.evaluation",
    DeprecationWarning,
    stacklevel=2,
)
