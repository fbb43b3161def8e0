"""Compilation of a query against an index, into a function from embeddings to decisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from zsic_index.calibration import Calibration, PrecisionThresholds, require_part
from zsic_index.embedding_arrays import Float32
from zsic_index.label_index import LabelIndex
from zsic_index.label_index.scorers import DeepestScorer, LabelScorer, RankScorer
from zsic_index.querying.decider import Decider
from zsic_index.querying.query import Query
from zsic_index.querying.rules import LeastMargin, LeastProbability, MostNegativeMass, Rule
from zsic_index.querying.thresholds import Thresholds
from zsic_index.records import Decision, NodePrediction, Prediction

NEGATIVE_LIMIT = 0.5
"""Probability of the negative labels above which an image is rejected."""

CompiledQuery = Callable[[Float32], list[Decision]]
"""Maps (B, D) float32 unit-norm image embeddings to B decisions."""


def compile_query(query: Query, index: LabelIndex) -> CompiledQuery:
    """Compile a query against an index; all that does not depend on images is done here, once.

    Raises:
        InputError: if the index cannot answer the query.
        ModelError: if labels have to be encoded and the index has no model.
    """
    calibration = None
    if query.calibrated or query.sets or query.thresholds == "calibrated":
        calibration = index.load_calibration()
        index = index.with_calibration(calibration)
    decide = (
        _with_decider(query, index, calibration) if query.decides else _most_probable(query, index)
    )
    if query.lang is None:
        return decide
    translate = _translator(index, query.lang)
    return lambda embeddings: [translate(decision) for decision in decide(embeddings)]


def _rules(query: Query) -> list[Rule]:
    """Return the rules that reject images."""
    rules: list[Rule] = []
    if query.none_below is not None:
        rules.append(LeastProbability(query.none_below))
    if query.none_within is not None:
        rules.append(LeastMargin(query.none_within))
    if query.negatives:
        rules.append(MostNegativeMass(NEGATIVE_LIMIT))
    return rules


def _with_decider(
    query: Query, index: LabelIndex, calibration: Calibration | None
) -> CompiledQuery:
    """Compile a query with thresholds, prediction sets or rules."""
    thresholds: Thresholds | PrecisionThresholds | None
    if query.thresholds == "calibrated":
        thresholds = require_part(
            calibration.thresholds if calibration else None, "thresholds", "--precision"
        )
    else:
        overall = None if query.threshold is None else Thresholds(query.threshold)
        thresholds = query.thresholds or overall
    limit = None
    if query.sets:
        limit = require_part(calibration.conformal if calibration else None, "sets", "--coverage")
    decider = Decider(
        index,
        rules=_rules(query),
        thresholds=thresholds,
        sets=limit,
        negatives=query.negatives,
    )
    return lambda embeddings: decider.decide(embeddings, top_k=query.top_k)


def _most_probable(query: Query, index: LabelIndex) -> CompiledQuery:
    """Compile a query for the most probable labels or nodes."""
    predict: Callable[[Float32], Sequence[Sequence[Prediction | NodePrediction]]]
    if query.rank is not None:
        predict = RankScorer(
            index, rank=query.rank, top_k=query.top_k, independent=query.independent
        )
    elif query.deepest is not None:
        predict = DeepestScorer(
            index, floor=query.deepest, by_rank=query.floors, independent=query.independent
        )
    else:
        under = index.labels_under(query.under) if query.under is not None else ()
        predict = LabelScorer(
            index,
            top_k=query.top_k,
            labels=[*query.labels, *under] or None,
            encode_missing=query.encode_missing,
            over_index=query.over_index or query.under is not None,
        )
    return lambda embeddings: [Decision(list(predictions)) for predictions in predict(embeddings)]


def _translator(index: LabelIndex, language: str) -> Callable[[Decision], Decision]:
    """Return a function that translates the names in a decision into a language."""
    names = index.structure.names_in(language)

    def translate(decision: Decision) -> Decision:
        label_ids = [
            prediction.label_id
            for prediction in decision.predictions
            if isinstance(prediction, Prediction) and prediction.label_id
        ]
        keys = dict(zip(label_ids, index.label_names.keys_of(label_ids), strict=True))
        translated = []
        for prediction in decision.predictions:
            key = (
                prediction.key
                if isinstance(prediction, NodePrediction)
                else keys.get(prediction.label_id or 0)
            )
            name = names.get(key or "", prediction.label)
            translated.append(replace(prediction, label=name))
        return Decision(translated, decision.reason)

    return translate
