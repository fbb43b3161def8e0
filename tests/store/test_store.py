"""The store: identity, transactions, and what it says when it cannot."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest

from zsic_index import LabelIndex
from zsic_index.errors import IndexNotFoundError, SchemaError, StoreError
from zsic_index.store import Store, StoreLocation

D = 8


def make(labels: list[str], name: str = "things", seed: int = 0) -> dict[str, int]:
    """Import labels, each with an embedding of its own, and return their ids."""
    rows = [np.random.default_rng([seed, *label.encode()]).normal(size=D) for label in labels]
    with LabelIndex.from_embeddings(labels, np.array(rows), logit_scale=10.0, name=name) as index:
        return dict(zip(index.labels, index.label_ids.tolist(), strict=True))


def count(store: Path, table: str) -> int:
    with sqlite3.connect(store) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_label_ids_survive_removal_return_and_reordering(store: Path) -> None:
    first = make(["a", "b", "c"])
    without = make(["c", "a"])
    assert without == {"c": first["c"], "a": first["a"]}
    again = make(["new", "b", "a", "c"])
    assert {name: again[name] for name in "abc"} == first
    assert again["new"] not in first.values()


def test_ids_of_a_removed_index_are_not_used_again(store: Path) -> None:
    first = make(["a", "b"])
    with Store.open() as opened:
        old = opened.indexes.remove("things")
    second = make(["a", "b"])
    with Store.open() as opened:
        assert opened.indexes.get("things").index_id > old.index_id
    assert min(second.values()) > max(first.values())


def test_removing_keeps_embeddings_unless_pruned(store: Path) -> None:
    make(["a", "b"], "one")
    make(["b", "c"], "two")
    assert count(store, "embedding") == 3
    with Store.open() as opened:
        opened.indexes.remove("one")
        assert count(store, "embedding") == 3
        opened.indexes.remove("two", prune=True)
    assert count(store, "embedding") == 1  # "a" belonged to no index that was pruned


def test_pruning_leaves_what_another_index_uses(store: Path) -> None:
    make(["a", "b"], "one")
    make(["b", "c"], "two")
    with Store.open() as opened:
        opened.indexes.remove("one", prune=True)
    assert count(store, "embedding") == 2
    with LabelIndex.open("two") as index:
        assert index.labels == ["b", "c"]


def test_publishing_over_a_generation_that_has_moved_changes_nothing(store: Path) -> None:
    make(["a", "b"])
    with Store.open() as opened:
        snapshot = opened.indexes.read_snapshot("things")
        assert snapshot is not None
        rows = (snapshot.label_ids[:1], snapshot.embedding_ids[:1], ["a"], ["a"])
        assert not opened.indexes.publish(snapshot.info, *rows, taxonomy=None)
        after = opened.indexes.read_snapshot("things")
        assert after is not None
        np.testing.assert_array_equal(after.label_ids, snapshot.label_ids)


def test_an_index_that_is_not_there(store: Path) -> None:
    make(["a", "b"], "birds")
    with Store.open() as opened, pytest.raises(IndexNotFoundError, match="birds"):
        opened.indexes.get("brids")
    with pytest.raises(LookupError):
        LabelIndex.open("brids")


def test_a_store_that_is_not_there_is_not_made_by_reading(store: Path) -> None:
    with pytest.raises(StoreError, match="zsic-index build"):
        LabelIndex.open("things")
    assert not store.exists()


def test_a_file_that_is_no_database(store: Path) -> None:
    store.write_text("hello " * 1000)
    with pytest.raises(StoreError, match="restore the file from a backup"):
        LabelIndex.open("things")
    assert store.read_text() == "hello " * 1000


def test_a_folder_as_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder"):
        Store.open(tmp_path)


def test_another_programs_database_is_left_alone(store: Path) -> None:
    with sqlite3.connect(store) as connection:
        connection.execute("CREATE TABLE holiday (day TEXT)")
    with pytest.raises(SchemaError, match="holiday"):
        make(["a", "b"])
    with sqlite3.connect(store) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("holiday",)]


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="the superuser may write everywhere"
)
def test_a_store_that_may_not_be_written(store: Path) -> None:
    make(["a", "b"])
    store.chmod(0o444)
    with pytest.raises(StoreError, match="writable"):
        make(["a", "b", "c"])


def test_a_missing_embedding_is_named_and_nothing_is_made_up(store: Path) -> None:
    make(["a", "b", "c"])
    with sqlite3.connect(store) as connection:
        connection.execute("DELETE FROM embedding WHERE id = 2")
    for file in store.with_name("store.db.indexes").iterdir():
        file.unlink()
    with pytest.raises(StoreError, match="embedding 2 is missing"):
        LabelIndex.open("things")
    with Store.open() as opened:
        assert any("missing" in problem for problem in opened.find_problems())


def test_embeddings_swapped_in_the_database_are_noticed(store: Path) -> None:
    make(["a", "b", "c"])
    with sqlite3.connect(store) as connection:
        (vector,) = connection.execute("SELECT vector FROM embedding WHERE id = 1").fetchone()
        connection.execute("UPDATE embedding SET vector = ? WHERE id = 2", (vector,))
    for file in store.with_name("store.db.indexes").iterdir():
        file.unlink()
    with pytest.raises(StoreError, match="not those it was built from"):
        LabelIndex.open("things")


def test_a_healthy_store_has_no_problems(store: Path) -> None:
    make(["a", "b"])
    with Store.open() as opened:
        assert opened.find_problems() == []


def test_sqlite_keeps_its_rollback_journal(store: Path) -> None:
    make(["a", "b"])
    with sqlite3.connect(store) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


class TestLocation:
    def test_paths_and_sqlite_urls_are_the_same_store(self, tmp_path: Path) -> None:
        path = tmp_path / "s.db"
        assert StoreLocation.parse(path) == StoreLocation.parse(f"sqlite:///{path}")
        assert StoreLocation.parse(path).files == tmp_path / "s.db.indexes"

    def test_the_environment_names_the_default(self, store: Path) -> None:
        assert StoreLocation.parse(None).path == store

    def test_passwords_are_not_shown(self) -> None:
        location = StoreLocation.parse("postgresql+psycopg://me:secret@host/db")
        assert "secret" not in location.name
        assert "secret" not in str(location.files)
        assert "secret" in location.url

    @pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "nonsense://"])
    def test_urls_that_cannot_hold_a_store(self, url: str) -> None:
        with pytest.raises(StoreError):
            Store.open(url, create=True)

    def test_a_missing_driver_says_so(self) -> None:
        with pytest.raises(StoreError, match="driver"):
            Store.open("postgresql+nosuchdriver://host/db")

    def test_names_with_odd_characters(self, tmp_path: Path) -> None:
        path = tmp_path / "a b%20é#?x=1.db"
        with Store.open(path, create=True) as opened:
            assert opened.indexes.all() == []
        assert path.exists()
