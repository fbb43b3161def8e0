"""ONNX towers of indexes: chosen, shared, kept apart, damaged, measured and removed."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support import models
from tests.support.pictures import picture
from tests.support.processes import Processes, finish
from tests.support.stores import copy_store
from zsic_index import InputError, LabelIndex, ModelError, StoreError, builtin, encoders
from zsic_index.encoders import runtime as runtimes
from zsic_index.encoders.onnx import export
from zsic_index.encoders.onnx.files import find_tower, lock_towers, write_record
from zsic_index.encoders.onnx.tower import OnnxTower
from zsic_index.label_index.towers import (
    find_towers,
    remove_damaged_towers,
    remove_unused_towers,
    write_int8_tower,
)
from zsic_index.records import Runtime

HEAVY = ("torch", "transformers", "huggingface_hub", "alembic", "sqlalchemy.orm", "onnx")


@pytest.fixture
def things(built_store: Callable[[str], Path], store: Path) -> str:
    """The name of an index of builtin:clip with an ONNX tower, in the test's own store."""
    copy_store(built_store("onnx"), store)
    return "things"


def folder_of(index: LabelIndex) -> Path:
    (tower,) = find_towers(index.store, index.info)
    return tower.folder


def test_it_is_used_by_default_and_gives_the_probabilities_of_torch(things: str) -> None:
    samples = builtin.samples()[:12]
    with (
        LabelIndex.open(things, runtime="auto") as index,
        LabelIndex.open(things, runtime="torch") as reference,
    ):
        assert (index.encoder.runtime, reference.encoder.runtime) == ("onnx", "torch")
        for actual, expected in zip(
            index.classify(samples), reference.classify(samples), strict=True
        ):
            assert [p.label for p in actual] == [p.label for p in expected]
            for one, other in zip(actual, expected, strict=True):
                assert one.probability == pytest.approx(other.probability, abs=1e-5)


def test_a_query_imports_neither_torch_nor_transformers(things: str, store: Path) -> None:
    code = (
        "import sys\n"
        "from zsic_index.cli import main\n"
        f"arguments = ['query', {str(builtin.samples()[0])!r}, '-n', {things!r}]\n"
        "try: main([*arguments, '--runtime', 'auto', '--format', 'csv'])\n"
        "except SystemExit as ended: assert not ended.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "dog face" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "[]"


def test_embeddings_that_torch_made_are_not_made_again(
    things: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = builtin.samples()[:3]
    with LabelIndex.open(things, runtime="torch", keep_images=True) as index:
        expected = index.embed(samples)
    monkeypatch.delattr(OnnxTower, "encode_images")
    with LabelIndex.open(things, runtime="auto", keep_images=True) as index:
        assert index.encoder.runtime == "onnx"
        np.testing.assert_array_equal(index.embed(samples), expected)
    other = picture(0, (50, 50))
    with (
        LabelIndex.open(things, runtime="auto", keep_images=True) as index,
        pytest.raises(AttributeError, match="encode_images"),
    ):
        index.embed([other])


def test_one_that_differs_too_much_is_used_on_request_only_and_kept_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = models.make_clip(tmp_path / "model", logit_scale=9.2)
    with caplog.at_level(logging.WARNING, "zsic_index"):
        LabelIndex.build(["cat", "dog"], model=model, name="things", runtime="auto").close()
    assert "is used with --runtime onnx only" in caplog.text
    opened = {
        runtime: LabelIndex.open("things", runtime=runtime, keep_images=True)
        for runtime in ("auto", "torch", "onnx")
    }
    assert opened["auto"].encoder.runtime == "torch"
    assert opened["onnx"].encoder.runtime == "onnx"
    fingerprints = {name: index.encoder.image_fingerprint for name, index in opened.items()}
    assert fingerprints["auto"] == fingerprints["torch"] != fingerprints["onnx"]
    image = picture(0, (50, 50))
    for index in opened.values():
        index.embed([image])
        index.close()
    with LabelIndex.open("things") as index:
        assert index.store.encoders.find(fingerprints["torch"])
        assert index.store.encoders.find(fingerprints["onnx"])


def test_every_index_of_a_model_is_measured_with_its_own_labels(
    things: str, caplog: pytest.LogCaptureFixture
) -> None:
    with LabelIndex.open(things) as index:
        before = find_towers(index.store, index.info)[0]
    second = LabelIndex.build(["sun", "moon"], model="builtin:clip", name="others", runtime="auto")
    with second:
        (after,) = find_towers(second.store, second.info)
        assert after.record.measured.keys() == {"things", "others"}
        assert after.record.change >= before.record.change
        assert after.record.files == before.record.files
        moves = after.read_differences() @ second.embeddings.T
        assert (
            after.record.change >= 0.99 * second.info.logit_scale / 4 * np.ptp(moves, axis=1).max()
        )
        assert "count as torch's, although" not in caplog.text
        # Differences that are too large for these labels count for all indexes.
        np.save(after.folder / "differences.npy", 1e3 * after.read_differences())
    with LabelIndex.build(
        ["sun", "moon", "star"], model="builtin:clip", name="others", runtime="auto"
    ) as third:
        assert third.encoder.runtime == "torch"
    # Embeddings that it made while it counted as torch's are not made again.
    assert "in the store count as torch's, although with them" in caplog.text
    with LabelIndex.open(things, runtime="auto") as index:
        assert index.encoder.runtime == "torch"


def test_it_is_removed_with_the_last_index(things: str) -> None:
    LabelIndex.build(["sun"], model="builtin:clip", name="others", runtime="torch").close()
    with LabelIndex.open(things) as index:
        folder, opened = folder_of(index), index.store
        opened.indexes.remove("others")
        remove_unused_towers(opened)
        assert folder.is_dir()
        opened.indexes.remove(things)
        remove_unused_towers(opened)
        assert not folder.exists()


@pytest.mark.parametrize("damage", ["graph cut off", "no weights", "no record", "other record"])
def test_a_damaged_one_is_not_used(
    damage: str, things: str, caplog: pytest.LogCaptureFixture
) -> None:
    with LabelIndex.open(things) as index:
        folder = folder_of(index)
    match damage:
        case "graph cut off":
            graph = folder / "model.onnx"
            graph.write_bytes(graph.read_bytes()[:-100])
        case "no weights":
            (folder / "model.onnx.data").unlink()
        case "no record":
            (folder / "tower.json").unlink()
        case "other record":
            (folder / "tower.json").write_text('{"format": 99}')
    with LabelIndex.open(things, runtime="auto") as index:
        assert index.encoder.runtime == "torch"
    assert "torch is used" in caplog.text
    with (
        LabelIndex.open(things, runtime="onnx") as index,
        pytest.raises(ModelError, match=r"is damaged.*onnx write things"),
    ):
        _ = index.encoder.runtime


def test_a_damaged_one_is_written_anew(things: str, caplog: pytest.LogCaptureFixture) -> None:
    with LabelIndex.open(things) as index:
        (folder_of(index) / "model.onnx.data").write_bytes(b"")
    LabelIndex.build(["sun"], model="builtin:clip", name=things, runtime="auto").close()
    assert "is damaged or of another checkpoint: writing it anew" in caplog.text
    with LabelIndex.open(things, runtime="auto") as index:
        assert index.encoder.runtime == "onnx"
        find_towers(index.store, index.info)[0].verify()


def test_a_flipped_bit_is_found_by_reading_everything(things: str) -> None:
    with LabelIndex.open(things) as index:
        folder = folder_of(index)
        assert remove_damaged_towers(index.store, index.info) == []
        content = bytearray((folder / "model.onnx.data").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "model.onnx.data").write_bytes(content)
        (problem,) = remove_damaged_towers(index.store, index.info)
        assert "model.onnx.data is damaged" in problem
        assert not folder.exists()


def test_labels_outside_the_store_still_go_through_the_text_tower(things: str) -> None:
    with LabelIndex.open(things, runtime="auto") as index:
        assert index.encoder.runtime == "onnx"
        embeddings = index.encoder.encode_labels(["a green tree"])
    with LabelIndex.open(things, runtime="torch") as index:
        np.testing.assert_array_equal(index.encoder.encode_labels(["a green tree"]), embeddings)


def test_the_checkpoint_is_not_needed_for_images(tmp_path: Path) -> None:
    model = models.make_siglip(tmp_path / "model")
    with LabelIndex.build(["cat", "dog"], model=model, name="things", runtime="auto") as index:
        expected = index.embed([picture(0, (50, 50))])
    model.rename(tmp_path / "elsewhere")
    with LabelIndex.open("things", runtime="auto") as index:
        np.testing.assert_array_equal(index.embed([picture(0, (50, 50))]), expected)
        with pytest.raises(ModelError, match="no such folder"):
            index.encoder.encode_labels(["tree"])


@pytest.mark.parametrize(
    ("runtime", "device", "reason"),
    [
        ("onnx", "cuda", "runs on the CPU, not on cuda"),
        (
            "onnx-int8",
            "auto",
            "index 'things' has no ONNX tower in int8.*onnx write things --precision int8",
        ),
    ],
)
def test_a_runtime_that_cannot_be_used_is_refused(
    runtime: Runtime, device: str, reason: str, things: str
) -> None:
    with (
        LabelIndex.open(things, runtime=runtime, device=device) as index,
        pytest.raises(ModelError, match=reason),
    ):
        _ = index.encoder.runtime


def test_other_dtypes_stay_with_torch(clip_folder: Path) -> None:
    LabelIndex.build(
        ["cat"], model=clip_folder, name="half", dtype="bfloat16", runtime="auto"
    ).close()
    with LabelIndex.open("half", runtime="auto") as index:
        assert find_towers(index.store, index.info) == []
        assert index.encoder.runtime == "torch"
    with (
        LabelIndex.open("half", runtime="onnx") as index,
        pytest.raises(ModelError, match="computes in float32, the index in bfloat16"),
    ):
        _ = index.encoder.runtime


def test_naflex_stays_with_torch(checkpoints: Callable[[str], Path]) -> None:
    model = checkpoints("siglip2")
    with LabelIndex.build(["cat"], model=model, name="naflex", runtime="auto") as index:
        assert index.encoder.runtime == "torch"
        assert find_towers(index.store, index.info) == []


def test_unknown_runtimes_are_refused(things: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="runtime 'tensorrt': use one of auto, torch, onnx"):
        LabelIndex.open(things, runtime="tensorrt")  # type: ignore[arg-type]
    monkeypatch.setenv("ZSIC_RUNTIME", "openvino")
    with pytest.raises(InputError, match="runtime 'openvino'"):
        LabelIndex.open(things)
    monkeypatch.setenv("ZSIC_RUNTIME", "onnx")
    with LabelIndex.open(things) as index:
        assert index.encoder.runtime == "onnx"


def test_without_onnx_runtime_torch_is_used(things: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the look-up of the modules is a stand-in: they are installed here."""
    find = runtimes.importlib.util.find_spec
    monkeypatch.setattr(
        runtimes.importlib.util,
        "find_spec",
        lambda name, *more: None if name.startswith("onnx") else find(name, *more),
    )
    with LabelIndex.open(things, runtime="auto") as index:
        assert index.encoder.runtime == "torch"
    with (
        LabelIndex.open(things, runtime="onnx") as index,
        pytest.raises(ModelError, match=r"pip install 'zsic-index\[onnx\]'"),
    ):
        _ = index.encoder.runtime
    LabelIndex.build(["sun"], model="builtin:siglip", name="others", runtime="auto").close()
    with LabelIndex.open("others") as index:
        assert find_towers(index.store, index.info) == []


def test_int8_is_measured_and_kept_apart(things: str) -> None:
    with LabelIndex.open(things) as index:
        (exact,) = find_towers(index.store, index.info)
        rounded = write_int8_tower(index, exact, builtin.samples()[:30])
        agreement = rounded.record.agreement
        assert agreement is not None
        assert agreement.images == 30
        assert agreement.low < agreement.top_1 <= agreement.high
        assert agreement.top_1 > 0.9
        assert 0.99 < agreement.min_cosine < agreement.mean_cosine < 0.99999
        assert not rounded.record.is_measured
        assert rounded.image_fingerprint != exact.image_fingerprint
        sizes = [tower.record.files["model.onnx.data"][0] for tower in (exact, rounded)]
        assert sizes[1] < 0.4 * sizes[0]
        assert find_tower(exact.folder.parent, index.info.encoder_fingerprint, "int8") == rounded
    with LabelIndex.open(things, runtime="onnx-int8") as index:
        assert index.encoder.image_fingerprint == rounded.image_fingerprint
        assert index.classify(builtin.samples()[0])[0].label == "dog face"


def test_int8_that_agrees_too_seldom_is_refused_unless_forced(things: str) -> None:
    """Pictures of nothing, and 200 labels that hardly differ."""
    images = [picture(seed, (64, 64)) for seed in range(500)]
    labels = [f"label {number}" for number in range(200)]
    with LabelIndex.build(labels, model="builtin:clip", name="near", runtime="auto") as index:
        (exact,) = find_towers(index.store, index.info)
        with pytest.raises(ModelError, match=r"of 500 images .* less than 99%.*--force"):
            write_int8_tower(index, exact, images)
        assert find_towers(index.store, index.info) == [exact]
        forced = write_int8_tower(index, exact, images, force=True)
        assert forced.record.is_measured
        assert forced.record.agreement is not None
        assert forced.record.agreement.top_1 < 0.99


def test_int8_of_convolutions_is_refused(
    checkpoints: Callable[[str], Path],
) -> None:
    model = checkpoints("align")
    with LabelIndex.build(["cat"], model=model, name="align", runtime="onnx") as index:
        (exact,) = find_towers(index.store, index.info)
        with pytest.raises(ModelError, match="too few of them are in matrix products"):
            write_int8_tower(index, exact, [])


def test_a_record_that_cannot_be_exact_never_shares(things: str) -> None:
    with LabelIndex.open(things) as index:
        (tower,) = find_towers(index.store, index.info)
        shared = tower.image_fingerprint
        write_record(tower.folder, replace(tower.record, change=1.0))
        (changed,) = find_towers(index.store, index.info)
        assert changed.image_fingerprint != shared


def test_an_index_whose_labels_it_was_not_measured_with_stays_with_torch(
    things: str, caplog: pytest.LogCaptureFixture
) -> None:
    LabelIndex.build(["sun"], model="builtin:clip", name="others", runtime="torch").close()
    with LabelIndex.open("others", runtime="auto") as index:
        assert index.encoder.runtime == "torch"
    assert "'zsic-index onnx write others'; until then torch is used" in caplog.text
    with (
        LabelIndex.open("others", runtime="onnx") as index,
        pytest.raises(ModelError, match="not measured with the labels of index 'others'"),
    ):
        _ = index.encoder.runtime
    # Built anew it has other labels than those that were measured.
    LabelIndex.build(["moon"], model="builtin:clip", name=things, runtime="torch").close()
    with LabelIndex.open(things, runtime="auto") as index:
        assert index.encoder.runtime == "torch"


def test_it_is_measured_where_none_can_be_written(
    things: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the look-up of the modules is a stand-in: they are installed here."""
    find = runtimes.importlib.util.find_spec
    monkeypatch.setattr(
        runtimes.importlib.util,
        "find_spec",
        lambda name, *more: None if name == "onnxscript" else find(name, *more),
    )
    with LabelIndex.build(["sun"], model="builtin:clip", name="others", runtime="auto") as index:
        assert index.encoder.runtime == "onnx"


def test_threads_share_it(things: str) -> None:
    """Eight threads get the embeddings that a thread alone gets."""
    with LabelIndex.open(things) as index:
        tower = encoders.load_tower(find_towers(index.store, index.info)[0])
    batches = [[tower.preprocess(picture(n, (40 + n, 50)))] * (1 + n % 3) for n in range(40)]
    alone = [tower.encode_images(batch).embeddings for batch in batches]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda batch: tower.encode_images(batch).embeddings, batches))
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_array_equal(first, second)


def _build(store: Path, model: str | Path, name: str) -> None:
    LabelIndex.build([name], model=model, name=name, store=store, runtime="onnx").close()


def _build_and_die(store: Path, model: Path) -> None:
    """Build, and be killed when all files of the tower but its record are written."""
    export.write_record = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    _build(store, model, "killed")


def test_a_build_waits_for_one_that_measures(things: str) -> None:
    with LabelIndex.open(things) as index, ThreadPoolExecutor(1) as thread:
        (tower,) = find_towers(index.store, index.info)
        with lock_towers(tower.folder.parent):
            build = thread.submit(
                LabelIndex.build, ["sun"], model="builtin:clip", name="others", runtime="auto"
            )
            while index.store.indexes.find("others") is None:
                time.sleep(0.01)
            with pytest.raises(TimeoutError):
                build.result(timeout=0.5)
            measured = {**tower.record.measured, "another": "checksum"}
            write_record(tower.folder, replace(tower.record, measured=measured))
        build.result().close()
        (tower,) = find_towers(index.store, index.info)
    assert tower.record.measured.keys() == {things, "another", "others"}


@pytest.mark.slow
def test_a_killed_build_leaves_none_and_two_at_once_make_one(
    ready_store: Path, clip_folder: Path, processes: Processes
) -> None:
    killed = processes.start(_build_and_die, ready_store, clip_folder)
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL
    with LabelIndex.open("killed", runtime="auto") as index:
        assert index.encoder.runtime == "torch"
        files = index.store.location.files
    (stray,) = files.glob(".zsic-*.tmp")
    assert (stray / "model.onnx.data").stat().st_size > 1e5
    os.utime(stray, (0, 0))
    for process in [
        processes.start(_build, ready_store, clip_folder, name) for name in ("first", "second")
    ]:
        finish(process)
    assert not stray.exists()
    assert {path.suffix for path in files.iterdir()} == {"", ".faiss", ".lock"}
    for name in ("first", "second"):
        with LabelIndex.open(name, runtime="auto") as index:
            assert index.encoder.runtime == "onnx"
            (tower,) = find_towers(index.store, index.info)
            tower.verify()
    LabelIndex.build(["killed"], model=clip_folder, name="killed", runtime="auto").close()
    record = json.loads((tower.folder / "tower.json").read_text())
    assert record["measured"].keys() == {"first", "second", "killed"}


def test_an_index_is_built_where_no_tower_can_be_written(
    things: str, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The folder is not read-only: root may write to it all the same."""
    lock = store.with_name("store.db.indexes") / "towers.lock"
    lock.unlink()
    lock.mkdir()
    labels = ["sun", "moon"]
    with LabelIndex.build(labels, model="builtin:clip", name="others", runtime="auto") as index:
        assert index.encoder.runtime == "torch"
        assert index.classify(builtin.samples()[0])
    assert "index 'others' was built; torch is used: ONNX tower in" in caplog.text
    assert "make the folder writable, or use --runtime torch" in caplog.text
    with pytest.raises(StoreError, match="make the folder writable"):
        LabelIndex.build(labels, model="builtin:clip", name="others", runtime="onnx")


def test_a_full_disk_leaves_nothing_behind(things: str) -> None:
    """A limit of the size of files stands in for the disk."""
    with LabelIndex.open(things) as index:
        (exact,) = find_towers(index.store, index.info)
        before = sorted(exact.folder.parent.iterdir())
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
        try:
            with pytest.raises(StoreError, match="File too large: free some space"):
                write_int8_tower(index, exact, [])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert sorted(exact.folder.parent.iterdir()) == before


def test_another_index_of_the_model_shares_its_encoder(things: str) -> None:
    with LabelIndex.open(things) as index:
        assert index.encoder.with_info(index.info).source is index.encoder.source
