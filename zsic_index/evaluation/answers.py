"""Predictions of an index for labelled images, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zsic_index.embedding_arrays import Float64, Int64
from zsic_index.evaluation.known import Known
from zsic_index.label_index import LabelIndex
from zsic_index.scan.goal import ScanResult
from zsic_index.scan.probabilities import activate

SHOWN_UNDER_SIGMOID = 5
"""Labels per image that calibration is judged on for sigmoid models."""


@dataclass(frozen=True, slots=True, eq=False)
class _Answers:
    """What an index says of B images.

    Attributes:
        rows: (B, k) int64, best first.
        probabilities: (B, k) float64.
        right: (B,) float64 probability of the right label; of several the least.
        best_right: (B,) the same, of several the largest.
        log_partition: (B,) float64; None under sigmoid.
    """

    rows: Int64
    probabilities: Float64
    right: Float64
    best_right: Float64
    log_partition: Float64 | None

    @classmethod
    def of(cls, index: LabelIndex, known: Known, top_k: int) -> _Answers:
        found: ScanResult = index.searcher.search(known.embeddings, top_k)
        truth = known.truth
        partition = found.log_partition
        activation = index.info.activation
        logits = index.searcher.pair_logits(known.embeddings, truth.image, truth.label)
        of_pairs = activate(
            logits[:, None], activation, None if partition is None else partition[truth.image]
        )[:, 0]
        least, most = np.full(truth.images, np.inf), np.zeros(truth.images)
        np.minimum.at(least, truth.image, of_pairs)
        np.maximum.at(most, truth.image, of_pairs)
        return cls(
            found.rows,
            activate(found.logits, activation, partition),
            least,
            most,
            partition,
        )


def _shown(index: LabelIndex) -> int:
    return 1 if index.info.activation == "softmax" else min(SHOWN_UNDER_SIGMOID, len(index))
