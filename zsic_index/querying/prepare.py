"""What an index makes of a question: from image embeddings to decisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from zsic_index.calibration import Calibration, PrecisionThresholds, required
from zsic_index.embedding_arrays import Float32
from zsic_index.label_index import LabelIndex
from zsic_index.querying.decider import Decider
from zsic_index.querying.query import Question
from zsic_index.querying.rules import LeastMargin, LeastProbability, MostNegativeMass, Rule
from zsic_index.querying.thresholds import Thresholds
from zsic_index.records import Decision, NodePrediction, Prediction

NEGATIVE_LIMIT = 0.5
"""What negative labels may have of the probability."""

Answer = Callable[[Float32], list[Decision]]
"""From (B, D) float32 unit-norm image embeddings to B decisions."""


def prepare(question: Question, index: LabelIndex) -> Answer:
    """Do what does not depend on the images, once; return what answers.

    Raises:
        InputError: for what this index cannot answer.
        ModelError: where labels have to be encoded and the index has no model.
    """
    fitted = None
    if question.calibrated or question.sets or question.thresholds == "calibrated":
        fitted = index.required_calibration()
        index = index.with_calibration(fitted)
    answer = _decider(question, index, fitted) if question.decides else _plain(question, index)
    if question.lang is None:
        return answer
    translate = _translator(index, question.lang)
    return lambda embeddings: [translate(one) for one in answer(embeddings)]


def _rules(question: Question) -> list[Rule]:
    """Return the rules that say "none of these"."""
    rules: list[Rule] = []
    if question.none_below is not None:
        rules.append(LeastProbability(question.none_below))
    if question.none_within is not None:
        rules.append(LeastMargin(question.none_within))
    if question.negatives:
        rules.append(MostNegativeMass(NEGATIVE_LIMIT))
    return rules


def _decider(question: Question, index: LabelIndex, fitted: Calibration | None) -> Answer:
    thresholds: Thresholds | PrecisionThresholds | None
    if question.thresholds == "calibrated":
        thresholds = required(fitted.thresholds if fitted else None, "thresholds", "--precision")
    else:
        overall = None if question.threshold is None else Thresholds(question.threshold)
        thresholds = question.thresholds or overall
    limit = None
    if question.sets:
        limit = required(fitted.conformal if fitted else None, "sets", "--coverage")
    decider = Decider(
        index,
        rules=_rules(question),
        thresholds=thresholds,
        sets=limit,
        negatives=question.negatives,
    )
    return lambda embeddings: decider.decide(embeddings, top_k=question.top_k)


def _plain(question: Question, index: LabelIndex) -> Answer:
    found: Callable[[Float32], Sequence[Sequence[Prediction | NodePrediction]]]
    if question.rank is not None:
        found = index.rank_answers(
            rank=question.rank, top_k=question.top_k, independent=question.independent
        )
    elif question.deepest is not None:
        found = index.deepest_answers(
            floor=question.deepest, by_rank=question.floors, independent=question.independent
        )
    else:
        under = index.labels_under(question.under) if question.under is not None else ()
        found = index.answers(
            top_k=question.top_k,
            labels=[*question.labels, *under] or None,
            encode_missing=question.encode_missing,
            over_index=question.over_index or question.under is not None,
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
