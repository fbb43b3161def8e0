"""Migrations: they make the tables of the models, keep old data, and refuse what they cannot."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from tests.support.paths import DATA
from tests.support.processes import Processes, finish
from zsic_index import LabelIndex
from zsic_index.errors import SchemaError
from zsic_index.store import Store, schema
from zsic_index.store.database import Database
from zsic_index.store.location import StoreLocation
from zsic_index.store.tables import METADATA


def test_migrations_make_the_tables_of_the_models(store: Path) -> None:
    Store.upgrade(store)
    database = Database(StoreLocation.parse(store))
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_head_is_the_newest_migration_and_there_is_one_line_of_them() -> None:
    scripts = ScriptDirectory(str(schema.find_migrations()))
    assert scripts.get_heads() == [schema.HEAD]


@pytest.mark.parametrize("dump", sorted(DATA.glob("schema-*.sql")), ids=lambda path: path.stem)
def test_a_store_of_every_schema_so_far_can_be_used(store: Path, dump: Path) -> None:
    with sqlite3.connect(store) as connection:
        connection.executescript(dump.read_text(encoding="utf-8"))
    before, after = Store.upgrade(store)
    assert (before, after) == (dump.stem.removeprefix("schema-"), schema.HEAD)
    with LabelIndex.open("things") as index:
        assert index.labels == ["cat", "dog", "sea"]
        assert index.label_ids.tolist() == [1, 2, 3]
        (best,) = index.score([0.0, 1.0, 0.0, 0.0], top_k=1)[0]
        assert (best.label, best.similarity) == ("dog", 1.0)
        assert best.probability == pytest.approx(0.99990921, abs=1e-7)


def test_labels_of_before_have_a_row_each(store: Path) -> None:
    """Neither the plan nor the rows of an index change, so that nothing is built or fitted anew."""
    with sqlite3.connect(store) as connection:
        connection.executescript((DATA / "schema-0006.sql").read_text(encoding="utf-8"))
        before = connection.execute("SELECT plan, checksum, generation FROM label_index").fetchall()
    Store.upgrade(store)
    with sqlite3.connect(store) as connection:
        assert connection.execute("SELECT names, rows FROM label_index").fetchall() == [
            ("mean", None)
        ]
        assert connection.execute("SELECT count(*) FROM other_name").fetchone() == (0,)
        after = connection.execute("SELECT plan, checksum, generation FROM label_index").fetchall()
    assert before == after
    with Store.open() as opened:
        assert opened.find_problems() == []
        assert opened.indexes.get("things").rows == 3


def test_there_is_a_dump_of_the_present_schema() -> None:
    assert (DATA / f"schema-{schema.HEAD}.sql").exists()


def _set_version(store: Path, version: str) -> None:
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))


def test_a_newer_schema_is_refused_and_left_alone(store: Path) -> None:
    Store.upgrade(store)
    _set_version(store, "9999")
    before = store.read_bytes()
    for action in (Store.open, Store.upgrade):
        with pytest.raises(SchemaError, match="newer"):
            action(store)
    assert store.read_bytes() == before


def test_an_older_schema_names_the_command(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.upgrade(store)
    monkeypatch.setattr(schema, "HEAD", "9999")  # as a later release would have it
    with pytest.raises(SchemaError, match="zsic-index db upgrade --store"):
        Store.open(store)


def test_upgrading_twice_does_nothing(store: Path) -> None:
    assert Store.upgrade(store) == (None, schema.HEAD)
    assert Store.upgrade(store) == (schema.HEAD, schema.HEAD)


def test_several_processes_may_upgrade_at_once(store: Path, processes: Processes) -> None:
    for upgrade in [processes.start(Store.upgrade, store) for _ in range(4)]:
        finish(upgrade)
    with Store.open(store) as opened:
        assert opened.find_problems() == []
