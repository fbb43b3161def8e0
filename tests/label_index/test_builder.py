"""Builds: what is encoded, what is not, and what happens when two run or one dies."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support import models, oracle
from zsic_index import LabelIndex, encoders
from zsic_index.embeddings import labels as label_embeddings
from zsic_index.errors import InputError, ModelError
from zsic_index.records import BuildReport

LABELS = ["cat", "dog", "red house", "blue sea", "old tree", "train", "one bird"]


def build(labels: list[str], model: Path, **options: object) -> BuildReport:
    with LabelIndex.build(labels, model=model, name="things", **options) as index:  # type: ignore[arg-type]
        assert index.report is not None
        return index.report


def embeddings_of(name: str = "things") -> dict[str, np.ndarray]:
    with LabelIndex.open(name) as index:
        return dict(zip(index.labels, np.array(index.embeddings), strict=True))


def no_loading(*_: object, **__: object) -> None:
    raise AssertionError("the model was loaded")


class TestWhatIsEncoded:
    def test_everything_at_first(self, clip_folder: Path) -> None:
        report = build(LABELS, clip_folder, templates="photo")
        assert report.encoded_labels == len(LABELS)
        assert report.encoded_prompts == 7 * len(LABELS)
        assert report.model_loaded

    def test_nothing_and_no_model_the_second_time(
        self, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = build(LABELS, clip_folder)
        monkeypatch.setattr(encoders, "load", no_loading)
        again = build(LABELS, clip_folder)
        assert (again.encoded_prompts, again.model_loaded) == (0, False)
        assert again.reused_labels == len(LABELS)
        assert again.generation == first.generation

    def test_only_the_new_ones(self, clip_folder: Path) -> None:
        build(LABELS, clip_folder)
        old = embeddings_of()
        report = build([*LABELS, "pear", "plum"], clip_folder)
        assert (report.encoded_labels, report.reused_labels) == (2, len(LABELS))
        new = embeddings_of()
        for label in LABELS:
            np.testing.assert_array_equal(new[label], old[label])

    def test_nothing_when_labels_only_leave_or_move(
        self, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build(LABELS, clip_folder)
        monkeypatch.setattr(encoders, "load", no_loading)
        report = build(LABELS[:1:-1], clip_folder)
        assert (report.encoded_labels, report.removed_labels) == (0, 2)
        with LabelIndex.open("things") as index:
            assert index.labels == LABELS[:1:-1]

    def test_everything_again_with_other_templates(self, clip_folder: Path) -> None:
        build(LABELS, clip_folder)
        report = build(LABELS, clip_folder, templates=["a drawing of {}", "{}"])
        assert report.encoded_prompts == 2 * len(LABELS)
        # The first templates' embeddings are kept.
        assert build(LABELS, clip_folder).encoded_labels == 0

    def test_a_second_index_takes_what_the_first_has(
        self, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build(LABELS, clip_folder)
        monkeypatch.setattr(encoders, "load", no_loading)
        with LabelIndex.build(LABELS[:3], model=clip_folder, name="few") as index:
            assert index.labels == LABELS[:3]

    def test_changed_weights_share_nothing(self, clip_folder: Path, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        shutil.copytree(clip_folder, folder)
        build(LABELS, folder)
        before = embeddings_of()
        models.make_clip(folder, seed=1)
        report = build(LABELS, folder)
        assert report.encoded_labels == len(LABELS)
        after = embeddings_of()
        assert all(abs(before[label] @ after[label]) < 0.99 for label in LABELS)

    def test_a_changed_model_refuses_images_until_built_again(
        self, clip_folder: Path, tmp_path: Path, photo: Path
    ) -> None:
        folder = tmp_path / "model"
        shutil.copytree(clip_folder, folder)
        build(LABELS, folder)
        models.make_clip(folder, seed=1)
        with LabelIndex.open("things") as index, pytest.raises(ModelError, match="build the index"):
            index.classify(photo)

    def test_prompts_over_the_limit_are_cut_and_named(self, clip_folder: Path) -> None:
        long = "cat " * 100
        report = build(["dog", long.strip()], clip_folder)
        assert len(report.truncated) == 1
        assert report.truncated[0].startswith("This is a photo of cat")

    def test_progress_counts_up_to_what_is_missing(
        self, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(label_embeddings, "LABELS_PER_COMMIT", 3)
        seen: list[tuple[int, int]] = []
        build(LABELS, clip_folder, progress=lambda done, total: seen.append((done, total)))
        assert seen == [(3, 7), (6, 7), (7, 7)]


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "x" * 65, "a b", "ünï"])
def test_names_that_cannot_be_file_names(name: str, clip_folder: Path) -> None:
    with pytest.raises(InputError, match="index name"):
        LabelIndex.build(LABELS, model=clip_folder, name=name)


def test_a_build_that_fails_half_way_goes_on_where_it_stopped(
    clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_embeddings, "LABELS_PER_COMMIT", 3)

    def stop(done: int, _total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(LABELS, clip_folder, progress=stop)
    report = build(LABELS, clip_folder)
    assert (report.encoded_labels, report.reused_labels) == (1, 6)


# Other processes

NUMBERS = [f"label number {n}" for n in range(6000)]

BUILD = """
import sys
from zsic_index import LabelIndex
from zsic_index.embeddings import labels as label_embeddings
label_embeddings.LABELS_PER_COMMIT = 256
model, count, start = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
labels = [f"label number {n}" for n in range(start, start + count)]
LabelIndex.build(labels, model=model, name="things", device="cpu").close()
"""


started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _none_left_running() -> Iterator[None]:
    yield
    while started:
        process = started.pop()
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def start(model: Path, count: int, first: int = 0, **environment: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", BUILD, model, str(count), str(first)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    return process


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors


def rows_of(store: Path) -> list[tuple[object, ...]]:
    """Everything that matters of an index: names, order and embeddings."""
    with sqlite3.connect(store) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return connection.execute(
            "SELECT label.name, label.position, embedding.fingerprint, embedding.vector "
            "FROM label JOIN embedding ON embedding.id = label.embedding_id "
            "WHERE label.position IS NOT NULL ORDER BY label.position"
        ).fetchall()


def equals_brute_force(store: Path) -> None:
    """The FAISS file answers like a float64 product with the rows of the database."""
    rows = rows_of(store)
    matrix = np.array([np.frombuffer(row[3], "<f4") for row in rows], dtype=np.float64)
    queries = np.random.default_rng(5).normal(size=(4, matrix.shape[1]))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    with LabelIndex.open("things", store=store) as index:
        found = index.score(queries, top_k=10)
        scale = index.info.logit_scale
    probabilities = oracle.softmax(scale * oracle.similarities(queries, matrix))
    best = oracle.best(probabilities, 10)
    for predictions, right, columns in zip(found, probabilities, best, strict=True):
        assert [p.label for p in predictions] == [rows[row][0] for row in columns]
        np.testing.assert_allclose([p.probability for p in predictions], right[columns], atol=1e-6)


def test_builders_of_one_index_at_once(store: Path, clip_folder: Path) -> None:
    """Four processes, half of each one's labels shared with the next: the last one wins whole."""
    processes = [start(clip_folder, 600, 300 * n) for n in range(4)]
    for process in processes:
        finish(process)
    with LabelIndex.open("things") as index:
        labels = index.labels
    first = int(labels[0].removeprefix("label number "))
    assert first % 300 == 0
    assert labels == [f"label number {n}" for n in range(first, first + 600)]
    with sqlite3.connect(store) as connection:
        assert connection.execute("SELECT count(*) FROM embedding").fetchone() == (1500,)
    assert len(list(store.with_name("store.db.indexes").iterdir())) == 1
    equals_brute_force(store)


def test_queries_go_on_while_another_process_builds(store: Path, clip_folder: Path) -> None:
    """A reader sees the old labels or the new ones, each with its own embedding; never a mix."""
    finish(start(clip_folder, 300))
    process = start(clip_folder, 600, 100)
    rng = np.random.default_rng(0)
    seen = set()
    while True:
        running = process.poll() is None
        with LabelIndex.open("things") as index:
            seen.add(len(index))
            expected = 300 if len(index) == 300 else 600
            assert len(index.labels) == expected
            row = int(rng.integers(len(index)))
            (best,) = index.score(index.embeddings[row], top_k=1)[0]
            assert best.label == index.labels[row]
        if not running:
            break
    finish(process)
    assert 600 in seen


@pytest.fixture(scope="session")
def uninterrupted(
    clip_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[object, ...]]:
    """The rows of a build that nobody kills."""
    store = tmp_path_factory.mktemp("whole") / "all.db"
    finish(start(clip_folder, len(NUMBERS), ZSIC_STORE=str(store)))
    return rows_of(store)


def committed(store: Path) -> int:
    """Embeddings that are in a store by now."""
    if not store.exists():
        return 0
    with contextlib.closing(sqlite3.connect(store, timeout=60)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name='embedding'").fetchone():
            return 0
        return int(connection.execute("SELECT count(*) FROM embedding").fetchone()[0])


def kill_somewhere(store: Path, model: Path, whole: list[tuple[object, ...]], seed: int) -> int:
    """Kill a build at a random moment, build again; return the embeddings that had survived.

    The moment is a little after a random number of embeddings has been committed: from none, when
    the program may be anywhere before its first commit, to all, when it makes them the index.
    """
    chance = random.Random(seed)
    target, later = chance.randint(0, len(NUMBERS)), chance.uniform(0, 0.2)
    process = start(model, len(NUMBERS))
    while process.poll() is None and committed(store) < target:
        time.sleep(0.005)
    time.sleep(later)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    survived = committed(store)
    assert survived % 256 in (0, len(NUMBERS) % 256), "a chunk was committed in part"
    finish(start(model, len(NUMBERS)))
    assert rows_of(store) == whole
    equals_brute_force(store)
    return survived


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("seed", range(2))
def test_a_killed_build_loses_at_most_a_chunk(
    store: Path,
    clip_folder: Path,
    uninterrupted: list[tuple[object, ...]],
    seed: int,
) -> None:
    kill_somewhere(store, clip_folder, uninterrupted, seed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_fifty_killed_builds(
    tmp_path: Path,
    clip_folder: Path,
    uninterrupted: list[tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    survivors = []
    for seed in range(100, 150):
        store = tmp_path / f"{seed}.db"
        monkeypatch.setenv("ZSIC_STORE", str(store))
        survivors.append(kill_somewhere(store, clip_folder, uninterrupted, seed))
    print("\nembeddings that survived each kill:", *sorted(survivors))
    assert len(set(survivors)) > 5, "the kills came too early or too late to show anything"
