"""What an index makes of a query: from image embeddings to decisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from zsic_index.calibration import Calibration, PrecisionThresholds, required
from zsic_index.embedding_arrays import Float32
from zsic_index.label_index import LabelIndex
from zsic_index.label_index.scorers import DeepestScorer, LabelScorer, RankScorer
from zsic_index.querying.decider import Decider
from zsic_index.querying.query import Query
from zsic_index.querying.rules import LeastMargin, LeastProbability, MostNegativeMass, Rule
from zsic_index.querying.thresholds import Thresholds
from zsic_index.records import Decision, NodePrediction, Prediction

NEGATIVE_LIMIT = 0.5
"""What negative labels may have of the probability."""

CompiledQuery = Callable[[Float32], list[Decision]]
"""From (B, D) float32 unit-norm image embeddings to B decisions."""


def compile_query(query: Query, index: LabelIndex) -> CompiledQuery:
    """Do what does not depend on the images, once; return what answers.

    Raises:
        InputError: for what this index cannot answer.
        ModelError: where labels have to be encoded and the index has no model.
    """
    fitted = None
    if query.calibrated or query.sets or query.thresholds == "calibrated":
        fitted = index.load_calibration()
        index = index.with_calibration(fitted)
    answer = _decider(query, index, fitted) if query.decides else _plain(query, index)
    if query.lang is None:
        return answer
    translate = _translator(index, query.lang)
    return lambda embeddings: [translate(one) for one in answer(embeddings)]


def _rules(query: Query) -> list[Rule]:
    """Return the rules that say "none of these"."""
    rules: list[Rule] = []
    if query.none_below is not None:
        rules.append(LeastProbability(query.none_below))
    if query.none_within is not None:
        rules.append(LeastMargin(query.none_within))
    if query.negatives:
        rules.append(MostNegativeMass(NEGATIVE_LIMIT))
    return rules


def _decider(query: Query, index: LabelIndex, fitted: Calibration | None) -> CompiledQuery:
    thresholds: Thresholds | PrecisionThresholds | None
    if query.thresholds == "calibrated":
        thresholds = required(fitted.thresholds if fitted else None, "thresholds", "--precision")
    else:
        overall = None if query.threshold is None else Thresholds(query.threshold)
        thresholds = query.thresholds or overall
    limit = None
    if query.sets:
        limit = required(fitted.conformal if fitted else None, "sets", "--coverage")
    decider = Decider(
        index,
        rules=_rules(query),
        thresholds=thresholds,
        sets=limit,
        negatives=query.negatives,
    )
    return lambda embeddings: decider.decide(embeddings, top_k=query.top_k)


def _plain(query: Query, index: LabelIndex) -> CompiledQuery:
    found: Callable[[Float32], Sequence[Sequence[Prediction | NodePrediction]]]
    if query.rank is not None:
        found = RankScorer(index, rank=query.rank, top_k=query.top_k, independent=query.independent)
    elif query.deepest is not None:
        found = DeepestScorer(
            index, floor=query.deepest, by_rank=query.floors, independent=query.independent
        )
    else:
        under = index.labels_under(query.under) if query.under is not None else ()
        found = LabelScorer(
            index,
            top_k=query.top_k,
            labels=[*query.labels, *under] or None,
            encode_missing=query.encode_missing,
            over_index=query.over_index or query.under is not None,
        )
    return lambda embeddings: [Decision(list(line)) for line in found(embeddings)]


def _translator(index: LabelIndex, language: str) -> Callable[[Decision], Decision]:
    """Return what puts names of a language into predictions."""
    names = index.structure.names_in(language)

    def translate(decision: Decision) -> Decision:
        found = decision.predictions
        ids = [one.label_id for one in found if isinstance(one, Prediction) and one.label_id]
        keys = dict(zip(ids, index.label_names.keys_of(ids), strict=True))
        named = []
        for one in found:
            key = one.key if isinstance(one, NodePrediction) else keys.get(one.label_id or 0)
            named.append(replace(one, label=names.get(key or "", one.label)))
        return Decision(named, decision.reason)

    return translate
