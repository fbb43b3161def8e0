"""Predictions of an index for labelled images, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zsic_index.calibration.sigmoid import ECE_TOP_K
from zsic_index.embedding_arrays import Float64, Int64
from zsic_index.evaluation.embedding import LabelledEmbeddings
from zsic_index.label_index import LabelIndex
from zsic_index.scan.probabilities import activate


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPredictions:
    """The k most probable labels of B labelled images, and probabilities of the correct ones.

    Attributes:
        rows: (B, k) int64 rows of labels, best first.
        probabilities: (B, k) float64.
        lowest_correct: (B,) float64 probability of the least probable correct label.
        highest_correct: (B,) float64 probability of the most probable correct label.
        log_partition: (B,) float64; None under sigmoid.
    """

    rows: Int64
    probabilities: Float64
    lowest_correct: Float64
    highest_correct: Float64
    log_partition: Float64 | None

    @classmethod
    def of(cls, index: LabelIndex, labelled: LabelledEmbeddings, top_k: int) -> LabelledPredictions:
        """Search an index for labelled images, at most ``len(index)`` labels each."""
        scan = index.searcher.search(labelled.embeddings, min(top_k, len(index)))
        truth = labelled.truth
        partition = scan.log_partition
        activation = index.info.activation
        logits = index.searcher.pair_logits(labelled.embeddings, truth.image, truth.label)
        of_pairs = activate(
            logits[:, None], activation, None if partition is None else partition[truth.image]
        )[:, 0]
        lowest, highest = np.full(truth.images, np.inf), np.zeros(truth.images)
        np.minimum.at(lowest, truth.image, of_pairs)
        np.maximum.at(highest, truth.image, of_pairs)
        return cls(
            scan.rows,
            activate(scan.logits, activation, partition),
            lowest,
            highest,
            partition,
        )


def ece_top_k(index: LabelIndex) -> int:
    """Return the number of labels per image that calibration error is measured on."""
    return 1 if index.info.activation == "softmax" else min(ECE_TOP_K, len(index))
