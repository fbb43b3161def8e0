"""Sidecars as exiftool and exiv2 read and rewrite them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.sidecars import (
    MERGED,
    ORIGIN,
    OTHER_TAGS,
    SHAPE_FOLDER,
    SHAPES,
    TAGS,
    again,
    keywords,
    needs_exiftool,
    needs_exiv2,
    rest,
    shape,
)
from zsic_index.library.sidecars.merge import merge
from zsic_index.library.sidecars.prepared import apply, undo


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
    untagged = Path(shutil.copy(SHAPE_FOLDER / f"{name}.xmp", tmp_path / "untagged.xmp"))
    target = shape(name, tmp_path)
    merged = apply(target, TAGS, origin=ORIGIN)
    done = subprocess.run([*command, str(untagged), str(target)], capture_output=True, timeout=60)
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
