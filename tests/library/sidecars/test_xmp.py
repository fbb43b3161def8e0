"""Files that are no sidecar, are damaged or are too large: refused and left alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.sidecars import ORIGIN, REFUSED, SHAPE_FOLDER, SHAPES, TAGS, state
from zsic_index.errors import SidecarError
from zsic_index.library.sidecars.merge import merge
from zsic_index.library.sidecars.prepared import apply


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.stem)
def test_a_file_that_cannot_be_read_is_left_alone(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "photo.jpg.xmp"
    target.write_bytes(path.read_bytes())
    before = state(target)
    with pytest.raises(SidecarError, match=r"photo\.jpg\.xmp: ") as caught:
        apply(target, TAGS, origin=ORIGIN)
    assert "\n" not in str(caught.value)
    assert state(target) == before
    assert list(tmp_path.iterdir()) == [target]


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = (SHAPE_FOLDER / "digikam.xmp").read_bytes()
    end = content.index(b"</x:xmpmeta>")
    for length in [*range(0, end, 97), end, end + 11]:
        with pytest.raises(SidecarError):
            merge(content[:length], TAGS, None, origin=None)


def test_entities_are_never_expanded() -> None:
    with pytest.raises(SidecarError, match="document type declaration"):
        merge((SHAPE_FOLDER / "refused" / "doctype.xmp").read_bytes(), TAGS, None, origin=None)


def test_a_large_file_is_not_even_read(tmp_path: Path) -> None:
    target = tmp_path / "photo.jpg.xmp"
    with target.open("wb") as file:
        file.truncate(10 * 1024 * 1024 + 1)
    with pytest.raises(SidecarError, match="10,485,760"):
        apply(target, TAGS)


def test_the_largest_file_is_no_burden() -> None:
    content = (SHAPE_FOLDER / "digikam.xmp").read_bytes()
    filler = b"<digiKam:abcdefghijk/>" * 450_000
    content = content.replace(b"<digiKam:TagsList>", filler + b"<digiKam:TagsList>")
    start = time.perf_counter()
    assert len(merge(content, TAGS, None, origin=None).content or b"") > len(content)
    assert time.perf_counter() - start < 20


@given(st.binary(max_size=60), st.integers(0, 5_000), st.sampled_from(SHAPES))
@settings(max_examples=150)
def test_damage_never_does_more_than_be_refused(noise: bytes, place: int, path: Path) -> None:
    content = path.read_bytes()
    place = min(place, len(content))
    damaged = content[:place] + noise + content[place + len(noise) :]
    try:
        merged = merge(damaged, TAGS, None, origin=ORIGIN)
    except SidecarError:
        return
    assert merge(merged.content, [], merged.record, origin=None).content == damaged
