"""Waiting for a store that another program has locked."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing

from zsic_index.errors import StoreError
from zsic_index.store.location import StoreLocation

_NOTICE_SECONDS = 2.0
"""Seconds of waiting after which it is reported."""

_POLL_SECONDS = 0.1


def wait_until_readable(
    location: StoreLocation, limit: float, notify: Callable[[str], None]
) -> None:
    """Wait while another program's transaction keeps an SQLite store from being read.

    Args:
        location: the store; one in another database is not waited for.
        limit: maximum seconds to wait.
        notify: called once with a message if it takes more than two seconds.

    Raises:
        StoreError: if the store is still locked after ``limit`` seconds.
    """
    started = time.monotonic()
    is_notified = False
    while _is_locked(location):
        waited = time.monotonic() - started
        if waited >= limit:
            raise StoreError(
                f"store {location.name}: another program has held it locked for {limit:g} s: wait "
                "until it is done, or end it"
            )
        if waited >= _NOTICE_SECONDS and not is_notified:
            notify(
                f"waiting for store {location.name}, which another program has locked, for at most "
                f"{limit:g} s"
            )
            is_notified = True
        time.sleep(_POLL_SECONDS)


def _is_locked(location: StoreLocation) -> bool:
    """Tell whether reading fails because of a lock; other failures are left to the next reader."""
    if location.path is None:
        return False
    try:
        uri = f"{location.path.as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=0)) as connection:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        # The low byte of an extended code is the primary one.
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    return False
