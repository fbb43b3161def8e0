"""Photo libraries: what a run does, what it leaves alone, and that it can be taken back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from tests.support.libraries import OTHER_TAXONOMY, build, leaves, put, state, tag, tag_paths
from tests.support.paths import DATA
from tests.support.processes import Processes
from tests.support.stores import copy_store
from zsic_index import LabelIndex
from zsic_index.cli import main
from zsic_index.encoders.source import EncoderSource
from zsic_index.errors import InputError, LabelError, StoreError
from zsic_index.library import walk
from zsic_index.library.run_lock import run_lock
from zsic_index.library.tag_rules import TagSettings
from zsic_index.library.tagging import RootGoneError
from zsic_index.library.undo import undo
from zsic_index.store import Store

SIDECARS = sorted((DATA / "sidecars").glob("*.xmp"))

PROPERTIES = ("-XMP-dc:Subject", "-XMP-lr:HierarchicalSubject", "-XMP-digiKam:TagsList")

needs_exiftool = pytest.mark.skipif(
    not shutil.which("exiftool"), reason="exiftool is not installed (libimage-exiftool-perl)"
)


@pytest.fixture(autouse=True)
def _with_index(built_store: Callable[[str], Path], store: Path) -> None:
    copy_store(built_store("library"), store)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A library of five photos in two folders."""
    root = tmp_path / "photos"
    put(root, "dog-face", "pizza", "2024/octopus", "2024/automobile", "2024/umbrella")
    return root


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: EncoderSource) -> Any:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(EncoderSource, "encoder", refuse)


def take_back(**what: Any) -> Any:
    with Store.open() as store:
        return undo(store, store.tags.find_keys(**what))


def cli(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


# A run


def test_photos_get_the_tags_that_they_show(root: Path, store: Path, tmp_path: Path) -> None:
    store.unlink()  # with all embeddings
    build(tmp_path)
    ran = tag(root)
    assert (ran.counts["inputs"], ran.counts["done"], ran.counts["embedded"]) == (5, 5, 5)
    assert tag_paths(root / "dog-face.jpg") == [("ai", "animals", "mammals", "dog face")]
    assert leaves(root / "pizza.jpg") == ["pizza"]
    assert leaves(root / "2024" / "umbrella.jpg") == ["umbrella"]
    assert {Path(change.photo).name for change in ran.changes} == {
        "dog-face.jpg", "pizza.jpg", "octopus.jpg", "automobile.jpg", "umbrella.jpg",
    }  # fmt: skip
    assert not list(root.rglob("*.xmp"))


@pytest.mark.usefixtures("no_model")
def test_a_library_without_photos_needs_no_model(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert tag(tmp_path / "photos").counts["inputs"] == 0


def test_nothing_is_done_twice(root: Path, no_model_after: Any) -> None:
    tag(root)
    no_model_after()
    again = tag(root)
    assert again.counts["unchanged"] == 5
    assert not again.changes


@pytest.fixture
def no_model_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    """From its call on the model must not be asked for."""

    def start() -> None:
        def refuse(self: EncoderSource) -> Any:
            raise AssertionError("the model is loaded")

        monkeypatch.setattr(EncoderSource, "encoder", refuse)

    return start


def test_moved_and_copied_photos_cost_a_hash(root: Path, no_model_after: Any) -> None:
    tag(root, write="sidecar")
    no_model_after()
    moved = root / "elsewhere" / "a dog.jpg"
    moved.parent.mkdir()
    (root / "dog-face.jpg").rename(moved)
    shutil.copy(root / "pizza.jpg", root / "pizza again.jpg")
    ran = tag(root, write="sidecar")
    assert ran.counts["unchanged"] == 4
    assert ran.counts["embedded"] == 2  # looked up by their content
    assert ran.counts["missing"] == 1
    assert leaves(moved) == ["dog face"]
    assert leaves(root / "pizza again.jpg") == ["pizza"]


def test_another_taxonomy_and_threshold_need_no_model(
    root: Path, tmp_path: Path, no_model_after: Any
) -> None:
    tag(root)
    build(tmp_path, OTHER_TAXONOMY)
    no_model_after()
    ran = tag(root)
    assert ran.counts["reused"] == 5
    assert tag_paths(root / "dog-face.jpg") == [("ai", "things that breathe", "dog face")]
    assert "octopus" not in leaves(root / "2024" / "octopus.jpg")
    ran = tag(root, threshold=1.0)
    assert ran.counts["reused"] == 5
    assert leaves(root / "dog-face.jpg") == []


def test_two_indexes_tag_side_by_side(root: Path, tmp_path: Path) -> None:
    tag(root, write="sidecar")
    build(tmp_path, OTHER_TAXONOMY, name="others")
    tag(root, name="others", write="sidecar")
    assert set(tag_paths(root / "dog-face.jpg")) == {
        ("ai", "animals", "mammals", "dog face"),
        ("ai", "things that breathe", "dog face"),
    }
    text = (root / "dog-face.jpg.xmp").read_text(encoding="utf-8")
    assert "ai/animals/mammals/dog face" in text
    assert "ai/things that breathe/dog face" in text
    take_back(name="others")
    text = (root / "dog-face.jpg.xmp").read_text(encoding="utf-8")
    assert "ai/animals/mammals/dog face" in text
    assert "breathe" not in text


def test_settings_shape_tags(root: Path) -> None:
    dog = root / "dog-face.jpg"
    tag(root, tags=TagSettings(root="auto tags", ancestors=True))
    assert set(tag_paths(dog)) == {
        ("auto tags", "animals", "mammals", "dog face"),
        ("auto tags", "animals", "mammals"),
        ("auto tags", "animals"),
    }
    tag(root, tags=TagSettings(exclude=("animals",)))
    assert tag_paths(dog) == []
    assert leaves(root / "pizza.jpg") == ["pizza"]
    tag(root, tags=TagSettings(only=("mammals", "umbrella")))
    assert leaves(dog) == ["dog face"]
    assert leaves(root / "2024" / "umbrella.jpg") == ["umbrella"]
    assert leaves(root / "pizza.jpg") == []
    tag(root, threshold=0, tags=TagSettings(max_tags=3))
    assert len(tag_paths(dog)) == 3
    with pytest.raises(LabelError, match="dragons"):
        tag(root, tags=TagSettings(only=("dragons",)))
    with pytest.raises(InputError, match="digiKam"):
        tag(root, tags=TagSettings(root="auto"))


def test_names_of_another_language(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("label,lang:de\ndog face,Hundegesicht\npizza,\n", encoding="utf-8")
    LabelIndex.build(file, model="builtin:clip", name="small").close()
    tag(root, name="small", tags=TagSettings(language="de"))
    assert tag_paths(root / "dog-face.jpg") == [("ai", "Hundegesicht")]
    assert tag_paths(root / "pizza.jpg") == [("ai", "pizza")]


def test_a_limit_embeds_gradually(root: Path) -> None:
    done = []
    for _ in range(3):
        ran = tag(root, limit=2)
        done.append((ran.counts["embedded"], ran.counts["skipped"]))
    assert done == [(2, 3), (2, 1), (1, 0)]


def test_a_dry_run_tells_and_does_nothing(root: Path, tmp_path: Path) -> None:
    before = state(root)
    ran = tag(root, dry_run=True, write="sidecar")
    assert len(ran.changes) == 5
    assert state(root) == before
    with Store.open() as store:
        assert store.photos.count()["photos"] == 0
        assert store.runs.all() == []
    tag(root, write="sidecar")
    build(tmp_path, OTHER_TAXONOMY)
    before = state(root)
    dog = next(
        one for one in tag(root, dry_run=True, write="sidecar").changes if "dog" in one.photo
    )
    assert [one.path[1] for one in dog.added] == ["things that breathe"]
    assert [one.path[1] for one in dog.withdrawn] == ["animals"]
    assert state(root) == before


# Files


def test_what_is_left_out(root: Path, tmp_path: Path) -> None:
    put(root, ".hidden/pizza", "album/pizza", "cache/thumbs/pizza", "@eaDir/pizza")
    (root / "album" / ".nomedia").touch()
    put(root, "keep/pizza")
    shutil.copy(root / "pizza.jpg", root / "._pizza.jpg")
    shutil.copy(root / "pizza.jpg", root / "keep" / "screenshot-1.jpg")
    (root / "notes.txt").write_text("no photo", encoding="utf-8")
    (root / "clip.mp4").write_bytes(b"\0" * 100)
    (root / "layers.psd").write_bytes(b"\0" * 100)
    ran = tag(root, exclude=("thumbs", "screenshot-*", "2024/*"))
    assert ran.counts["done"] == 3  # dog-face, pizza, keep/pizza
    assert ran.counts["skipped"] == 2
    assert any("clip.mp4: skipped: a video" in line for line in ran.report.problems)
    assert any("layers.psd: skipped: nothing here reads PSD" in x for x in ran.report.problems)


def test_links_are_followed_once(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    put(outside, "frog")
    (root / "more").symlink_to(outside)
    (root / "2024" / "back").symlink_to(root)
    (root / "link.jpg").symlink_to(root / "pizza.jpg")
    ran = tag(root, write="sidecar")
    assert ran.counts["done"] == 7
    assert (root / "link.jpg.xmp").exists()
    assert (root / "more" / "frog.jpg.xmp").exists()


def test_roots_within_roots_are_walked_once(root: Path) -> None:
    assert walk.checked_roots([root / "2024", root, root]) == [str(root)]
    with pytest.raises(InputError, match="not a folder"):
        walk.checked_roots([root / "pizza.jpg"])


def test_pairs_are_one_decision(root: Path) -> None:
    (root / "dog-face.CR2").write_bytes(b"II*\0 not really a RAW file")
    (root / "dog-face.MOV").write_bytes(b"\0" * 100)
    put(root, "pizza", suffix=".png")
    ran = tag(root, write="sidecar")
    assert ran.counts["paired"] == 2
    assert ran.counts["embedded"] == 6  # pizza.jpg and pizza.png are two
    for name in ("dog-face.jpg.xmp", "dog-face.CR2.xmp", "dog-face.MOV.xmp"):
        assert "ai/animals/mammals/dog face" in (root / name).read_text(encoding="utf-8")
    assert tag(root, write="sidecar").counts["unchanged"] == 6
    take_back()
    assert not list(root.rglob("*.xmp"))


def test_bad_files_are_refused_by_name_and_the_rest_goes_on(root: Path) -> None:
    good = (root / "pizza.jpg").read_bytes()
    bad = {
        "cut.jpg": good[: len(good) // 2],
        "empty.jpg": b"",
        "text.jpg": b"this is no picture",
        "paper.jpg": b"%PDF-1.7\n%...",
        "post.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    }
    for name, content in bad.items():
        (root / name).write_bytes(content)
    Image.new("1", (20_000, 20_000)).save(root / "bomb.png")
    Image.new("RGB", (3_000, 1)).save(root / "thin.png")
    expected = {*bad, "bomb.png", "thin.png"}
    ran = tag(root)
    assert ran.counts["done"] == 5
    assert ran.counts["refused"] == len(expected)
    assert {Path(line.split(":")[0]).name for line in ran.report.problems} == expected
    again = tag(root)
    assert (again.counts["unchanged"], again.counts["refused"]) == (5, len(expected))
    (root / "cut.jpg").write_bytes(good)
    assert tag(root).counts["refused"] == len(expected) - 1
    assert tag(root, retry=True).counts["refused"] == len(expected) - 1


def test_a_refused_photo_keeps_its_tags(root: Path) -> None:
    tag(root, write="sidecar")
    sidecar = (root / "pizza.jpg.xmp").read_bytes()
    (root / "pizza.jpg").write_bytes(b"broken now")
    ran = tag(root, write="sidecar")
    assert ran.counts["refused"] == 1
    assert leaves(root / "pizza.jpg") == ["pizza"]
    assert (root / "pizza.jpg.xmp").read_bytes() == sidecar


# Roots that go


def test_an_empty_root_deletes_nothing(root: Path, tmp_path: Path) -> None:
    tag(root)
    away = tmp_path / "away"
    root.rename(away)
    root.mkdir()
    ran = tag(root)
    assert ran.counts["missing"] == 0
    assert "mounted" in ran.report.root_problems[0]
    with Store.open() as store:
        assert store.photos.count()["missing"] == 0
        assert store.photos.count()["photos"] == 5
    root.rmdir()
    away.rename(root)
    assert tag(root).counts["unchanged"] == 5


def test_a_photo_that_is_gone_is_missing_until_it_is_back(root: Path, tmp_path: Path) -> None:
    tag(root)
    shutil.move(root / "2024", tmp_path / "2024")
    (root / "pizza.jpg").rename(tmp_path / "pizza.jpg")
    assert tag(root).counts["missing"] == 4
    with Store.open() as store:
        assert store.photos.count()["missing"] == 4
        assert store.photos.count()["tags"] == 5
    shutil.move(tmp_path / "2024", root / "2024")
    (tmp_path / "pizza.jpg").rename(root / "pizza.jpg")
    assert tag(root).counts["unchanged"] == 5
    with Store.open() as store:
        assert store.photos.count()["missing"] == 0


def test_a_root_that_goes_in_mid_run_stops_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root, "dog-face")
    tag(root)
    for number in range(1, 40):
        put(root, "pizza", variant=number)
    from zsic_index.images import opening

    read = opening.read

    def unplugged(source: Any, *limits: Any) -> Any:
        if root.exists() and "pizza-20" in str(source):
            root.rename(tmp_path / "unplugged")
        return read(source, *limits)

    monkeypatch.setattr(opening, "read", unplugged)
    with pytest.raises(RootGoneError, match="mount it again"):
        tag(root)
    with Store.open() as store:
        assert store.photos.count()["missing"] == 0
        assert store.photos.count()["refused"] == 0
        assert store.runs.all()[-1].state == "running"
    monkeypatch.undo()
    monkeypatch.setenv("ZSIC_STORE", str(tmp_path / "store.db"))
    (tmp_path / "unplugged").rename(root)
    ran = tag(root)
    assert ran.report.resumed
    assert ran.counts["done"] == 44


def test_one_run_at_a_time(root: Path, store: Path) -> None:
    with run_lock(Path(f"{store}.indexes")), pytest.raises(StoreError, match="another run"):
        tag(root)


# Sidecars


@pytest.mark.parametrize("shape", SIDECARS, ids=lambda path: path.stem)
def test_round_trip(shape: Path, root: Path, tmp_path: Path) -> None:
    """Tag, tag with another taxonomy, undo: the sidecar is what it was, byte for byte."""
    sidecar = root / "dog-face.jpg.xmp"
    shutil.copy(shape, sidecar)
    before = sidecar.read_bytes()
    ran = tag(root, write="sidecar")
    assert not ran.report.sidecars.problems
    first = sidecar.read_bytes()
    assert first != before
    tag(root, write="sidecar")
    assert sidecar.read_bytes() == first
    build(tmp_path, OTHER_TAXONOMY)
    tag(root, write="sidecar")
    assert sidecar.read_bytes() not in (before, first)
    assert take_back().photos == 5
    assert sidecar.read_bytes() == before
    assert [path.name for path in root.rglob("*.xmp")] == [sidecar.name]


@needs_exiftool
def test_exiftool_reads_every_sidecar_without_a_warning(root: Path) -> None:
    for number, shape in enumerate(SIDECARS, start=1):
        (photo,) = put(root, "dog-face", variant=number)
        shutil.copy(shape, f"{photo}.xmp")
    before = by_exiftool(root)
    tag(root, write="sidecar")
    after = by_exiftool(root)
    assert len(after) == len(SIDECARS) + 5
    for path, found in after.items():
        # Programs' own files have some: lists that are empty, a namespace that is spelt wrong.
        warned = warnings_in(before.get(path, {}))
        assert warnings_in(found) <= warned
        # It takes one shape for text, with our tags or without.
        if Path(path).name.startswith("dog-face") and not any("extension" in x for x in warned):
            for property_, value in {
                "XMP-dc:Subject": "dog face",
                "XMP-lr:HierarchicalSubject": "ai|animals|mammals|dog face",
                "XMP-digiKam:TagsList": "ai/animals/mammals/dog face",
            }.items():
                listed = found[property_]
                assert value in (listed if isinstance(listed, list) else [listed])


def warnings_in(found: dict[str, Any]) -> set[str]:
    """Return the warnings in what exiftool says of a file."""
    said = found.get("ExifTool:Warning", [])
    return {said} if isinstance(said, str) else set(said)


def by_exiftool(root: Path) -> dict[str, dict[str, Any]]:
    """Return what exiftool says of every sidecar."""
    files = [str(path) for path in sorted(root.rglob("*.xmp"))]
    shown = subprocess.run(
        ["exiftool", "-json", "-G1", "-a", "-validate", "-warning", *PROPERTIES, *files],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {found["SourceFile"]: found for found in json.loads(shown.stdout)}


def test_the_users_keywords_within_a_photo_are_not_hidden(root: Path) -> None:
    photo = root / "dog-face.jpg"
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:subject><rdf:Bag><rdf:li>Rex</rdf:li>'
        "</rdf:Bag></dc:subject></rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    with Image.open(photo) as image:
        image.save(photo, quality=95, xmp=xmp.encode())
    tiff = put(root, "pizza", suffix=".tif")[0]
    with Image.open(tiff) as image:
        directory = ImageFileDirectory_v2()
        directory[700] = xmp.replace("Rex", "Napoli").encode()
        image.save(tiff, tiffinfo=directory)
    # The containers of RAW files and videos are not read: packets are found in them.
    raw, video = root / "dog-face.NEF", root / "dog-face.mov"
    raw.write_bytes(b"MM\0*" + bytes(5_000) + xmp.replace("Rex", "Fido").encode() + bytes(99))
    video.write_bytes(bytes(70_000))
    tag(root, write="sidecar")
    assert "Rex" not in video.with_name("dog-face.mov.xmp").read_text(encoding="utf-8")
    for path, own in ((photo, "Rex"), (tiff, "Napoli"), (raw, "Fido")):
        text = Path(f"{path}.xmp").read_text(encoding="utf-8")
        for property_ in ("dc:subject", "lr:hierarchicalSubject", "digiKam:TagsList"):
            within = text.split(f"<{property_}>")[1].split(f"</{property_}>")[0]
            assert f">{own}<" in within
    take_back()
    assert not list(root.rglob("*.xmp"))


def test_photos_are_never_opened_for_writing(
    root: Path, tmp_path: Path, processes: Processes
) -> None:
    put(root, "frog", suffix=".png")
    put(root, "lion", suffix=".webp")
    before = state(root)
    processes.run(tag_and_undo_watched, root, tmp_path / "written.txt")
    touched = (tmp_path / "written.txt").read_text(encoding="utf-8").splitlines()
    assert touched, "the hook sees what is written"
    assert all(name.endswith((".xmp", ".tmp")) for name in touched), touched
    assert state(root) == before


def tag_and_undo_watched(root: Path, report: Path) -> None:
    """Tag a library and undo it; report the names of the files below it that are written to."""
    written: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            path, _mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            if writes and os.fsdecode(path).startswith(str(root)):
                written.append(os.fsdecode(path))
        if event in ("os.rename", "os.remove", "os.truncate", "os.chmod", "os.chown", "os.utime"):
            path = os.fsdecode(arguments[0])
            if path.startswith(str(root)):
                written.append(path)

    sys.addaudithook(watch)
    tag(root, write="sidecar")
    take_back()
    report.write_text("\n".join(Path(path).name for path in written), encoding="utf-8")


def test_a_tag_that_the_user_takes_out_is_rejected(root: Path) -> None:
    copy = root / "2024" / "copy of a dog.jpg"
    shutil.copy(root / "dog-face.jpg", copy)
    tag(root, write="sidecar")
    sidecar = root / "dog-face.jpg.xmp"
    content = sidecar.read_text(encoding="utf-8")
    for line in (
        "     <rdf:li>ai/animals/mammals/dog face</rdf:li>\n",
        "     <rdf:li>ai|animals|mammals|dog face</rdf:li>\n",
        "     <rdf:li>dog face</rdf:li>\n",
    ):
        content = content.replace(line, "", 1)
    sidecar.write_text(content, encoding="utf-8")
    ran = tag(root, write="sidecar")
    assert ran.report.sidecars.rejected == 1
    for _ in range(2):
        ran = tag(root, write="sidecar")
        assert leaves(root / "dog-face.jpg") == []
        assert leaves(copy) == []
        assert not Path(f"{copy}.xmp").exists()
    assert ran.counts["unchanged"] == 6
    assert "dog face" not in tag_names_in(sidecar)


def tag_names_in(sidecar: Path) -> list[str]:
    from zsic_index.library.sidecars.xmp import parse

    if not sidecar.exists():
        return []
    found = parse(sidecar.read_bytes(), str(sidecar)).keywords()
    return [value for values in found.values() for value in values]


def test_verdicts_count_more_than_probabilities(root: Path) -> None:
    tag(root, write="sidecar")
    with LabelIndex.open("things") as index, Store.open() as store:
        ids = dict(zip(index.labels, index.label_ids.tolist(), strict=True))
        dog = store.photos.find(str(root), "dog-face.jpg")
        assert dog is not None
        assert dog.content_hash is not None
        said = [(dog.content_hash, ids["dog face"], "rejected"),
                (dog.content_hash, ids["umbrella"], "accepted"),
                (dog.content_hash, ids["pizza"], "unsure")]  # fmt: skip
        store.verdicts.save(said, source="review")  # type: ignore[arg-type]
        assert leaves(root / "dog-face.jpg") == []
        tag(root, write="sidecar")
        assert leaves(root / "dog-face.jpg") == ["umbrella"]
        assert "umbrella" in tag_names_in(root / "dog-face.jpg.xmp")
        assert "dog face" not in tag_names_in(root / "dog-face.jpg.xmp")
        back = [(content, label, None) for content, label, _ in said]
        store.verdicts.save(back, source="review")
        tag(root, write="sidecar")
        assert leaves(root / "dog-face.jpg") == ["dog face"]
        index_id = index.info.index_id
        store.verdicts.set_threshold(index_id, ids["dog face"], 1.0)
        tag(root)
        assert leaves(root / "dog-face.jpg") == []
        store.verdicts.set_threshold(index_id, ids["dog face"], None)
        tag(root)
        assert leaves(root / "dog-face.jpg") == ["dog face"]


def test_a_broken_sidecar_is_named_and_left(root: Path) -> None:
    sidecar = root / "pizza.jpg.xmp"
    sidecar.write_text("<x:xmpmeta", encoding="utf-8")
    ran = tag(root, write="sidecar")
    assert ran.report.sidecars.written == 4
    assert str(sidecar) in ran.report.sidecars.problems[0]
    assert sidecar.read_text(encoding="utf-8") == "<x:xmpmeta"
    assert leaves(root / "pizza.jpg") == ["pizza"]
    sidecar.unlink()
    assert tag(root, write="sidecar").report.sidecars.written == 1


def test_a_sidecar_that_moved_with_its_photo_is_known_again(root: Path) -> None:
    sidecar = root / "dog-face.jpg.xmp"
    shutil.copy(SIDECARS[0], sidecar)
    before = sidecar.read_bytes()
    tag(root, write="sidecar")
    target = root / "moved"
    target.mkdir()
    for path in (root / "dog-face.jpg", sidecar):
        path.rename(target / path.name)
    tag(root, write="sidecar")
    take_back()
    assert (target / sidecar.name).read_bytes() == before


def test_undo_by_run_label_and_model(root: Path, tmp_path: Path) -> None:
    first = tag(root)
    put(root, "frog")
    second = tag(root, write="sidecar")
    assert first.report.run_id != second.report.run_id
    with Store.open() as store:
        given = store.tags.find_keys
        assert len(given(run_id=first.report.run_id)) == 5
        # It gave one, and wrote all six.
        assert len(given(run_id=second.report.run_id)) == 6
        paths = store.tags.find_paths("PIZZA")
        assert paths == [("ai", "food", "pizza")]
        assert len(given(paths=paths)) == 1
        assert len(given(model_id="builtin:siglip")) == 0
        assert len(given(model_id="builtin:clip")) == 6
    report = take_back(paths=[("ai", "food", "pizza")])
    assert (report.photos, report.sidecars.removed) == (1, 1)
    assert not (root / "pizza.jpg.xmp").exists()
    assert leaves(root / "pizza.jpg") == []
    assert len(list(root.rglob("*.xmp"))) == 5
    take_back(run_id=second.report.run_id)
    assert not list(root.rglob("*.xmp"))
    tag(root, write="sidecar")
    assert len(list(root.rglob("*.xmp"))) == 6


def test_undo_keeps_what_it_could_not_take_back(root: Path) -> None:
    tag(root, write="sidecar")
    sidecar = root / "pizza.jpg.xmp"
    content = sidecar.read_bytes()
    sidecar.write_bytes(b"<broken")
    report = take_back()
    assert (report.photos, len(report.sidecars.problems)) == (4, 1)
    assert leaves(root / "pizza.jpg") == ["pizza"]
    sidecar.write_bytes(content)
    assert take_back().photos == 1
    assert not sidecar.exists()


# The command line


def test_commands(root: Path, tmp_path: Path) -> None:
    (root / "cut.jpg").write_bytes(b"\xff\xd8\xff nothing")
    done = cli("tag", root, "-n", "things", "--threshold", 0.5, "--dry-run")
    assert done.exit_code == 3
    assert "+ ai/animals/mammals/dog face" in done.stdout
    assert "cut.jpg" in done.stderr
    done = cli("tag", root, "-n", "things", "--threshold", 0.5, "--write", "sidecar", "--json")
    found = json.loads(done.stdout)
    assert (found["inputs"], found["done"], found["refused"]) == (6, 5, 1)
    assert found["sidecars_written"] == 5
    done = cli("status", "--problems")
    assert "5 tagged" in done.stdout
    assert "cut.jpg" in done.stdout
    assert json.loads(cli("status", "--json").stdout)["counts"]["tags"] == 5
    done = cli("show", root / "dog-face.jpg")
    assert "ai/animals/mammals/dog face" in done.stdout
    assert "dog-face.jpg.xmp" in done.stdout
    assert "cannot be read" not in cli("show", root / "cut.jpg").stdout
    done = cli("search", "octopus", "-n", "things", "-k", 1, "--json")
    assert json.loads(done.stdout)[0]["photo"].endswith("octopus.jpg")
    for suffix in ("csv", "jsonl"):
        done = cli("export", tmp_path / f"all.{suffix}")
        assert done.exit_code == 0, done.output
    lines = (tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 6
    rows = (tmp_path / "all.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + 5
    done = cli("undo", "--label", "pizza", "--dry-run")
    assert done.stdout == "1 tags on 1 photos\n"
    assert cli("undo").exit_code == 2
    assert CliRunner().invoke(main, ["undo", "--run", "nothing"]).exit_code == 1
    done = cli("undo", "--run", found["run"])
    assert "5 tags withdrawn from 5 photos" in done.stdout
    assert not list(root.rglob("*.xmp"))


def test_lists_from_files(root: Path, tmp_path: Path) -> None:
    listed = tmp_path / "deny.txt"
    listed.write_text("# not these\nanimals\n\npizza\n", encoding="utf-8")
    cli("tag", root, "-n", "things", "--threshold", 0.5, "--deny", f"@{listed}", "--quiet")
    assert leaves(root / "dog-face.jpg") == []
    assert leaves(root / "pizza.jpg") == []
    assert leaves(root / "2024" / "umbrella.jpg") == ["umbrella"]


def test_watch_sees_new_photos(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = root.with_name("away")
    naps: Iterator[Callable[[], object]] = iter(
        [
            lambda: put(root, "frog"),
            lambda: root.rename(away),  # A share that is down for a while.
            lambda: away.rename(root),
            lambda: put(root, "lion"),
        ]
    )

    def nap(seconds: float) -> None:
        assert seconds == 5
        event = next(naps, None)
        if event is None:
            raise KeyboardInterrupt
        event()

    monkeypatch.setattr("zsic_index.cli.tagging.time.sleep", nap)
    done = CliRunner().invoke(
        main, ["watch", str(root), "-n", "things", "--threshold", "0.5", "--interval", "5"]
    )
    assert done.exit_code == 1  # interrupted
    assert leaves(root / "frog.jpg") == ["frog"]
    assert leaves(root / "lion.jpg") == ["lion"]
    assert done.stdout.count("photos changed") == 3
    assert done.stderr.count("is its drive mounted?") == 1


def test_everyday_tags_are_a_taxonomy_in_two_languages() -> None:
    from zsic_index import builtin, taxonomy

    found = taxonomy.read(builtin.photo_tags())
    assert len(found.labels) > 1_000
    assert not found.duplicates
    assert set(found.languages) == {"de"}


def test_a_missing_extra_is_counted_and_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heif = DATA / "heif" / "orientation-1.heic"
    shutil.copy(heif, root / "phone.heic")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "_pi_heif", None)
        patch.setitem(sys.modules, "pi_heif", None)
        ran = tag(root)
    assert (ran.counts["done"], ran.counts["skipped"]) == (5, 1)
    assert "pip install 'zsic-index[heic]'" in ran.report.problems[0]
    pytest.importorskip("pi_heif")
    assert tag(root).counts["embedded"] == 1


def test_photos_are_tagged_by_the_onnx_tower_without_torch(
    root: Path, store: Path, built_store: Callable[[str], Path]
) -> None:
    shutil.rmtree(f"{store}.indexes")
    copy_store(built_store("onnx"), store)
    code = (
        "import sys\n"
        "from zsic_index.cli import main\n"
        f"try: main(['tag', {str(root)!r}, '-n', 'things', '--json'])\n"
        "except SystemExit as ended: assert not ended.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ZSIC_RUNTIME": "auto"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(ended.stdout.splitlines()[-1])["embedded"] == 5
    tagged = {name: leaves(root / f"{name}.jpg") for name in ("dog-face", "pizza", "2024/umbrella")}
    assert tagged == {"dog-face": ["dog face"], "pizza": ["pizza"], "2024/umbrella": ["umbrella"]}
    # They count as torch's.
    again = tag(root, threshold=0.4)
    assert (again.counts["embedded"], again.counts["reused"]) == (0, 5)
