"""From an index's answers to decisions: what is accepted, and why an image shows none of it."""

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
"""Labels of a prediction set that are given, at most."""


class Decider:
    """Decides with rules and thresholds; what it is not given, it does not ask for."""

    def __init__(
        self,
        index: LabelIndex,
        *,
        rules: Sequence[Rule] = (),
        thresholds: Thresholds | PrecisionThresholds | None = None,
        sets: ConformalLimit | None = None,
        negatives: Sequence[str] = (),
    ) -> None:
        """Prepare decisions.

        Args:
            index: what answers.
            rules: the first that rejects an image says why.
            thresholds: what labels have to reach.
            sets: give prediction sets instead of the most probable labels.
            negatives: names of what is none of the labels, for a rule about them.

        Raises:
            InputError: for a negative label that is a label, or is below one.
            ModelError: for negative labels when the index has no model.
        """
        self._index = index
        self._rules = rules
        self._thresholds = thresholds
        self._sets = sets
        self._negatives = (
            index.encoder.encode_labels(_checked(index, negatives)) if negatives else None
        )

    def stream(
        self, images: Iterable[ImageSource], *, top_k: int = DEFAULT_TOP_K
    ) -> Iterator[Decision | ImageError]:
        """Decide about any number of images; see ``LabelIndex.stream``."""
        return self._index.encoder.stream(images, lambda unit: self.decide(unit, top_k=top_k))

    def decide(self, embeddings: Float32, *, top_k: int = DEFAULT_TOP_K) -> list[Decision]:
        """Decide about (B, D) float32 unit-norm image embeddings."""
        wanted = top_k if self._sets is None else min(self._sets.largest_set, _LARGEST_SET)
        found = self._index.score(embeddings, top_k=max(wanted, 2))
        if not found:
            return []
        probabilities = np.array([[one.probability for one in line] for line in found])
        answers = RuleInput(probabilities, len(self._index), self._negative_mass(embeddings, found))
        reasons = reject(answers, self._rules)
        floors = self._floors(found)
        decisions = []
        for line, floor, reason in zip(found, floors, reasons, strict=True):
            accepted = [
                one
                for one, least in zip(line[:wanted], floor, strict=False)
                if one.probability >= least
            ]
            if reason is None and not accepted:
                reason = (
                    "no label reaches its threshold"
                    if self._sets is None
                    else "no label is probable enough for a set"
                )
            decisions.append(Decision([] if reason else accepted, reason))
        return decisions

    def _floors(self, found: list[list[Prediction]]) -> Float64:
        """Return (B, k) what each label has to reach."""
        ids = np.array([[one.label_id or 0 for one in line] for line in found], dtype=np.int64)
        floors = label_floors(self._index, self._thresholds, ids)
        return floors if self._sets is None else np.maximum(floors, self._sets.limit)

    def _negative_mass(self, embeddings: Float32, found: list[list[Prediction]]) -> Float64 | None:
        if self._negatives is None:
            return None
        similarities = embeddings.astype(np.float64) @ self._negatives.T.astype(np.float64)
        logits = similarities * self._index.searcher.logit_scale + self._index.searcher.logit_bias
        if self._index.info.activation == "sigmoid":
            return np.asarray(activate(logits, "sigmoid", None).max(axis=1))
        # The best label's logit and probability give the log-partition of all labels.
        partition = np.array([line[0].logit - np.log(line[0].probability) for line in found])
        mass = log_sum_exp(logits)
        return np.asarray(np.exp(mass - np.logaddexp(mass, partition)))


def label_floors(
    index: LabelIndex, thresholds: Thresholds | PrecisionThresholds | None, label_ids: Int64
) -> Float64:
    """Return what each label of an index has to reach, in the shape of ``label_ids``."""
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
    structure = index.structure
    taxonomy = structure.taxonomy
    found = {}
    for label_id, key in zip(label_ids, index.label_names.keys_of(label_ids), strict=True):
        rank = int(taxonomy.rank_of[structure.find(key)])
        if rank >= 0:
            found[label_id] = taxonomy.ranks[rank]
    return found


def _checked(index: LabelIndex, negatives: Sequence[str]) -> list[str]:
    """Return negative labels, when none of them is a label or below one."""
    structure = index.structure
    taxonomy = structure.taxonomy
    names: dict[str, str] = {}
    for node in taxonomy.label_nodes.tolist():
        own = taxonomy.names[node]
        for name in (own, *taxonomy.aliases.get(node, ()), *taxonomy.translations(node)):
            names.setdefault(name, own)
    # What is below a label of the taxonomy is in it: nothing else is known to be above a name.
    kept, refused = refuse_negatives(negatives, names, {})
    if refused:
        raise InputError(f"{refused[0].reason}: leave it out")
    return kept
