"""What can be asked about images: one record for the command line, the service and its client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from zsic_index.calibration import Calibration, PrecisionThresholds, required
from zsic_index.decider import Decider, Decision
from zsic_index.decisions import (
    LeastMargin,
    LeastProbability,
    MostNegativeMass,
    Rule,
    Thresholds,
)
from zsic_index.errors import InputError
from zsic_index.label_index import DEFAULT_TOP_K, LabelIndex
from zsic_index.records import NodePrediction, Prediction
from zsic_index.scoring import Float32

NEGATIVE_LIMIT = 0.5
"""What negative labels may have of the probability."""

Answer = Callable[[Float32], list[Decision]]
"""From (B, D) float32 unit-norm image embeddings to B decisions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked about each of any number of images.

    Attributes:
        top_k: k, at least 1: labels or nodes of an answer, at most.
        labels: only among these of the index; the probabilities are over them.
        encode_missing: encode those of them that the index does not have.
        over_index: also give each probability over the whole index.
        under: only among the labels below a node of the taxonomy.
        rank: roll up to a rank of the taxonomy.
        deepest: the deepest node whose probability reaches this, above 0 and up to 1.
        floors: other floors than ``deepest``, for nodes of some ranks.
        independent: sigmoid models: a node's probability is that of at least one of its labels.
        threshold: leave out labels that are less probable.
        thresholds: the same for each label or rank; ``calibrated`` for those that were fitted.
        sets: all labels of the prediction set that was fitted.
        none_below: "none of these" where the best label is less probable.
        none_within: "none of these" where the best label is so little ahead of the second.
        negatives: names of what is none of the labels.
        calibrated: answer with what was fitted for the index.
        lang: give names in this language, where there are any.
    """

    top_k: int = DEFAULT_TOP_K
    labels: Sequence[str] = ()
    encode_missing: bool = False
    over_index: bool = False
    under: str | None = None
    rank: str | None = None
    deepest: float | None = None
    floors: Mapping[str, float] | None = None
    independent: bool = False
    threshold: float | None = None
    thresholds: Thresholds | Literal["calibrated"] | None = None
    sets: bool = False
    none_below: float | None = None
    none_within: float | None = None
    negatives: Sequence[str] = ()
    calibrated: bool = False
    lang: str | None = None

    def __post_init__(self) -> None:
        """Check what goes together.

        Raises:
            InputError: when two things were asked for that exclude each other.
        """
        if sum(one is not None for one in (self.under, self.rank, self.deepest)) > 1:
            raise InputError("under, rank and deepest exclude each other: give one of them")
        if self.of_nodes and (self.labels or self.over_index):
            raise InputError("rank and deepest are over the whole index: leave labels out")
        if self.floors and self.deepest is None:
            raise InputError("floors go with deepest: give that as well")
        if self.independent and not self.of_nodes:
            raise InputError("independent is about nodes: give rank or deepest as well")
        if self.threshold is not None and self.thresholds is not None:
            raise InputError("threshold and thresholds exclude each other: give one of them")
        for name, value in self._probabilities().items():
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"{name} is {value}; it must be from 0 to 1")
        if self._decides and (self.of_nodes or self.labels or self.under or self.over_index):
            raise InputError(
                "thresholds, sets and 'none of these' are about all labels: leave labels, under, "
                "rank, deepest and over_index out"
            )

    @property
    def of_nodes(self) -> bool:
        """Whether answers are nodes of the taxonomy, not labels."""
        return self.rank is not None or self.deepest is not None

    def prepare(self, index: LabelIndex) -> Answer:
        """Do what does not depend on the images, once; return what answers.

        Raises:
            InputError: for what this index cannot answer.
            ModelError: where labels have to be encoded and the index has no model.
        """
        fitted = None
        if self.calibrated or self.sets or self.thresholds == "calibrated":
            fitted = index.required_calibration()
            index = index.with_calibration(fitted)
        answer = self._decider(index, fitted) if self._decides else self._plain(index)
        if self.lang is None:
            return answer
        translate = _translator(index, self.lang)
        return lambda embeddings: [translate(one) for one in answer(embeddings)]

    @property
    def _decides(self) -> bool:
        return bool(
            self._rules() or self.sets or self.threshold is not None or self.thresholds is not None
        )

    def _probabilities(self) -> dict[str, float | None]:
        names = ("deepest", "threshold", "none_below", "none_within")
        floors = {f"the floor of {rank!r}": value for rank, value in (self.floors or {}).items()}
        return {name: getattr(self, name) for name in names} | floors

    def _rules(self) -> list[Rule]:
        """Return the rules that say "none of these"."""
        rules: list[Rule] = []
        if self.none_below is not None:
            rules.append(LeastProbability(self.none_below))
        if self.none_within is not None:
            rules.append(LeastMargin(self.none_within))
        if self.negatives:
            rules.append(MostNegativeMass(NEGATIVE_LIMIT))
        return rules

    def _decider(self, index: LabelIndex, fitted: Calibration | None) -> Answer:
        thresholds: Thresholds | PrecisionThresholds | None
        if self.thresholds == "calibrated":
            thresholds = required(
                fitted.thresholds if fitted else None, "thresholds", "--precision"
            )
        else:
            overall = None if self.threshold is None else Thresholds(self.threshold)
            thresholds = self.thresholds or overall
        limit = None
        if self.sets:
            limit = required(fitted.conformal if fitted else None, "sets", "--coverage")
        decider = Decider(
            index,
            rules=self._rules(),
            thresholds=thresholds,
            sets=limit,
            negatives=self.negatives,
        )
        return lambda embeddings: decider.decide(embeddings, top_k=self.top_k)

    def _plain(self, index: LabelIndex) -> Answer:
        found: Callable[[Float32], Sequence[Sequence[Prediction | NodePrediction]]]
        if self.rank is not None:
            found = index.rank_answers(
                rank=self.rank, top_k=self.top_k, independent=self.independent
            )
        elif self.deepest is not None:
            found = index.deepest_answers(
                floor=self.deepest, by_rank=self.floors, independent=self.independent
            )
        else:
            under = index.labels_under(self.under) if self.under is not None else ()
            found = index.answers(
                top_k=self.top_k,
                labels=[*self.labels, *under] or None,
                encode_missing=self.encode_missing,
                over_index=self.over_index or self.under is not None,
            )
        return lambda embeddings: [Decision(list(line)) for line in found(embeddings)]


def _translator(index: LabelIndex, language: str) -> Callable[[Decision], Decision]:
    """Return what puts names of a language into predictions."""
    names = index.names_in(language)

    def translate(decision: Decision) -> Decision:
        found = decision.predictions
        ids = [one.label_id for one in found if isinstance(one, Prediction) and one.label_id]
        keys = dict(zip(ids, index.keys_of(ids), strict=True))
        named = []
        for one in found:
            key = one.key if isinstance(one, NodePrediction) else keys.get(one.label_id or 0)
            named.append(replace(one, label=names.get(key or "", one.label)))
        return Decision(named, decision.reason)

    return translate
