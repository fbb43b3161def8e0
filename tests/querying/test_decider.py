"""Thresholds, sets and "none of these", on an index of the built-in model."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tests.support import oracle
from tests.support.stores import copy_store
from zsic_index import InputError, LabelIndex, builtin
from zsic_index.calibration.conformal import ConformalLimit
from zsic_index.cli import main
from zsic_index.querying.decider import Decider
from zsic_index.querying.rules import LeastMargin, LeastProbability, MostNegativeMass
from zsic_index.querying.thresholds import Thresholds
from zsic_index.records import Decision

LABELS = """\
id,label,rank,parent,aliases
1,dog,animal,,hound
2,cat,animal,,
3,car,thing,,
4,key,thing,,
"""


@pytest.fixture(scope="module", params=["builtin:clip", "builtin:siglip"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decided")
    path, store = folder / "labels.csv", folder / "store.db"
    path.write_text(LABELS, encoding="utf-8")
    LabelIndex.build(path, model=request.param, name="a", store=store).close()
    return store


@pytest.fixture
def index(built: Path, store: Path) -> LabelIndex:
    return LabelIndex.open("a", store=copy_store(built, store))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def decided(index: LabelIndex, **how: object) -> list[Decision]:
    embeddings = index.embed(builtin.samples()[:12])
    return Decider(index, **how).decide(embeddings, top_k=4)  # type: ignore[arg-type]


def test_nothing_asked_for_changes_nothing(index: LabelIndex) -> None:
    plain = index.classify(builtin.samples()[:12], top_k=4)
    for decision, predictions in zip(decided(index), plain, strict=True):
        assert [p.label_id for p in decision.predictions] == [p.label_id for p in predictions]
        assert decision.reason is None


def test_the_nearest_threshold_counts(index: LabelIndex) -> None:
    thresholds = Thresholds(0.0, {"thing": 2.0}, {"key": 0.0, "cat": 2.0})
    for decision in decided(index, thresholds=thresholds):
        assert {p.label for p in decision.predictions} == {"dog", "key"}


def test_no_label_over_its_threshold_is_none_of_these(index: LabelIndex) -> None:
    for decision in decided(index, thresholds=Thresholds(1.1)):
        assert decision == Decision([], "no label reaches its threshold")


def test_rules_give_their_reasons(index: LabelIndex) -> None:
    plain = index.classify(builtin.samples()[:12], top_k=4)
    best = np.array([[p.probability for p in line] for line in plain])
    floor, margin = float(np.median(best[:, 0])), float(np.median(best[:, 0] - best[:, 1]))
    found = decided(index, rules=[LeastProbability(floor), LeastMargin(margin)])
    for line, decision in zip(best, found, strict=True):
        if line[0] < floor - 1e-6:
            assert decision.reason is not None
            assert "the best label has" in decision.reason
        elif line[0] - line[1] < margin - 1e-6:
            assert decision.reason is not None
            assert "ahead of the second" in decision.reason
        elif line[0] > floor + 1e-6 and line[0] - line[1] > margin + 1e-6:
            assert decision.reason is None


def test_negative_labels_take_their_part_of_the_whole(index: LabelIndex) -> None:
    embeddings = index.embed(builtin.samples()[:12])
    rule = MostNegativeMass(0.5)
    decisions = Decider(index, rules=[rule], negatives=["rocket", "pizza"]).decide(embeddings)
    with LabelIndex.build(
        ["dog", "hound", "cat", "car", "key", "rocket", "pizza"],
        model=index.info.model_id or "",
        name="all",
    ) as everything:
        matrix = {label: everything.embeddings[row] for row, label in enumerate(everything.labels)}
    rows = np.stack([*index.embeddings, matrix["rocket"], matrix["pizza"]])
    logits = oracle.similarities(embeddings, rows) * index.info.logit_scale + index.info.logit_bias
    negative = oracle.probabilities(logits, index.info.activation)[:, -2:]
    mass = negative.sum(axis=1) if index.info.activation == "softmax" else negative.max(axis=1)
    for decision, of_negatives in zip(decisions, mass, strict=True):
        assert (decision.reason is not None) == (of_negatives > 0.5)


@pytest.mark.parametrize(
    ("name", "message"), [("Dog", "is a label"), ("hound", "another name of 'dog'")]
)
def test_a_negative_label_that_is_one_is_refused(
    index: LabelIndex, name: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Decider(index, negatives=[name])


def test_sets_hold_what_reaches_the_limit(index: LabelIndex) -> None:
    plain = index.classify(builtin.samples()[:12], top_k=4)
    limit = float(np.median([line[0].probability for line in plain]))
    for line, decision in zip(
        plain, decided(index, sets=ConformalLimit(0.9, limit, 50)), strict=True
    ):
        right = {p.label for p in line if p.probability >= limit + 1e-6}
        most = {p.label for p in line if p.probability >= limit - 1e-6}
        assert right <= {p.label for p in decision.predictions} <= most
        assert (decision.reason is None) == bool(decision.predictions)


def test_the_command_line_decides(index: LabelIndex, tmp_path: Path) -> None:
    picture = builtin.samples()[0]
    query = ("query", picture, "--name", "a")
    none = run(*query, "--none-below", "1", "-f", "json")
    assert none.exit_code == 0, none.output
    (found,) = json.loads(none.stdout)
    assert found["predictions"] == []
    assert "the best label has" in found["none_of_these"]
    assert "(none of these): the best label" in run(*query, "--none-below", "1").stdout
    rows = list(csv.DictReader(run(*query, "--none-below", "1", "-f", "csv").stdout.splitlines()))
    assert rows[0]["label"] == "(none of these)"
    thresholds = tmp_path / "thresholds.csv"
    thresholds.write_text("label,rank,threshold\n*,,1\ndog,,0\n", encoding="utf-8")
    chosen = run(*query, "--thresholds", thresholds, "-f", "csv").stdout
    assert [row["label"] for row in csv.DictReader(chosen.splitlines())] == ["dog"]
    assert run(*query, "--sets").exit_code == 1
    assert run(*query, "--thresholds", "calibrated").exit_code == 1
    assert run(*query, "--threshold", "0.1", "--rank", "thing").exit_code == 2
    assert run(*query, "--threshold", "0.1", "--thresholds", thresholds).exit_code == 2
    refused = run(*query, "--negative", "hound")
    assert "another name of 'dog'" in refused.output
