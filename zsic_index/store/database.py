"""Engines and transactions.

SQLite runs with a rollback journal. Releases up to 3.51.2 (except 3.44.6 and 3.50.7) have a race in
the write-ahead log that can lose commits, and a write-ahead log does not work on network file
systems. Write transactions start with BEGIN IMMEDIATE, so that writers wait for each other at the
start instead of failing in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from zsic_index.errors import StoreError
from zsic_index.store.location import StoreLocation

BUSY_TIMEOUT_S = 120.0
"""Seconds that a connection waits for the transaction of another one."""

_WRITES = "zsic_writes"


class Database:
    """A database: opens transactions and turns errors of the driver into StoreErrors."""

    def __init__(self, location: StoreLocation) -> None:
        self.location = location
        self.engine = _create_engine(location)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read transaction, which sees one consistent snapshot."""
        with self._translate_errors(), self.engine.connect() as connection:
            if self.location.path is None:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a write transaction: committed at the end, rolled back on an error."""
        with self._translate_errors(), self.engine.connect() as connection:
            connection = connection.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise StoreError(f"store {self.location.name}: {_explain(error)}") from error


def _create_engine(location: StoreLocation) -> Engine:
    if location.url is not None:
        try:
            return create_engine(location.url, pool_pre_ping=True)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise StoreError(
                f"store {location.name}: cannot be opened: {error}; install the database's driver"
            ) from error
    # NullPool: a file is cheap to open, and a store can be used before and after a fork because no
    # connection outlives its transaction.
    engine = create_engine(
        # A URL string would need % and ? in the path to be escaped.
        URL.create("sqlite", database=str(location.path)),
        poolclass=NullPool,
        connect_args={"timeout": BUSY_TIMEOUT_S},
    )

    @event.listens_for(engine, "connect")
    def set_up_connection(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # begin(), below, emits BEGIN
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _explain(error: SQLAlchemyError) -> str:
    cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    for fragment, advice in _ADVICE.items():
        if fragment in cause:
            return f"{cause}: {advice}"
    return cause


_ADVICE = {
    "not a database": "choose another --store, or restore the file from a backup",
    "malformed": "the file is damaged: restore it from a backup; nothing was changed",
    "is full": "free some space and run the command again; what was committed is kept",
    "readonly": "make the file and its folder writable, or copy the store elsewhere",
    "unable to open": "check that the folder exists and that you may write to it",
    "is locked": f"another program has held it for {BUSY_TIMEOUT_S:.0f} s: try again later",
}
