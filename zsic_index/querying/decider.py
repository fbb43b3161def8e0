"""Decisions about images: accepted labels, or the reason why none is accepted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from zsic_index.calibration import PrecisionThresholds
from zsic_index.calibration.conformal import ConformalLimit
from zsic_index.embedding_arrays import Float32, Float64, Int64
from zsic_index.errors import ImageError, InputError
from zsic_index.images.opening import ImageSource
from zsic_index.label_index import LabelIndex
from zsic_index.querying.negatives import refuse_negatives
from zsic_index.querying.rules import Rule, RuleInput, reject
from zsic_index.querying.thresholds import Thresholds
from zsic_index.records import DEFAULT_TOP_K, Decision, Prediction
from zsic_index.scan.probabilities import activate, log_sum_exp

_LARGEST_SET = 1_000
"""Maximum number of labels in a prediction set."""


class Decider:
    """A maker of decisions with optional rules, thresholds and prediction sets."""

    def __init__(
        self,
        index: LabelIndex,
        *,
        rules: Sequence[Rule] = (),
        thresholds: Thresholds | PrecisionThresholds | None = None,
        sets: ConformalLimit | None = None,
        negatives: Sequence[str] = (),
    ) -> None:
        """Prepare decisions; negative labels are encoded here.

        Args:
            index: index that predicts the labels.
            rules: rules that reject images; the first that rejects one gives the reason.
            thresholds: least probabilities of accepted labels.
            sets: limit of prediction sets, to give these instead of the most probable labels.
            negatives: names of things that are no label, for the rule ``MostNegativeMass``.

        Raises:
            InputError: for a negative label that is a label, or is below one.
            ModelError: for negative labels if the index has no model.
        """
        self._index = index
        self._rules = rules
        self._thresholds = thresholds
        self._sets = sets
        self._negatives = (
            index.encoder.encode_labels(_check_negatives(index, negatives)) if negatives else None
        )

    def stream(
        self, images: Iterable[ImageSource], *, top_k: int = DEFAULT_TOP_K
    ) -> Iterator[Decision | ImageError]:
        """Decide about any number of images; see ``LabelIndex.stream``."""
        return self._index.encoder.stream(images, lambda unit: self.decide(unit, top_k=top_k))

    def decide(self, embeddings: Float32, *, top_k: int = DEFAULT_TOP_K) -> list[Decision]:
        """Decide about (B, D) float32 unit-norm image embeddings."""
        k = top_k if self._sets is None else min(self._sets.largest_set, _LARGEST_SET)
        scored = self._index.score(embeddings, top_k=max(k, 2))
        if not scored:
            return []
        probabilities = np.array(
            [[prediction.probability for prediction in predictions] for predictions in scored]
        )
        negative_mass = self._negative_mass(embeddings, scored)
        reasons = reject(RuleInput(probabilities, len(self._index), negative_mass), self._rules)
        decisions = []
        for predictions, floors, reason in zip(scored, self._floors(scored), reasons, strict=True):
            accepted = [
                prediction
                for prediction, floor in zip(predictions[:k], floors, strict=False)
                if prediction.probability >= floor
            ]
            if reason is None and not accepted:
                reason = (
                    "no label reaches its threshold"
                    if self._sets is None
                    else "no label is probable enough for a set"
                )
            decisions.append(Decision([] if reason else accepted, reason))
        return decisions

    def _floors(self, scored: list[list[Prediction]]) -> Float64:
        """Return the (B, k) probabilities from which each label is accepted."""
        label_ids = np.array(
            [[prediction.label_id or 0 for prediction in predictions] for predictions in scored],
            dtype=np.int64,
        )
        floors = label_floors(self._index, self._thresholds, label_ids)
        return floors if self._sets is None else np.maximum(floors, self._sets.limit)

    def _negative_mass(self, embeddings: Float32, scored: list[list[Prediction]]) -> Float64 | None:
        """Return the (B,) probabilities of the negative labels; see ``RuleInput``."""
        if self._negatives is None:
            return None
        similarities = embeddings.astype(np.float64) @ self._negatives.T.astype(np.float64)
        logits = similarities * self._index.searcher.logit_scale + self._index.searcher.logit_bias
        if self._index.info.activation == "sigmoid":
            return np.asarray(activate(logits, "sigmoid", None).max(axis=1))
        # The best label's logit and probability give the log-partition of all labels.
        best = [predictions[0] for predictions in scored]
        partition = np.array(
            [prediction.logit - np.log(prediction.probability) for prediction in best]
        )
        mass = log_sum_exp(logits)
        return np.asarray(np.exp(mass - np.logaddexp(mass, partition)))


def label_floors(
    index: LabelIndex, thresholds: Thresholds | PrecisionThresholds | None, label_ids: Int64
) -> Float64:
    """Return the probability from which each label is accepted, in the shape of ``label_ids``."""
    match thresholds:
        case None:
            return np.zeros(label_ids.shape)
        case PrecisionThresholds():
            return thresholds.of(label_ids)
        case Thresholds():
            distinct, places = np.unique(label_ids, return_inverse=True)
            ids = distinct.tolist()
            ranks = _ranks(index, ids) if thresholds.ranks else {}
            floors = [
                thresholds.of(name, ranks.get(label_id))
                for label_id, name in zip(ids, index.label_names.names_of(ids), strict=True)
            ]
            return np.array(floors)[places].reshape(label_ids.shape)


def _ranks(index: LabelIndex, label_ids: Sequence[int]) -> dict[int, str]:
    """Return the rank of each label that has one, by label id."""
    structure = index.structure
    taxonomy = structure.taxonomy
    ranks = {}
    for label_id, key in zip(label_ids, index.label_names.keys_of(label_ids), strict=True):
        rank = int(taxonomy.rank_of[structure.find(key)])
        if rank >= 0:
            ranks[label_id] = taxonomy.ranks[rank]
    return ranks


def _check_negatives(index: LabelIndex, negatives: Sequence[str]) -> list[str]:
    """Return negative labels unless one of them is a label or below one.

    Raises:
        InputError: if one of them is.
    """
    structure = index.structure
    taxonomy = structure.taxonomy
    names: dict[str, str] = {}
    for node in taxonomy.label_nodes.tolist():
        own = taxonomy.names[node]
        for name in (own, *taxonomy.aliases.get(node, ()), *taxonomy.translations(node)):
            names.setdefault(name, own)
    # Names below a label are in the taxonomy themselves; ancestors of other names are unknown.
    kept, refused = refuse_negatives(negatives, names, {})
    if refused:
        raise InputError(f"{refused[0].reason}: leave it out")
    return kept
