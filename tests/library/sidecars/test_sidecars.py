"""Sidecars: what is written, that nothing else changes, and that all of it can be taken back.

The module under test reads with expat; here an independent reader, lxml, says what is in a file,
and exiftool and exiv2 do where they are installed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from tests.support.paths import DATA
from zsic_index.errors import InputError, SidecarError, StoreError
from zsic_index.library.sidecars import atomic_files, edits
from zsic_index.library.sidecars.edits import Edit
from zsic_index.library.sidecars.keywords import PROPERTIES, WRITTEN, check_root, check_tag
from zsic_index.library.sidecars.merge import Merged, Origin, Tag, merge
from zsic_index.library.sidecars.paths import by_stem, find
from zsic_index.library.sidecars.prepared import apply, preview, tags_within, undo
from zsic_index.library.sidecars.record import SidecarRecord
from zsic_index.library.sidecars.xmp import Encoding

FOLDER = DATA / "sidecars"
SHAPES = sorted(FOLDER.glob("*.xmp"))
REFUSED = sorted((FOLDER / "refused").glob("*.xmp"))

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
LEDGER = "{urn:x-zsic-index:ledger/1.0/}"
ORIGIN = Origin(run="run-1", model="openai/clip", taxonomy="everyday")

TAGS = (
    Tag(("ai", "animal", "dog"), 7, 0.93),
    Tag(("ai", "music", "AC/DC"), 8, 0.5),
    Tag(("ai", 'R&D <"1">'), 9, 0.25),
)
OTHER_TAGS = (Tag(("ai", "things", "tram"), 1, 0.8), Tag(("ai", "animal", "dog"), 2, 0.7))

MERGED = {
    "digiKam:TagsList": ["ai/animal/dog", "ai/music/AC∕DC", 'ai/R&D <"1">'],
    "lr:hierarchicalSubject": ["ai|animal|dog", "ai|music|AC∕DC", 'ai|R&D <"1">'],
    "dc:subject": ["dog", "AC∕DC", 'R&D <"1">'],
}

needs_exiftool = pytest.mark.skipif(
    not shutil.which("exiftool"), reason="exiftool is not installed (libimage-exiftool-perl)"
)
needs_exiv2 = pytest.mark.skipif(not shutil.which("exiv2"), reason="exiv2 is not installed")


def shape(name: str, folder: Path) -> Path:
    return Path(shutil.copy(FOLDER / f"{name}.xmp", folder / "photo.jpg.xmp"))


def state(path: Path) -> tuple[int, ...]:
    """What changes when a file is written to or replaced."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mode, found.st_mtime_ns, found.st_ctime_ns


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def again(merged: Merged) -> SidecarRecord | None:
    """The record as it comes back from a store."""
    return merged.record and SidecarRecord.from_json(merged.record.to_json())


# What lxml says is in a file.


def clark(uri: str, local: str) -> str:
    return f"{{{uri}}}{local}"


NAMES = {clark(kind.uri, kind.local): kind.name for kind in PROPERTIES} | {
    "{http://ns.microsoft.com/photo/1.0}LastKeywordXMP": "MicrosoftPhoto:LastKeywordXMP"
}


def tree(content: bytes) -> Any:
    return etree.fromstring(content, etree.XMLParser(resolve_entities=False, huge_tree=True))


def keywords(content: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for description in tree(content).iter(f"{RDF}Description"):
        if description.getparent().tag != f"{RDF}RDF":
            continue
        for name, value in description.attrib.items():
            if name in NAMES:
                found.setdefault(NAMES[name], []).append(value)
        for held in description:
            if held.tag in NAMES:
                items = held.findall(f"*/{RDF}li")
                texts = [
                    "".join((item.find(f"{RDF}value") if len(item) else item).itertext())
                    for item in items
                ] or ["".join(held.itertext())]
                found.setdefault(NAMES[held.tag], []).extend(texts)
    stripped = {name: [v.strip() for v in values if v.strip()] for name, values in found.items()}
    return {name: values for name, values in stripped.items() if values}


def rest(content: bytes) -> bytes:
    """All of a file but keywords and our ledger, in canonical form without space around text."""
    root = tree(content)
    for description in list(root.iter(f"{RDF}Description")):
        if description.getparent().tag != f"{RDF}RDF":
            continue
        for name in list(description.attrib):
            if name in NAMES or name.startswith(LEDGER):
                del description.attrib[name]
        for held in list(description):
            if isinstance(held.tag, str) and (held.tag in NAMES or held.tag.startswith(LEDGER)):
                description.remove(held)
        if not len(description) and not set(description.attrib) - {f"{RDF}about", "about"}:
            description.getparent().remove(description)
    etree.cleanup_namespaces(root)
    return etree.tostring(root, method="c14n2", strip_text=True)


# Every program's shape.


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
    text = (FOLDER / "attributes-only.xmp").read_text(encoding="utf-8")
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


# What other programs make of it.


def exiftool(*paths: Path, options: tuple[str, ...] = ("-a",)) -> list[dict[str, Any]]:
    command = ["exiftool", "-j", "-G1", "-struct", "-charset", "filename=utf8", *options]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, timeout=60)
    return json.loads(done.stdout)


def values_of(found: dict[str, Any], name: str) -> list[str]:
    value = found.get(name, [])
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]


@needs_exiftool
def test_exiftool_reads_every_sidecar_without_a_new_warning(tmp_path: Path) -> None:
    # exiftool takes a file for XMP by the usual prefixes only.
    known = [path for path in SHAPES if path.stem != "other-prefixes"]
    written = []
    for path in known:
        target = tmp_path / path.name
        target.write_bytes(merge(path.read_bytes(), TAGS, None, origin=ORIGIN).content or b"")
        written.append(target)
    made = tmp_path / "made.jpg.xmp"
    apply(made, TAGS, origin=ORIGIN, sidecar_for="CR2")

    options = ("-a", "-validate", "-warning", "-error", "-all")
    before = exiftool(*known, options=options)
    after = exiftool(*written, made, options=options)
    warning = "ExifTool:Warning"
    for old, new in zip([*before, {}], after, strict=True):
        assert "ExifTool:Error" not in new
        assert new.get(warning) in (None, old.get(warning)), new["SourceFile"]
        tags = values_of(new, "XMP-digiKam:TagsList")
        paths = values_of(new, "XMP-lr:HierarchicalSubject")
        subject = [v.replace("/", "∕") for v in values_of(new, "XMP-dc:Subject")]
        assert set(MERGED["digiKam:TagsList"]) <= set(tags)
        assert set(MERGED["lr:hierarchicalSubject"]) <= set(paths)
        assert set(MERGED["dc:subject"]) <= set(subject)
        gone = [name for name in old if old[name] != new.get(name) and name.startswith("XMP")]
        assert set(gone) <= {
            "XMP-digiKam:TagsList",
            "XMP-lr:HierarchicalSubject",
            "XMP-dc:Subject",
            "XMP-microsoft:LastKeywordXMP",
        }
        assert "XMP-zsic:ZsicLabels" in new


@needs_exiftool
def test_our_ledger_hides_no_name_from_exiftool_s_callers(tmp_path: Path) -> None:
    target = shape("digikam", tmp_path)
    (before,) = exiftool(target, options=("-G0", "--G1"))
    apply(target, TAGS, origin=ORIGIN)
    done = subprocess.run(["exiftool", "-j", str(target)], capture_output=True, check=True)
    (after,) = json.loads(done.stdout)
    assert before
    assert after["TagsList"] == ["People/Ada", "summer", *MERGED["digiKam:TagsList"]]
    assert after["Subject"] == ["Ada", "summer", *MERGED["dc:subject"]]
    assert "Model" not in after


REWRITES = [
    pytest.param(["exiftool", "-q", "-overwrite_original", "-Rating=2"], marks=needs_exiftool),
    pytest.param(["exiv2", "-M", "set Xmp.xmp.Rating 2"], marks=needs_exiv2),
]


@pytest.mark.parametrize("command", REWRITES, ids=lambda command: command[0])
@pytest.mark.parametrize(
    "name",
    [path.stem for path in SHAPES if path.stem not in ("other-prefixes", "renamed-prefixes")],
)
def test_undo_after_another_program_has_rewritten_the_file(
    command: list[str], name: str, tmp_path: Path
) -> None:
    untagged = Path(shutil.copy(FOLDER / f"{name}.xmp", tmp_path / "untagged.xmp"))
    target = shape(name, tmp_path)
    merged = apply(target, TAGS, origin=ORIGIN)
    for path in (untagged, target):
        done = subprocess.run([*command, str(path)], capture_output=True, timeout=60)
        if done.returncode:
            pytest.skip(f"{command[0]} does not write this shape: {done.stderr!r}")
    rewritten = target.read_bytes()
    assert rewritten != merged.content

    merged = apply(target, TAGS, again(merged), origin=ORIGIN)
    assert target.read_bytes() == rewritten
    assert merged.rejected == ()
    merged = apply(target, OTHER_TAGS, again(merged), origin=ORIGIN)
    assert "tram" in keywords(target.read_bytes())["dc:subject"]
    undo(target, again(merged))

    old, new = keywords(untagged.read_bytes()), keywords(target.read_bytes())
    assert {n: v for n, v in new.items() if n in old} == old
    assert rest(target.read_bytes()) == rest(untagged.read_bytes())
    assert b"zsic" not in target.read_bytes()


@needs_exiv2
def test_exiv2_reads_what_we_write(tmp_path: Path) -> None:
    made = tmp_path / "made.jpg.xmp"
    apply(made, TAGS, origin=ORIGIN)
    for path in [made, *(path for path in SHAPES if path.stem.startswith(("dark", "digi")))]:
        target = Path(shutil.copy(path, tmp_path / "photo.xmp")) if path is not made else made
        apply(target, TAGS, origin=ORIGIN)
        done = subprocess.run(["exiv2", "-px", str(target)], capture_output=True, text=True)
        assert done.stderr == ""
        for expected in ("Xmp.digiKam.TagsList", "Xmp.lr.hierarchicalSubject", "Xmp.dc.subject"):
            assert expected in done.stdout
        assert "Xmp.zsic.zsicLabels" in done.stdout


# Files that are refused.


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
    content = (FOLDER / "digikam.xmp").read_bytes()
    end = content.index(b"</x:xmpmeta>")
    for length in [*range(0, end, 97), end, end + 11]:
        with pytest.raises(SidecarError):
            merge(content[:length], TAGS, None, origin=None)


def test_entities_are_never_expanded() -> None:
    with pytest.raises(SidecarError, match="document type declaration"):
        merge((FOLDER / "refused" / "doctype.xmp").read_bytes(), TAGS, None, origin=None)


def test_a_large_file_is_not_even_read(tmp_path: Path) -> None:
    target = tmp_path / "photo.jpg.xmp"
    with target.open("wb") as file:
        file.truncate(10 * 1024 * 1024 + 1)
    with pytest.raises(SidecarError, match="10,485,760"):
        apply(target, TAGS)


def test_the_largest_file_is_no_burden() -> None:
    content = (FOLDER / "digikam.xmp").read_bytes()
    filler = b"<digiKam:abcdefghijk/>" * 450_000
    content = content.replace(b"<digiKam:TagsList>", filler + b"<digiKam:TagsList>")
    start = time.perf_counter()
    assert len(merge(content, TAGS, None, origin=None).content or b"") > len(content)
    assert time.perf_counter() - start < 20


@given(st.binary(max_size=60), st.integers(0, 5_000), st.sampled_from(SHAPES))
@settings(max_examples=150, deadline=None)
def test_damage_never_does_more_than_be_refused(noise: bytes, place: int, path: Path) -> None:
    content = path.read_bytes()
    place = min(place, len(content))
    damaged = content[:place] + noise + content[place + len(noise) :]
    try:
        merged = merge(damaged, TAGS, None, origin=ORIGIN)
    except SidecarError:
        return
    assert merge(merged.content, [], merged.record, origin=None).content == damaged


# Generated shapes.

PARTS = st.text(
    st.sampled_from("abAB &<>'\"|/e\u0301é鷺🦌]") | st.characters(codec="utf-8"),
    min_size=1,
    max_size=5,
).filter(lambda text: _fits(text))
PATHS = st.lists(PARTS, min_size=1, max_size=3).map(tuple)
WANTED = st.lists(st.builds(Tag, PATHS), max_size=4)


def _fits(text: str) -> bool:
    try:
        return check_tag((text,)) == (text,)
    except InputError:
        return False


def escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def quote(text: str) -> str:
    return '"' + escape(text).replace('"', "&quot;") + '"'


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """A sidecar in some shape that XMP allows."""
    newline = draw(st.sampled_from(["\n", "\r\n", ""]))
    rdf = draw(st.sampled_from(["rdf:", "r:", "dc:"]))
    bare = draw(st.booleans()) and not draw(st.booleans())  # RDF as the default namespace

    def tag(local: str) -> str:
        return local if bare else rdf + local

    def items(values: list[str]) -> str:
        parts = []
        for value in values:
            before = draw(st.sampled_from(["", " ", f"{newline}  ", "<!-- <li> -->"]))
            language = draw(st.sampled_from(["", ' xml:lang="en"']))
            text = draw(st.sampled_from([escape(value), value.replace("&", "&#38;")]))
            text = text if "<" not in text and "]]>" not in text else escape(value)
            parts.append(f"{before}<{tag('li')}{language}>{text}</{tag('li')}>")
        return "".join(parts) + draw(st.sampled_from(["", f"{newline} "]))

    def held(kind: Any, prefix: str) -> tuple[str, str]:
        """A property as an attribute and as an element, one of them empty."""
        form = draw(st.sampled_from(["list", "list", "list", "text", "attribute", "none", "empty"]))
        name = f"{prefix}:{kind.local}"
        values = draw(st.lists(PARTS, min_size=1, max_size=4))
        if form == "attribute":
            return f" {name}={quote(values[0])}", ""
        if form == "text":
            return "", f"<{name}>{escape(values[0])}</{name}>"
        if form == "none":
            return "", draw(st.sampled_from([f"<{name}/>", f"<{name}> </{name}>"]))
        container = tag(draw(st.sampled_from(["Bag", "Seq", "Alt"])))
        if form == "empty":
            return "", f"<{name}><{container}/></{name}>"
        return "", f"<{name}>{newline}<{container}>{items(values)}</{container}>{newline}</{name}>"

    kinds = draw(st.lists(st.sampled_from(PROPERTIES), unique=True, max_size=5))
    count = draw(st.integers(1 if kinds else 0, 3))
    descriptions = []
    for number in range(count):
        prefixes = {kind: f"p{i}" for i, kind in enumerate(kinds) if i % count == number}
        forms = [held(kind, prefix) for kind, prefix in prefixes.items()]
        declared = "".join(f' xmlns:{p}="{kind.uri}"' for kind, p in prefixes.items())
        others = draw(
            st.sampled_from(["", ' xmlns:u="http://example.org/u#" u:a=\'1 > "0"\' u:b=""'])
        )
        about = draw(st.sampled_from(['""', "'uuid:1'"]))
        about = f" {'rdf:' if bare else rdf}about={about}"
        attributes = [about, declared, others, *(attribute for attribute, _ in forms)]
        inner = "".join(f"{newline}  {element}" for _, element in forms if element)
        inner += draw(st.sampled_from(["", "<!-- c -->", f'<v:w xmlns:v="v:#">{newline}</v:w>']))
        name = tag("Description")
        descriptions.append(
            f"{newline} <{name}{''.join(attributes)}/>"
            if not inner
            else f"{newline} <{name}{''.join(attributes)}>{inner}{newline} </{name}>"
        )
    uri = RDF.strip("{}")
    declared = f' xmlns="{uri}" xmlns:rdf="{uri}"' if bare else f' xmlns:{rdf[:-1]}="{uri}"'
    name = tag("RDF")
    text = f"<{name}{declared}>{''.join(descriptions)}{newline}</{name}>"
    if not descriptions and draw(st.booleans()):
        text = f"<{name}{declared}/>"
    if draw(st.booleans()):
        text = f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{newline}{text}{newline}</x:xmpmeta>'
    if draw(st.booleans()):
        padding = draw(st.sampled_from(["", " " * 50 + "\n", "\n"]))
        text = f"<?xpacket begin='' id='W'?>{newline}{text}{padding}<?xpacket end='w'?>"
    encoding, mark = draw(
        st.sampled_from(
            [
                ("utf-8", b""),
                ("utf-8", b"\xef\xbb\xbf"),
                ("utf-16-le", b"\xff\xfe"),
                ("utf-16-be", b"\xfe\xff"),
            ]
        )
    )
    return mark + text.encode(encoding)


def tag_of(kind: Any, value: str) -> tuple[str, ...]:
    """What a value says, told in the plainest way: levels as written, in lower case."""
    separator = kind.separator or "|"

    def plain(part: str) -> str:
        for sign, twin in (("/", "∕"), ("|", "∣")):
            part = part.replace(sign, twin)
        return unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold())

    return tuple(plain(part.strip()) for part in value.split(separator) if part.strip())


def same_tags(one: list[Tag], other: list[Tag]) -> bool:
    """Whether nothing is to be written, though order and case may differ."""
    kind = WRITTEN[0]
    sides = [{tag_of(kind, kind.value(tag.path)) for tag in tags} for tags in (one, other)]
    return sides[0] == sides[1]


@given(packets(), WANTED, WANTED)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_the_shape(content: bytes, tags: list[Tag], others: list[Tag]) -> None:
    before = keywords(content)
    merged = merge(content, tags, None, origin=ORIGIN)
    assert merged.content is not None
    assert rest(merged.content) == rest(content)
    after = keywords(merged.content)
    users = {tag_of(kind, value) for kind in PROPERTIES for value in before.get(kind.name, [])} - {
        ()
    }
    for kind in PROPERTIES:
        old, new = before.get(kind.name, []), after.get(kind.name, [])
        assert new[: len(old)] == old
        if not kind.written or not (old or kind.created) or not tags:
            assert new == old
            continue
        said = [tag_of(kind, value) for value in new]
        put = [tag_of(kind, unicodedata.normalize("NFC", kind.value(tag.path))) for tag in tags]
        assert set(put) <= set(said)
        assert len(set(said[len(old) :])) == len(said[len(old) :])
        if old:
            assert set(said) == {tag_of(kind, value) for value in old} | set(put)
        elif kind.separator is None:
            assert set(said) == {path[-1:] for path in users} | set(put)
        else:
            levels = {part for path in users if len(path) > 1 for part in path}
            kept = {path for path in users if len(path) > 1 or path[0] not in levels}
            assert set(said) == kept | set(put)

    record = again(merged)
    assert merge(merged.content, tags, record, origin=None).content == merged.content
    anew = merge(merged.content, others, record, origin=ORIGIN)
    if not same_tags(tags, others):
        assert anew.content == merge(content, others, None, origin=ORIGIN).content
    assert merge(anew.content, [], again(anew), origin=None).content == content
    assert merge(merged.content, [], record, origin=None).content == content


@given(packets(), WANTED, WANTED, st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_another_program_does_to_it(
    content: bytes, tags: list[Tag], others: list[Tag], data: st.DataObject
) -> None:
    merged = merge(content, tags, None, origin=ORIGIN)
    assert merged.content is not None
    record = again(merged)
    root = tree(merged.content)
    (rdf,) = root.iter(f"{RDF}RDF")
    etree.SubElement(rdf, f"{RDF}Description", {"{http://ns.adobe.com/xap/1.0/}Rating": "1"})
    lists = [
        held for held in root.iter(*NAMES) if len(held) and held.getparent().getparent() is rdf
    ]
    mine: dict[str, list[str]] = {}
    for held in data.draw(st.lists(st.sampled_from(lists), unique=True)) if lists else []:
        etree.SubElement(held[0], f"{RDF}li").text = "my own"
        mine[NAMES[held.tag]] = ["my own"]
    changed = etree.tostring(root, encoding=data.draw(st.sampled_from(["utf-8", "utf-16"])))

    undone = merge(changed, [], record, origin=None).content
    assert undone is not None
    anew = merge(changed, others, record, origin=ORIGIN)
    assert anew.rejected == ()
    assert merge(anew.content, [], again(anew), origin=None).content == undone
    more = merge(anew.content, tags, again(anew), origin=ORIGIN)
    assert merge(more.content, [], again(more), origin=None).content == undone
    same = merge(changed, tags, record, origin=ORIGIN)
    # Microsoft's property is kept up once there is something in it.
    if not set(mine) - set(keywords(merged.content)):
        assert same.content == changed

    before, after = keywords(content), keywords(undone)
    created = () if record is None else record.created
    users = {tag_of(kind, v) for kind in PROPERTIES for v in before.get(kind.name, [])}
    for kind in PROPERTIES:
        old, new = before.get(kind.name, []), after.get(kind.name, [])
        own = mine.get(kind.name, [])
        if old:
            assert new == old + own
        elif kind.name in created:
            # It goes with us, unless it is the only place of something that the user put in.
            assert new[-1:] == own or not new
            assert not new or own
            assert not own or any("my own" in values for values in after.values())
        else:
            # It was there and empty: the user's keywords that it started with stay in it.
            assert new[len(new) - len(own) :] == own
        levels = {part for path in users for part in path}
        assert {p for v in new for p in tag_of(kind, v)} <= levels | {"my own"}
    assert LEDGER[1:-1] not in undone.decode(Encoding.of(undone).name)
    assert "Rating" in undone.decode(Encoding.of(undone).name)


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


# Tags and records.


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ((), "empty part"),
        (("ai", " "), "empty part"),
        (("ai", "a\nb"), "holds"),
        (("ai", "a\0b"), "holds"),
        (("ai", "a\ud800"), "holds"),
        (("ai", "a\ufffe"), "holds"),
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
    packet = (FOLDER / "lightroom.xmp").read_bytes()
    assert tags_within(packet, ["heron", "IPTC", " "]) == (
        ("Animals", "Bird", "Heron"),
        ("R&D trip",),
        ("Bird",),
        ("Heron",),
        ("IPTC",),
    )
    assert tags_within(None) == ()


# Which file.


def found_names(folder: Path, photo: str, names: str, **options: Any) -> list[str]:
    for name in names.split():
        (folder / name).touch()
    present = by_stem(names_in(folder))
    return [file.path.name for file in find(folder / photo, present, **options).files]


@pytest.mark.parametrize(
    ("photo", "names", "found"),
    [
        ("a.jpg", "a.jpg", "a.jpg.xmp"),
        ("a.jpg", "a.jpg a.xmp", "a.xmp"),
        ("a.jpg", "a.jpg a.XMP", "a.XMP"),
        ("a.jpg", "a.jpg a.jpg.Xmp", "a.jpg.Xmp"),
        ("a.jpg", "a.jpg a.jpg.xmp a.jpg.XMP", "a.jpg.xmp"),
        ("a.jpg", "a.jpg a.jpg.xmp b.xmp", "a.jpg.xmp"),
        ("a.jpg", "a.jpg a_01.jpg.xmp", "a.jpg.xmp"),
        ("a.cr2", "a.cr2", "a.cr2.xmp"),
        ("a.b.jpg", "a.b.jpg a.xmp", "a.b.jpg.xmp"),
    ],
)
def test_the_sidecar_of_a_photo(photo: str, names: str, found: str, tmp_path: Path) -> None:
    assert found_names(tmp_path, photo, names) == [found]


def test_adobe_s_style_is_for_raw_files(tmp_path: Path) -> None:
    assert found_names(tmp_path, "a.jpg", "a.jpg", style="adobe") == ["a.jpg.xmp"]
    assert found_names(tmp_path, "b.NEF", "b.NEF", style="adobe") == ["b.xmp"]


def test_a_raw_file_s_new_sidecar_is_not_taken_for_its_jpeg_s(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.CR2").touch()
    present = by_stem(names_in(tmp_path))
    (file,) = find(tmp_path / "a.CR2", present, style="adobe").files
    merged = apply(file.path, TAGS, sidecar_for=file.sidecar_for)
    assert found_names(tmp_path, "a.CR2", "") == ["a.xmp"]
    assert found_names(tmp_path, "a.jpg", "") == ["a.jpg.xmp"]
    undo(file.path, again(merged))
    assert not file.path.exists()


def test_two_sidecars(tmp_path: Path) -> None:
    assert found_names(tmp_path, "a.jpg", "a.jpg a.xmp a.jpg.xmp") == ["a.jpg.xmp"]
    present = by_stem(names_in(tmp_path))
    assert "two sidecars" in find(tmp_path / "a.jpg", present).warning
    assert found_names(tmp_path, "a.jpg", "", both=True) == ["a.jpg.xmp", "a.xmp"]


def test_a_shared_sidecar_says_whose_it_is(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "lightroom.xmp", tmp_path / "a.xmp")
    assert found_names(tmp_path, "a.CR3", "a.CR3 a.jpg") == ["a.xmp"]
    assert found_names(tmp_path, "a.jpg", "") == ["a.jpg.xmp"]


def test_a_shared_sidecar_that_does_not_say_is_skipped(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "exiftool.xmp", tmp_path / "a.xmp")
    for photo in ("a.cr2", "a.jpg"):
        with pytest.raises(SidecarError, match=r"shared by a.cr2, a.jpg"):
            found_names(tmp_path, photo, "a.cr2 a.jpg")
    (tmp_path / "a.jpg.xmp").touch()
    assert found_names(tmp_path, "a.jpg", "") == ["a.jpg.xmp"]
    with pytest.raises(SidecarError, match="shared"):
        found_names(tmp_path, "a.cr2", "")


def test_darktable_s_second_version_is_not_another_photo_s(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "darktable.xmp", tmp_path / "IMG_2041_01.jpg.xmp")
    with pytest.raises(SidecarError, match="second version"):
        found_names(tmp_path, "IMG_2041_01.jpg", "IMG_2041_01.jpg IMG_2041.jpg")
    assert found_names(tmp_path, "IMG_2041.jpg", "") == ["IMG_2041.jpg.xmp"]


# Writing.


def test_mode_and_owner_are_kept(tmp_path: Path) -> None:
    target = shape("darktable", tmp_path)
    target.chmod(0o640)
    if os.getuid() == 0:
        os.chown(target, 1234, 4321)
    before = target.stat()
    apply(target, TAGS)
    after = target.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )


def test_a_new_sidecar_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        apply(tmp_path / "photo.jpg.xmp", TAGS)
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "photo.jpg.xmp").stat().st_mode) == 0o640


def test_a_link_is_written_through(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere" / "real.xmp"
    real.parent.mkdir()
    shutil.copy(FOLDER / "darktable.xmp", real)
    link = tmp_path / "photo.jpg.xmp"
    link.symlink_to("elsewhere/real.xmp")
    merged = apply(link, TAGS)
    assert link.is_symlink()
    assert real.read_bytes() == merged.content
    assert [path.name for path in real.parent.iterdir()] == ["real.xmp"]


@pytest.mark.parametrize("to", ["photo.jpg", "nowhere.xmp", "photo.jpg.xmp", "."])
def test_links_to_other_things_are_left_alone(to: str, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"a photo")
    link = tmp_path / "photo.jpg.xmp"
    link.symlink_to(to)
    with pytest.raises(SidecarError, match=r"link|not a file"):
        apply(link, TAGS)
    assert link.is_symlink()
    assert (tmp_path / "photo.jpg").read_bytes() == b"a photo"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "folder.xmp").mkdir()
    os.mkfifo(tmp_path / "pipe.xmp")
    for name in ("folder.xmp", "pipe.xmp"):
        with pytest.raises(SidecarError, match="not a file"):
            apply(tmp_path / name, TAGS)


def test_a_change_while_merging_is_merged_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = shape("darktable", tmp_path)
    changed = target.read_bytes().replace(b'xmp:Rating="3"', b'xmp:Rating="5"')
    replace, tries = atomic_files.replace, []

    def late(*arguments: Any) -> None:
        tries.append(1)
        if len(tries) == 1:
            target.write_bytes(changed)
        replace(*arguments)

    monkeypatch.setattr(atomic_files, "replace", late)
    merged = apply(target, TAGS)
    assert len(tries) == 2
    assert merged.content == target.read_bytes()
    assert b'xmp:Rating="5"' in target.read_bytes()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("links", [True, False])
def test_a_sidecar_that_appears_meanwhile_is_not_overwritten(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "photo.jpg.xmp"
    other = (FOLDER / "darktable.xmp").read_bytes()
    check = atomic_files._check_unchanged

    def late(snapshot: Any) -> None:
        if links:
            check(snapshot)
        if not target.exists():
            target.write_bytes(other)
        if not links:
            check(snapshot)

    def no_links(*_: Any) -> None:
        raise PermissionError(1, "no hard links here")

    monkeypatch.setattr(atomic_files, "_check_unchanged", late)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    merged = apply(target, TAGS)
    assert merged.content == target.read_bytes()
    assert rest(target.read_bytes()) == rest(other)


def test_a_sidecar_that_appears_on_a_file_system_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any) -> None:
        raise PermissionError(1, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    target = tmp_path / "photo.jpg.xmp"
    assert apply(target, TAGS).content == target.read_bytes()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_never_stays_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = shape("darktable", tmp_path)
    check = atomic_files._check_unchanged

    def late(snapshot: Any) -> None:
        target.write_bytes(target.read_bytes() + b"\n")
        check(snapshot)

    monkeypatch.setattr(atomic_files, "_check_unchanged", late)
    with pytest.raises(SidecarError, match="by another program"):
        apply(target, TAGS)
    assert target.read_bytes() == (FOLDER / "darktable.xmp").read_bytes() + b"\n" * 5
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("call", ["open", "fsync", "fchmod", "write"])
def test_a_full_or_failing_disk(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = shape("darktable", tmp_path)
    before = state(target)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen" if call == "write" else call, fail)
    with pytest.raises(SidecarError, match="No space left on device"):
        apply(target, TAGS)
    monkeypatch.undo()
    assert state(target) == before
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("read_only", ["file", "folder"])
def test_what_may_not_be_written(read_only: str, tmp_path: Path) -> None:
    target = shape("darktable", tmp_path)
    before = state(target)
    path, mode = (target, 0o444) if read_only == "file" else (tmp_path, 0o555)
    path.chmod(mode)
    try:
        with pytest.raises(SidecarError, match=r"write-protected|Permission denied"):
            apply(target, TAGS)
    finally:
        path.chmod(mode | 0o200)
    assert state(target)[:4] == before[:4]


KILLED = """
import sys
from pathlib import Path
from zsic_index.library.sidecars.merge import Tag
from zsic_index.library.sidecars.prepared import apply
target = Path(sys.argv[1])
record = None
print("ready", flush=True)
while True:
    for tags in (["dog"], ["cat", "tram"], []):
        record = apply(target, [Tag(("ai", tag)) for tag in tags], record).record
"""


@pytest.mark.parametrize("made", [False, True])
def test_a_kill_leaves_the_old_or_the_new_file(made: bool, tmp_path: Path) -> None:
    target = tmp_path / "photo.jpg.xmp"
    original = None if made else (FOLDER / "darktable.xmp").read_bytes()
    states = {original} | {
        merge(original, [Tag(("ai", tag)) for tag in tags], None, origin=None).content
        for tags in (["dog"], ["cat", "tram"])
    }
    seen = set()
    chance = random.Random(0)
    for _ in range(10):
        if original is None:
            target.unlink(missing_ok=True)
        else:
            target.write_bytes(original)
        worker = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.1))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        content = target.read_bytes() if target.exists() else None
        assert content in states
        seen.add(content)
        # A run that goes on has lost its record, and the ledger says what is ours.
        undo(target)
        if target.exists():
            assert keywords(target.read_bytes()) == keywords(original or b"")
        strays = atomic_files.stray_files(names_in(tmp_path))
        assert set(names_in(tmp_path)) - set(strays) <= {target.name}
        for name in strays:
            (tmp_path / name).unlink()
    assert len(seen) > 1
