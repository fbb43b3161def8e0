"""Thresholds, their files, and "none of these"."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zsic_index.errors import InputError
from zsic_index.querying.negatives import refuse_negatives
from zsic_index.querying.rules import (
    LeastMargin,
    LeastProbability,
    MostNegativeMass,
    RuleInput,
    reject,
)
from zsic_index.querying.thresholds import Thresholds, read_thresholds


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_the_nearest_threshold_counts() -> None:
    found = Thresholds(0.1, {"family": 0.5}, {"wren": 0.9, "Corvidae": 0.0})
    assert found.of("wren", "family") == 0.9
    assert found.of("Corvidae", "family") == 0.0
    assert found.of("Paridae", "family") == 0.5
    assert found.of("robin", "species") == 0.1
    assert found.of("robin") == 0.1
    assert Thresholds().of("robin") == 0


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", 'label,rank,threshold\n*,,0.1\n,family,.5\n\n"a, ""b"" {c}",,1\n'),
        ("a.csv", '\ufeffrank;threshold;label\r\n;0.1;*\r\nfamily;0.5\r\n;1;"a, ""b"" {c}"\r\n'),
        ("a.tsv", 'threshold\tlabel\trank\n0.1\t*\n0.5\t\tfamily\n1\t"a, ""b"" {c}"\n'),
        (
            "a.json",
            '[{"label": "*", "threshold": 0.1}, {"rank": "family", "threshold": "0.5"},'
            ' {"label": "a, \\"b\\" {c}", "rank": null, "threshold": 1}]',
        ),
        ("a.csv", 'label,rank,threshold\n*,,0.1\n,family,.5\n"a, ""b"" {c}",,1\n'.encode("utf-16")),
    ],
)
def test_every_format_gives_the_same_thresholds(
    tmp_path: Path, name: str, data: str | bytes
) -> None:
    found = read_thresholds(write(tmp_path / name, data))
    assert found == Thresholds(0.1, {"family": 0.5}, {'a, "b" {c}': 1.0})


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", "label,threshold\nwren,0.5\nrobin,high\n", "line 3.*'high'"),
        ("a.csv", "label,threshold\n\n\nrobin,1.5\n", "line 4.*'1.5'"),
        ("a.csv", "label,threshold\nrobin,nan\n", "line 2.*'nan'"),
        ("a.csv", "label,threshold\nrobin\n", "line 2.*''"),
        ("a.csv", "label,threshold\nrobin,1\nrobin,1\n", "line 3.*already"),
        ("a.csv", "label,rank,threshold\nrobin,family,1\n", "line 2.*both"),
        ("a.csv", "label,rank,threshold\n,,1\n", "line 2.*no label"),
        ("a.csv", 'label,threshold\n"two\nlines",0.1\nrobin,x\n', "line 4"),
        ("a.csv", "label,threshold\na, b,0.1\n", "line 2.*quotes"),
        ("a.csv", 'label,threshold\n"open,0.1\n', "line 2"),
        ("a.csv", "label,limit\nrobin,0.1\n", "no column 'threshold'"),
        ("a.csv", "label,label,threshold\n", "there twice"),
        ("a.csv", "label,threshold\n", "no thresholds"),
        ("a.csv", "", "empty"),
        ("a.csv", b"label,threshold\nok,1\n\xff\xfa,1\n", "line 3"),
        ("a.txt", "x", "unknown kind"),
        ("a.json", "{}", "list"),
        ("a.json", "[1]", "entry 1"),
        ("a.json", '[{"label": "a"}]', "entry 1.*'threshold'"),
        ("a.json", '[{"label": "a", "threshold": true}]', "entry 1.*neither"),
        ("a.json", "[", "JSON"),
    ],
)
def test_errors_name_file_and_line(
    tmp_path: Path, name: str, data: str | bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_thresholds(write(tmp_path / name, data))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_thresholds(tmp_path / "none.csv")


# Rejection

PROBABILITIES = np.array([[0.8, 0.1], [0.29, 0.2], [0.5, 0.45], [0.3, 0.1]])
NEGATIVE = np.array([0.1, 0.1, 0.05, 0.6])


def test_rules_reject_with_a_reason() -> None:
    rule_input = RuleInput(PROBABILITIES, 1_000, NEGATIVE)
    assert reject(rule_input, []) == [None] * 4
    assert reject(rule_input, [LeastProbability(0.3)]) == [
        None,
        "the best label has 29.0 %, below 30.0 %",
        None,
        None,
    ]
    assert reject(rule_input, [LeastMargin(0.1)]) == [
        None,
        "the best label is 9.0 % ahead of the second, below 10.0 %",
        "the best label is 5.0 % ahead of the second, below 10.0 %",
        None,
    ]
    assert reject(rule_input, [MostNegativeMass(0.5)]) == [
        None,
        None,
        None,
        "negative labels have 60.0 %, above 50.0 %",
    ]


def test_the_first_rule_gives_the_reason() -> None:
    rule_input = RuleInput(PROBABILITIES, 1_000, NEGATIVE)
    found = reject(rule_input, [LeastProbability(0.3), LeastMargin(0.1), MostNegativeMass(0.5)])
    assert [reason and reason.split()[0:2] for reason in found] == [
        None,
        ["the", "best"],
        ["the", "best"],
        ["negative", "labels"],
    ]
    assert "has 29.0 %" in (found[1] or "")


def test_rules_at_their_limits_accept() -> None:
    rule_input = RuleInput(np.array([[0.5, 0.25]]), 2, np.array([0.5]))
    assert reject(
        rule_input, [LeastProbability(0.5), LeastMargin(0.25), MostNegativeMass(0.5)]
    ) == [None]


def test_a_margin_needs_two_labels() -> None:
    one = np.array([[0.4]])
    assert reject(RuleInput(one, 1), [LeastMargin(0.9)]) == [None]
    with pytest.raises(InputError, match="top_k of 2"):
        reject(RuleInput(one, 5), [LeastMargin(0.9)])
    with pytest.raises(InputError, match="needs negative labels"):
        reject(RuleInput(one, 5), [MostNegativeMass(0.9)])


@pytest.mark.parametrize("rule", [LeastProbability, LeastMargin, MostNegativeMass])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_rules_refuse_what_is_no_fraction(
    rule: type[LeastProbability | LeastMargin | MostNegativeMass], value: float
) -> None:
    with pytest.raises(InputError, match="from 0 to 1"):
        rule(value)


# Negative labels


def test_negatives_that_are_or_are_below_a_label_are_refused() -> None:
    names = {"cat": "cat", "house cat": "cat", "Katze": "cat", "ﬁg": "fig"}
    ancestors = {
        "Tabby": ["domestic animal", "HOUSE  cat", "animal"],
        "granite": ["rock"],
        "animal": ["thing"],
    }
    kept, refused = refuse_negatives(
        ["granite", "KATZE", "Cat", "tabby", "fig", "animal", "wall"], names, ancestors
    )
    # What is above a label is not below one: whether it makes a good negative is up to the user.
    assert kept == ["granite", "animal", "wall"]
    assert [(one.name, one.label) for one in refused] == [
        ("KATZE", "cat"),
        ("Cat", "cat"),
        ("tabby", "cat"),
        ("fig", "fig"),
    ]
    assert [one.reason for one in refused] == [
        "negative label 'KATZE' is another name of 'cat'",
        "negative label 'Cat' is a label",
        "negative label 'tabby' is a kind of 'cat', which is a label",
        "negative label 'fig' is a label",
    ]
