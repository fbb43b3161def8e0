"""Deprecated: use ``zsic_index.evaluation``."""

import warnings

from zsic_index.evaluation import LabelledEmbeddings as Known
from zsic_index.evaluation import ReferenceEmbeddings as References
from zsic_index.evaluation import calibrate, embed_references, evaluate, fit_hubs
from zsic_index.evaluation import embed_labelled as embed

__all__ = ["Known", "References", "calibrate", "embed", "embed_references", "evaluate", "fit_hubs"]

warnings.warn(
    "zsic_index.evaluator has moved: import from zsic_index.evaluation",
    DeprecationWarning,
    stacklevel=2,
)
