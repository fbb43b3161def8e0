"""Edits of bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zsic_index.library.sidecars import edits
from zsic_index.library.sidecars.edits import Edit


@given(st.binary(max_size=30), st.data())
def test_edits_between_two_texts(data: bytes, draw: st.DataObject) -> None:
    def some() -> list[Edit]:
        places = draw.draw(st.lists(st.integers(0, len(data)), max_size=8).map(sorted))
        pairs = list(zip(places[::2], places[1::2], strict=False))
        return [Edit(start, end, draw.draw(st.binary(max_size=3))) for start, end in pairs]

    one, other = some(), some()
    found = edits.between(data, one, other)
    assert edits.apply(edits.apply(data, one), found) == edits.apply(data, other)
    assert edits.between(data, one, one) == ()


def test_edits_at_one_place_keep_their_order() -> None:
    assert edits.apply(b"ac", [Edit(1, 1, b"b"), Edit(1, 1, b"B"), Edit(1, 2)]) == b"abB"
