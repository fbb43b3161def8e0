"""Statements that differ between databases, and the splitting of long IN lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table, insert
from sqlalchemy.dialects import sqlite

if TYPE_CHECKING:
    from sqlalchemy.dialects.postgresql import Insert as PostgresqlInsert

_CHUNK = 900
"""Values in one SQL ``IN``; older SQLite versions take at most 999 parameters."""


def iter_chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield values in chunks that fit into one ``IN``."""
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]


def insert_missing(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows; a row that conflicts with an existing one is skipped."""
    match connection.dialect.name:
        case "sqlite":
            connection.execute(sqlite.insert(table).on_conflict_do_nothing(), rows)
        case "postgresql":
            connection.execute(_postgresql_insert(table).on_conflict_do_nothing(), rows)
        case _:
            connection.execute(insert(table), rows)


def upsert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows, or update the rows that have the same primary keys.

    All rows must have the same columns. Other columns of an existing row keep their values.
    """
    if not rows:
        return
    keys = [column.name for column in table.primary_key]
    values = [name for name in rows[0] if name not in keys]
    match connection.dialect.name:
        case "sqlite":
            lite = sqlite.insert(table)
            changed = {name: lite.excluded[name] for name in values}
            connection.execute(lite.on_conflict_do_update(index_elements=keys, set_=changed), rows)
        case "postgresql":
            post = _postgresql_insert(table)
            changed = {name: post.excluded[name] for name in values}
            connection.execute(post.on_conflict_do_update(index_elements=keys, set_=changed), rows)
        case other:
            raise NotImplementedError(f"photo libraries are not kept in {other} databases")


def _postgresql_insert(table: Table) -> PostgresqlInsert:
    # Imported here: a query of an SQLite store needs no other dialect.
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)
