"""Calibrate an index on labelled images, and measure it on others.

``reading`` lists image files with their labels; ``embedding`` embeds them for an index. From there
``fitting`` makes a Calibration, and ``measuring`` (through ``predictions`` and ``metrics``) makes
an Evaluation (``record``), which ``report`` writes as a table, JSON or a ``page``.
The fits themselves are in ``zsic_index.calibration``, which knows arrays only.
"""

from zsic_index.evaluation.embedding import (
    LabelledEmbeddings,
    ReferenceEmbeddings,
    embed_labelled,
    embed_references,
)
from zsic_index.evaluation.fitting import calibrate, fit_hubs
from zsic_index.evaluation.measuring import evaluate
from zsic_index.evaluation.page import render_page
from zsic_index.evaluation.reading import (
    LabelledImage,
    LabelledImages,
    read_labelled,
    read_unlabelled,
)
from zsic_index.evaluation.record import Evaluation, as_dict

__all__ = [
    "Evaluation",
    "LabelledEmbeddings",
    "LabelledImage",
    "LabelledImages",
    "ReferenceEmbeddings",
    "as_dict",
    "calibrate",
    "embed_labelled",
    "embed_references",
    "evaluate",
    "fit_hubs",
    "read_labelled",
    "read_unlabelled",
    "render_page",
]
