"""How good an index's answers are: labelled images, figures, and the page that shows them.

Nothing here loads a model or opens a store: embeddings and predictions come as arrays.
"""

from zsic_index.evaluation.labelled import Labelled, LabelledImage, read_labelled
from zsic_index.evaluation.page import render_page
from zsic_index.evaluation.record import Evaluation, as_dict
from zsic_index.evaluation.unlabelled import read_unlabelled

__all__ = [
    "Evaluation",
    "Labelled",
    "LabelledImage",
    "as_dict",
    "read_labelled",
    "read_unlabelled",
    "render_page",
]
