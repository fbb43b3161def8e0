"""The options of a query: bounds, combinations, and the documents that are made from them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.support.paths import ROOT
from tests.tools.query_options import markdown_tables
from zsic_index.errors import InputError, LabelError
from zsic_index.querying.query import OPTIONS, Query, parse_floor


def test_the_documented_tables_are_those_of_the_options() -> None:
    text = (ROOT / "zsic_index" / "querying" / "README.md").read_text(encoding="utf-8")
    assert text.endswith(f"\n\n{markdown_tables()}"), "run python -m tests.tools.query_options"


def test_every_option_has_a_sentence_and_a_spelling() -> None:
    for option in OPTIONS.values():
        assert option.description[0].isupper()
        assert option.description.endswith(".")
        assert all(flag.startswith("-") for flag in option.flags)
        assert option.flags


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k is 0; it must be at least 1"),
        ({"top_k": "3"}, "top_k is 3; it must be at least 1"),
        ({"threshold": 1.5}, "threshold is 1.5; it must be from 0 to 1"),
        ({"none_below": math.nan}, "none_below is nan; it must be from 0 to 1"),
        ({"none_within": -0.1}, "none_within is -0.1; it must be from 0 to 1"),
        ({"deepest": 0.0}, "deepest is 0.0; it must be above 0 and up to 1"),
        ({"deepest": 0.5, "floors": {"kind": 2.0}}, "the floor of 'kind' is 2.0; it must be from"),
        ({"rank": "kind", "deepest": 0.5}, "exclude each other"),
        ({"rank": "kind", "labels": ["dog"]}, "leave labels out"),
        ({"floors": {"kind": 0.5}}, "floors go with deepest"),
        ({"independent": True}, "give rank or deepest"),
        ({"threshold": 0.5, "thresholds": "calibrated"}, "give one of them"),
        ({"sets": True, "under": "animals"}, "are about all labels"),
    ],
    ids=str,
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        Query(**options)
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["labels", "negatives"])
def test_one_string_is_no_list(name: str) -> None:
    with pytest.raises(LabelError, match="not one string"):
        Query(**{name: "dog"})


def test_numbers_may_be_numpy_s() -> None:
    query = Query(top_k=np.int64(2), threshold=np.float32(0.5))  # type: ignore[arg-type]
    assert (query.top_k, query.threshold) == (2, 0.5)


def test_a_floor_is_parsed() -> None:
    assert parse_floor("species=0.9") == ("species", 0.9)
    assert parse_floor("a=b=1") == ("a=b", 1.0)


@pytest.mark.parametrize("text", ["species", "=0.5", "species=", "species=high", ""])
def test_what_is_no_floor_is_named(text: str) -> None:
    with pytest.raises(InputError, match="give RANK=FLOOR") as raised:
        parse_floor(text)
    assert repr(text) in str(raised.value)
