"""A store that another program has locked is waited for, for a limited time."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.stores import copy_store
from zsic_index import StoreError
from zsic_index.store.location import StoreLocation
from zsic_index.store.waiting import wait_until_readable


@pytest.fixture
def store(built_store: Callable[[str], Path], tmp_path: Path) -> Path:
    return copy_store(built_store("empty"), tmp_path / "a store?#%41.db")


def test_a_free_store_is_not_waited_for(store: Path) -> None:
    messages: list[str] = []
    started = time.monotonic()
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # another writer, which readers do not mind
        wait_until_readable(StoreLocation.parse(store), 5, messages.append)
    wait_until_readable(StoreLocation.parse(store.with_name("none.db")), 5, messages.append)
    assert time.monotonic() - started < 1
    assert not store.with_name("none.db").exists()
    assert messages == []


def test_a_locked_store_is_waited_for_until_it_is_free(store: Path) -> None:
    messages: list[str] = []
    with closing(
        sqlite3.connect(store, isolation_level=None, check_same_thread=False)
    ) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        release = threading.Timer(2.5, connection.execute, ["COMMIT"])
        release.start()
        started = time.monotonic()
        wait_until_readable(StoreLocation.parse(store), 30, messages.append)
        assert 2 < time.monotonic() - started < 10
        release.join()
    (message,) = messages
    assert str(store) in message
    assert "30 s" in message


def test_waiting_has_a_limit(store: Path) -> None:
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match=r"locked for 0\.2 s"):
            wait_until_readable(StoreLocation.parse(store), 0.2, lambda _: None)


def test_serve_reports_what_it_waits_for(store: Path) -> None:
    command = [sys.executable, "-c", "from zsic_index.cli import main; main()", "serve"]
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        process = subprocess.Popen(
            [*command, "--port", "0", "--store", str(store)], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        try:
            line = next(line for line in process.stderr if "waiting for" in line)
            assert str(store) in line
            connection.execute("COMMIT")
            assert any(line.startswith("serving at ") for line in process.stderr)
        finally:
            process.kill()
            process.communicate()
