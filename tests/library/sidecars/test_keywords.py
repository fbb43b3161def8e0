"""Tags as keywords, and the record of what was written."""

from __future__ import annotations

import pytest

from tests.support.sidecars import SHAPE_FOLDER
from zsic_index.errors import InputError, StoreError
from zsic_index.library.sidecars.embedded import tags_within
from zsic_index.library.sidecars.keywords import Tag, check_root
from zsic_index.library.sidecars.merge import merge
from zsic_index.library.sidecars.record import SidecarRecord


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ((), "empty part"),
        (("ai", " "), "empty part"),
        (("ai", "a\nb"), "contains"),
        (("ai", "a\0b"), "contains"),
        (("ai", "a\ud800"), "contains"),
        (("ai", "a\ufffe"), "contains"),
        (("ai", "x" * 3_000), "longer than 2000"),
    ],
)
def test_tags_that_keywords_cannot_hold(path: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        merge(None, [Tag(path)], None, origin=None)


def test_a_root_that_another_program_empties_is_refused() -> None:
    assert check_root(" ai ") == "ai"
    with pytest.raises(InputError, match="digiKam"):
        check_root("Auto")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"written": 1}', '{"tags": 3}'])
def test_a_record_that_is_not_one(text: str) -> None:
    with pytest.raises(StoreError, match="not one of ours"):
        SidecarRecord.from_json(text)


def test_tags_from_within_a_photo() -> None:
    packet = (SHAPE_FOLDER / "lightroom.xmp").read_bytes()
    assert tags_within(packet, ["heron", "IPTC", " "]) == (
        ("Animals", "Bird", "Heron"),
        ("R&D trip",),
        ("Bird",),
        ("Heron",),
        ("IPTC",),
    )
    assert tags_within(None) == ()
