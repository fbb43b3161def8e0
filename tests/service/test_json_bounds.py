"""Bounds on JSON are exact about structure, and take long strings out of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsic_index.service.inputs import bounds_of
from zsic_index.service.json_bounds import Bounds, examine
from zsic_index.service.schemas import ClassifyRequest, EmbeddingsRequest, ScoreRequest
from zsic_index.service.settings import Settings
from zsic_index.web import RefusedError

WIDE_OPEN = Bounds(
    containers=10_000,
    members=10_000,
    texts=10_000,
    values=10_000,
    text_bytes=1 << 20,
    files=True,
)

VALUES = st.recursive(
    st.none() | st.integers(-(10**20), 10**20) | st.text('"\\[]{}:,a\u00e9🦊\n'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('"\\,:a'), inner),
)


def count(value: Any) -> tuple[int, int, int]:
    """Return the number of lists and objects, of members, and of strings."""
    if isinstance(value, str):
        return 0, 0, 1
    if isinstance(value, dict):
        parts = [count(entry) for entry in value.values()]
        own = (1, len(value), len(value))
    elif isinstance(value, list):
        parts, own = [count(entry) for entry in value], (1, 0, 0)
    else:
        return 0, 0, 0
    containers, members, texts = (sum(column) for column in zip(own, *parts, strict=True))
    return containers, members, texts


@given(VALUES, st.booleans(), st.sampled_from([None, 2]))
def test_structure_is_counted_and_text_is_not(value: Any, ascii: bool, indent: int | None) -> None:
    body = json.dumps(value, ensure_ascii=ascii, indent=indent).encode()
    limits = dict(zip(("containers", "members", "texts"), count(value), strict=True))
    exact = replace(WIDE_OPEN, **limits)
    assert examine(body, exact, 10).text == body
    for name, limit in limits.items():
        if limit:
            with pytest.raises(RefusedError, match=f"more than {limit - 1} "):
                examine(body, replace(exact, **{name: limit - 1}), 10)


@pytest.mark.parametrize("separator", [",", "\\n", '\\"', "\\/"])
def test_long_strings_are_taken_out(separator: str) -> None:
    text = f'"{("a" * 99 + separator) * 2_000}"'
    body = f'{{"images": ["AAAA", {text}, {{"data": {text}}}], "x": "\\\\"}}'.encode()
    document = examine(body, WIDE_OPEN, 20)
    first, second = document.files
    assert json.loads(document.text) == {
        "images": ["AAAA", first, {"data": second}],
        "x": "\\",
    }
    assert len(first) == len(second) == 20
    assert [bytes(file) for file in document.files.values()] == [text.encode()] * 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[" + b"1" * 65 + b"]", "a number of more than 64 characters"),
        (b"[" + b" " * (1 << 20) + b"1" * 65 + b"]", "a number of more than 64 characters"),
        (b"[" + b"1," * 10_001 + b"1]", "more than 10,000 values"),
        (b"[" * 10_001, "more than 10,000 lists and objects"),
        (b'["' + b"\\n" * 5_000_000 + b'"]', "more than 4,194,304 escaped characters"),
        (b"[" + b'"abc" ' * 10_001, "more than 10,000 strings"),
        (b"[" + b'"' + b"a" * 120_000 + b'",' * 9, None),
        (b"[" + (b'"' + b"a" * 120_000 + b'",') * 9, "more than 1,048,576 bytes of text"),
        (b'["' + b"1" * 100 + b'", ' + b" " * 1_000 + b"1" * 64 + b"]", None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_exceeds_a_bound_is_refused(body: bytes, message: str | None) -> None:
    if message is None:
        examine(body, WIDE_OPEN, 10)
        return
    with pytest.raises(RefusedError, match=message) as error:
        examine(body, WIDE_OPEN, 10)
    assert error.value.status == 413


def test_text_beyond_ascii_is_limited() -> None:
    bounds = replace(WIDE_OPEN, text_bytes=1 << 30)
    for wide in ("🦊".encode(), b"\\ud83e\\udd8a"):
        text = b'"' + b"a" * 100_000 + wide + b'",'
        examine(b"[" + text * 167, bounds, 10)
        with pytest.raises(RefusedError, match="bytes of text beyond ASCII"):
            examine(b"[" + text * 168, bounds, 10)
    text = b'"' + b"a" * 100_000 + b'\\u0041",'
    examine(b"[" + text * 300, bounds, 10)


def test_the_largest_requests_are_within_the_bounds() -> None:
    settings = Settings()
    image = {"name": "n" * 1_000, "data": "A" * 200_000}
    labels = ["x" * 1_000] * settings.max_labels
    query = {
        "labels": labels,
        "templates": ["{}"] * 100,
        "floors": {f"r{n}": 0.5 for n in range(1_000)},
    }
    for model, document, dim in (
        (ClassifyRequest, {"images": [image] * settings.max_images, **query}, 0),
        (ScoreRequest, {"embeddings": [[-0.1] * 1_152] * settings.max_prompts, **query}, 1_152),
        (ScoreRequest, {"embeddings": ["A" * 6_144] * settings.max_prompts, **query}, 1_152),
        (EmbeddingsRequest, {"prompts": ["\u4e00" * 4_000] * settings.max_prompts}, 0),
    ):
        for indent in (None, 2):
            body = json.dumps(document, ensure_ascii=False, indent=indent).encode()
            examine(body, bounds_of(model, settings, dim), 10_001)
