"""What a merge puts into a sidecar, in every program's shape, and that it can be taken back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lxml import etree

from tests.support.sidecars import (
    LEDGER,
    MERGED,
    NAMES,
    ORIGIN,
    OTHER_TAGS,
    RDF,
    SHAPE_FOLDER,
    SHAPES,
    TAGS,
    again,
    keywords,
    rest,
    shape,
    state,
    tree,
)
from zsic_index.library.sidecars.keywords import WRITTEN, Tag
from zsic_index.library.sidecars.ledger import Origin
from zsic_index.library.sidecars.merge import merge
from zsic_index.library.sidecars.prepared import apply, preview, undo
from zsic_index.library.sidecars.record import SidecarRecord


@pytest.mark.parametrize("path", SHAPES, ids=lambda path: path.stem)
def test_tag_tag_anew_and_undo(path: Path, tmp_path: Path) -> None:
    original = path.read_bytes()
    before = keywords(original)
    target = shape(path.stem, tmp_path)

    first = apply(target, TAGS, origin=ORIGIN)
    after = keywords(target.read_bytes())
    for name, values in MERGED.items():
        old = before.get(name, [])
        assert after[name][: len(old)] == old
        if old:
            twins = [value.replace("/", "∕") for value in old] if name == "dc:subject" else old
            assert after[name][len(old) :] == [value for value in values if value not in twins]
    assert rest(target.read_bytes()) == rest(original)

    second = apply(target, OTHER_TAGS, again(first), origin=ORIGIN)
    assert target.read_bytes() == merge(original, OTHER_TAGS, None, origin=ORIGIN).content
    assert second.added == (("ai", "things", "tram"),)
    assert second.removed == (("ai", "music", "AC/DC"), ("ai", 'R&D <"1">'))
    assert rest(target.read_bytes()) == rest(original)

    undone = undo(target, again(second))
    assert target.read_bytes() == original
    assert undone.record is None
    assert [entry.name for entry in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize("path", SHAPES, ids=lambda path: path.stem)
def test_bytes_are_put_in_and_none_is_taken_out(path: Path) -> None:
    """But where a form has no room: an empty element written as one tag, a value as attribute."""
    record = merge(path.read_bytes(), TAGS, None, origin=ORIGIN).record
    assert record is not None
    replaced = {
        "empty-rdf": b"/>",
        "empty-lists": b"/>",
        "plain-values": b'\n   dc:subject="Tom &amp; Jerry"/>',
    }
    gone = b"".join(edit.text for edit in record.back)
    assert gone == replaced.get(path.stem, b"")


@pytest.mark.parametrize("path", SHAPES, ids=lambda path: path.stem)
def test_nothing_is_written_when_nothing_changes(path: Path, tmp_path: Path) -> None:
    target = shape(path.stem, tmp_path)
    record = again(apply(target, TAGS, origin=ORIGIN))
    os.utime(target, ns=(1, 1))
    before = state(target)
    later = Origin("run-2", "another", "everyday")
    merged = apply(target, reversed(TAGS), record, origin=later)
    assert state(target) == before
    assert (merged.record, merged.added, merged.removed) == (record, (), ())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_encoding_of_xmp(encoding: str, mark: str) -> None:
    text = (SHAPE_FOLDER / "attributes-only.xmp").read_text(encoding="utf-8")
    content = (mark + text).encode(encoding)
    merged = merge(content, TAGS, None, origin=ORIGIN)
    plain = merge(text.encode(), TAGS, None, origin=ORIGIN).content
    assert merged.content == (mark + (plain or b"").decode()).encode(encoding)
    assert merge(merged.content, [], again(merged), origin=None).content == content


def test_what_is_put_in_looks_like_what_is_there(tmp_path: Path) -> None:
    target = shape("crlf", tmp_path)
    apply(target, TAGS[:1])
    text = target.read_bytes().decode()
    assert text.count("\n") == text.count("\r\n")
    inserted = """\
     <rdf:li>summer</rdf:li>
     <rdf:li>ai|animal|dog</rdf:li>
    </rdf:Bag>
   </lr:hierarchicalSubject>
""".replace("\n", "\r\n")
    assert inserted in text
    block = """\
  </rdf:Description>
  <rdf:Description rdf:about="" xmlns:zsic="urn:x-zsic-index:ledger/1.0/">
   <zsic:zsicLabels>
    <rdf:Bag>
     <rdf:li>7 0.930000 ai/animal/dog</rdf:li>
    </rdf:Bag>
   </zsic:zsicLabels>
""".replace("\n", "\r\n")
    assert block in text

    target = shape("one-line", tmp_path)
    apply(target, TAGS[:1])
    assert b"\n" not in target.read_bytes()


def test_the_user_s_keywords_are_in_every_property_that_is_made(tmp_path: Path) -> None:
    target = shape("lightroom", tmp_path)
    apply(target, TAGS[:1], embedded=[("IPTC word",), ("bird",)])
    found = keywords(target.read_bytes())
    # "Bird" is a level of the heron's path, as the embedded "bird" is.
    assert found["digiKam:TagsList"] == [
        "Animals/Bird/Heron",
        "R&D trip",
        "IPTC word",
        "ai/animal/dog",
    ]
    # These were there, and were what programs read.
    assert found["lr:hierarchicalSubject"] == [
        "Animals|Bird|Heron",
        "R&D trip",
        "ai|animal|dog",
    ]
    assert found["dc:subject"] == ["Bird", "Heron", "R&D trip", "dog"]


def test_levels_become_leaves_in_a_subject_that_is_made(tmp_path: Path) -> None:
    target = shape("immich", tmp_path)
    apply(target, TAGS[:1])
    found = keywords(target.read_bytes())
    assert found["dc:subject"] == ["2024", "dog"]
    assert found["lr:hierarchicalSubject"] == ["Holidays|2024", "ai|animal|dog"]


def test_microsoft_s_property_is_kept_up_but_not_made(tmp_path: Path) -> None:
    target = shape("digikam", tmp_path)
    apply(target, TAGS[:1])
    found = keywords(target.read_bytes())
    assert found["MicrosoftPhoto:LastKeywordXMP"] == ["People/Ada", "summer", "ai/animal/dog"]
    assert found["mediapro:CatalogSets"] == ["People|Ada", "summer"]


def test_exiftool_s_form_of_microsoft_s_namespace_is_known(tmp_path: Path) -> None:
    target = shape("exiftool", tmp_path)
    apply(target, TAGS[:1])
    found = keywords(target.read_bytes())
    assert found["MicrosoftPhoto:LastKeywordXMP"] == ["pets/dog", "ai/animal/dog"]
    assert found["digiKam:TagsList"] == ["pets/dog", "AC∕DC", "ai/animal/dog"]


def test_a_value_that_the_user_typed_is_never_ours(tmp_path: Path) -> None:
    target = shape("exiftool", tmp_path)
    original = target.read_bytes()
    merged = apply(target, (Tag(("ai", "Dog")), Tag(("ai", "ac/dc"))))
    assert merged.record is not None
    assert "dc:subject" not in merged.record.added
    assert keywords(target.read_bytes())["dc:subject"] == ["dog", "AC/DC"]
    # Changed by hand: no way back by bytes.
    target.write_bytes(target.read_bytes().replace(b"<xmp:Rating>4", b"<xmp:Rating>5"))
    undo(target, merged.record)
    assert target.read_bytes() == original.replace(b"<xmp:Rating>4", b"<xmp:Rating>5")


def test_tags_that_the_user_has_already_change_nothing(tmp_path: Path) -> None:
    target = shape("digikam", tmp_path)
    original = target.read_bytes()
    merged = apply(target, [Tag(("people", "ADA"))], origin=ORIGIN)
    assert target.read_bytes() == original
    assert merged.record is not None
    assert merged.record.added == {}


# A new sidecar.


def test_a_sidecar_that_is_made_goes(tmp_path: Path) -> None:
    target = tmp_path / "photo.jpg.xmp"
    merged = apply(target, TAGS, origin=ORIGIN, embedded=[("summer", "beach")])
    assert keywords(target.read_bytes()) == {
        "digiKam:TagsList": ["summer/beach", *MERGED["digiKam:TagsList"]],
        "lr:hierarchicalSubject": ["summer|beach", *MERGED["lr:hierarchicalSubject"]],
        "dc:subject": ["beach", *MERGED["dc:subject"]],
    }
    merged = apply(target, OTHER_TAGS, again(merged), origin=ORIGIN)
    undone = undo(target, again(merged))
    assert (undone.content, undone.record) == (None, None)
    assert list(tmp_path.iterdir()) == []
    assert undo(target, again(merged)).content is None


def test_a_sidecar_that_is_made_and_then_used_stays(tmp_path: Path) -> None:
    target = tmp_path / "photo.jpg.xmp"
    merged = apply(target, TAGS, origin=ORIGIN)
    described = target.read_bytes().replace(
        b"<digiKam:TagsList>",
        b'<xmp:Rating xmlns:xmp="http://ns.adobe.com/xap/1.0/">5</xmp:Rating><digiKam:TagsList>',
    )
    target.write_bytes(described)
    undo(target, again(merged))
    assert keywords(target.read_bytes()) == {}
    assert b"xmp:Rating" in rest(target.read_bytes())
    assert b"zsic" not in target.read_bytes().replace(b"x:xmptk='zsic-index'", b"")


def test_a_sidecar_that_was_made_and_only_touched_goes(tmp_path: Path) -> None:
    target = tmp_path / "photo.cr2.xmp"
    merged = apply(target, TAGS, origin=ORIGIN, sidecar_for="CR2")
    assert b'photoshop:SidecarForExtension="CR2"' in target.read_bytes()
    target.write_bytes(target.read_bytes() + b"\n\n")
    undo(target, again(merged))
    assert not target.exists()


def test_no_tags_make_no_sidecar(tmp_path: Path) -> None:
    assert apply(tmp_path / "photo.jpg.xmp", [], embedded=[("a",)]).content is None
    assert list(tmp_path.iterdir()) == []


def test_preview_does_nothing(tmp_path: Path) -> None:
    target = shape("darktable", tmp_path)
    before = state(target)
    found = preview(target, TAGS, origin=ORIGIN)
    assert found.added == tuple(tag.path for tag in TAGS)
    assert state(target) == before
    assert found.content == apply(target, TAGS, origin=ORIGIN).content


# After another program, or the user, has changed the file.


def test_a_part_of_the_tags_can_be_taken_back(tmp_path: Path) -> None:
    target = shape("digikam", tmp_path)
    merged = apply(target, TAGS, origin=ORIGIN)
    some = apply(target, TAGS[1:], again(merged), origin=ORIGIN)
    assert some.removed == (TAGS[0].path,)
    assert "ai/animal/dog" not in keywords(target.read_bytes())["digiKam:TagsList"]
    assert "ai/music/AC∕DC" in keywords(target.read_bytes())["digiKam:TagsList"]


def test_a_changed_file_that_has_all_its_tags_is_not_written(tmp_path: Path) -> None:
    target = shape("digikam", tmp_path)
    merged = apply(target, TAGS, origin=ORIGIN)
    changed = target.read_bytes()
    for kind in WRITTEN:
        ours = f"<rdf:li>{kind.value(TAGS[0].path)}</rdf:li>".encode()
        mine = f"<rdf:li>{kind.value(('mine', 'new'))}</rdf:li>".encode()
        head, _, tail = changed.rpartition(b"</%b>" % kind.name.encode())
        head, _, last = head.rpartition(ours)
        changed = head + ours + mine + last + b"</%b>" % kind.name.encode() + tail
    target.write_bytes(changed)
    same = apply(target, TAGS, again(merged), origin=ORIGIN)
    assert target.read_bytes() == changed
    assert same.rejected == ()
    merged = apply(target, [TAGS[0], OTHER_TAGS[0]], again(same), origin=ORIGIN)
    assert keywords(target.read_bytes())["dc:subject"] == ["Ada", "summer", "new", "dog", "tram"]
    undo(target, again(merged))
    assert keywords(target.read_bytes())["dc:subject"] == ["Ada", "summer", "new"]
    assert b"zsic" not in target.read_bytes()


def test_what_the_user_takes_out_stays_out(tmp_path: Path) -> None:
    target = shape("digikam", tmp_path)
    merged = apply(target, TAGS, origin=ORIGIN)
    target.write_bytes(target.read_bytes().replace(b"<rdf:li>ai|animal|dog</rdf:li>", b"", 1))
    merged = apply(target, TAGS, again(merged), origin=ORIGIN)
    assert merged.rejected == (TAGS[0].path,)
    assert merged.removed == ()
    found = keywords(target.read_bytes())
    assert "dog" not in found["dc:subject"]
    assert "ai/animal/dog" not in found["digiKam:TagsList"]
    assert "AC∕DC" in found["dc:subject"]
    merged = apply(target, OTHER_TAGS, again(merged), origin=ORIGIN)
    assert keywords(target.read_bytes())["dc:subject"] == ["Ada", "summer", "tram"]
    undone = undo(target, again(merged))
    assert undone.record == SidecarRecord(rejected=(TAGS[0].path,))
    apply(target, TAGS[:1], again(undone))
    assert keywords(target.read_bytes())["dc:subject"] == ["Ada", "summer"]


def without(content: bytes, *names: str) -> bytes:
    root = tree(content)
    for held in list(root.iter(*names)):
        held.getparent().remove(held)
    return etree.tostring(root)


def test_a_property_that_is_gone_was_emptied_by_the_user(tmp_path: Path) -> None:
    target = shape("darktable-untagged", tmp_path)
    merged = apply(target, TAGS, origin=ORIGIN)
    gone = [name for name, short in NAMES.items() if short in ("dc:subject", WRITTEN[2].name)]
    target.write_bytes(without(target.read_bytes(), *gone))
    merged = apply(target, TAGS, again(merged), origin=ORIGIN)
    assert len(merged.rejected) == 3
    assert keywords(target.read_bytes()) == {}


def test_a_property_that_went_with_our_ledger_was_dropped_by_a_program(tmp_path: Path) -> None:
    target = shape("darktable-untagged", tmp_path)
    merged = apply(target, TAGS, origin=ORIGIN)
    gone = [name for name, short in NAMES.items() if short == "digiKam:TagsList"]
    content = target.read_bytes()
    gone += [e.tag for e in tree(content).iter() if str(e.tag).startswith(LEDGER)]
    target.write_bytes(without(content, *gone))
    merged = apply(target, TAGS, again(merged), origin=ORIGIN)
    assert merged.rejected == ()
    assert keywords(target.read_bytes()) == MERGED


def test_a_sidecar_that_is_gone_is_made_again(tmp_path: Path) -> None:
    target = tmp_path / "photo.jpg.xmp"
    merged = apply(target, TAGS, origin=ORIGIN)
    content = target.read_bytes()
    target.unlink()
    assert apply(target, TAGS, again(merged), origin=ORIGIN).rejected == ()
    assert target.read_bytes() == content


@pytest.mark.parametrize("name", ["digikam", "darktable-untagged", "plain-values", "immich"])
def test_the_ledger_stands_in_for_a_lost_record(name: str, tmp_path: Path) -> None:
    target = shape(name, tmp_path)
    before = keywords(target.read_bytes())
    apply(target, TAGS, origin=ORIGIN)
    content = target.read_bytes()
    unchanged = apply(target, TAGS, None, origin=ORIGIN)
    assert target.read_bytes() == content
    apply(target, OTHER_TAGS, again(unchanged), origin=ORIGIN)
    assert "AC∕DC" not in keywords(target.read_bytes())["dc:subject"]
    undo(target, None)
    after = keywords(target.read_bytes())
    assert {name: after.get(name, []) for name in before} == before
    assert not {"ai", "dog", "tram"} & {v for values in after.values() for v in values}
    assert b"zsic" not in target.read_bytes()


def test_the_ledger_of_a_sidecar_that_we_made(tmp_path: Path) -> None:
    target = tmp_path / "photo.jpg.xmp"
    apply(target, TAGS, origin=ORIGIN)
    found = {
        e.tag.removeprefix(LEDGER): [li.text for li in e.iter(f"{RDF}li")] or e.text
        for e in tree(target.read_bytes()).iter()
        if str(e.tag).startswith(LEDGER)
    }
    assert found == {
        "zsicRun": "run-1",
        "zsicModel": "openai/clip",
        "zsicTaxonomy": "everyday",
        "zsicMade": "true",
        "zsicCreated": ["digiKam:TagsList", "lr:hierarchicalSubject", "dc:subject"],
        "zsicLabels": [
            "7 0.930000 ai/animal/dog",
            "8 0.500000 ai/music/AC∕DC",
            '9 0.250000 ai/R&D <"1">',
        ],
        "zsicTagsList": MERGED["digiKam:TagsList"],
        "zsicHierarchicalSubject": MERGED["lr:hierarchicalSubject"],
        "zsicSubject": MERGED["dc:subject"],
    }
    undo(target, None)
    assert not target.exists()
