"""Builds in several processes: at once, beside queries, and killed."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.support import oracle
from tests.support.processes import LABELS_PER_COMMIT, Processes, build_numbers, finish
from zsic_index import LabelIndex

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no SIGKILL, and forks no process"
)


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


def test_builders_of_one_index_at_once(
    store: Path, clip_folder: Path, processes: Processes
) -> None:
    """Four processes, half of each one's labels shared with the next: the last one wins whole."""
    builds = [processes.start(build_numbers, store, clip_folder, 600, 300 * n) for n in range(4)]
    for build in builds:
        finish(build)
    with LabelIndex.open("things") as index:
        labels = index.labels
    first = int(labels[0].removeprefix("label number "))
    assert first % 300 == 0
    assert labels == [f"label number {n}" for n in range(first, first + 600)]
    with sqlite3.connect(store) as connection:
        assert connection.execute("SELECT count(*) FROM embedding").fetchone() == (1500,)
    assert len(list(store.with_name("store.db.indexes").iterdir())) == 1
    equals_brute_force(store)


def test_queries_go_on_while_another_process_builds(
    store: Path, clip_folder: Path, processes: Processes
) -> None:
    """A reader sees the old labels or the new ones, each with its own embedding; never a mix."""
    processes.run(build_numbers, store, clip_folder, 300)
    process = processes.start(build_numbers, store, clip_folder, 600, 100)
    rng = np.random.default_rng(0)
    seen = set()
    while True:
        running = process.is_alive()
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


@pytest.fixture(scope="module")
def whole(
    clip_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], list[tuple[object, ...]]]:
    """Give the rows of a build of so many labels that nobody kills."""

    @cache
    def build(count: int) -> list[tuple[object, ...]]:
        store = tmp_path_factory.mktemp("whole") / "all.db"
        processes = Processes()
        processes.run(build_numbers, store, clip_folder, count)
        processes.end()
        return rows_of(store)

    return build


def committed(store: Path) -> int:
    """Embeddings that are in a store by now."""
    if not store.exists():
        return 0
    with contextlib.closing(sqlite3.connect(store, timeout=60)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name='embedding'").fetchone():
            return 0
        return int(connection.execute("SELECT count(*) FROM embedding").fetchone()[0])


def kill_somewhere(
    processes: Processes, store: Path, model: Path, whole: list[tuple[object, ...]], seed: int
) -> int:
    """Kill a build at a random moment, build again; return the embeddings that had survived.

    The moment is a little after a random number of embeddings has been committed: from none, when
    the program may be anywhere before its first commit, to all, when it makes them the index.
    """
    chance, count = random.Random(seed), len(whole)
    target, later = chance.randint(0, count), chance.uniform(0, 0.2)
    process = processes.start(build_numbers, store, model, count)
    while process.is_alive() and committed(store) < target:
        time.sleep(0.005)
    time.sleep(later)
    process.kill()
    process.join()
    survived = committed(store)
    assert survived % LABELS_PER_COMMIT in (0, count % LABELS_PER_COMMIT), (
        "a chunk was committed in part"
    )
    processes.run(build_numbers, store, model, count)
    assert rows_of(store) == whole
    equals_brute_force(store)
    return survived


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_build_loses_at_most_a_chunk(
    store: Path,
    clip_folder: Path,
    processes: Processes,
    whole: Callable[[int], list[tuple[object, ...]]],
    seed: int,
) -> None:
    kill_somewhere(processes, store, clip_folder, whole(2_000), seed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_killed_builds(
    tmp_path: Path,
    clip_folder: Path,
    processes: Processes,
    whole: Callable[[int], list[tuple[object, ...]]],
) -> None:
    survivors = [
        kill_somewhere(processes, tmp_path / f"{seed}.db", clip_folder, whole(6_000), seed)
        for seed in range(100, 150)
    ]
    print("\nembeddings that survived each kill:", *sorted(survivors))
    assert len(set(survivors)) > 5, "the kills came too early or too late to show anything"
