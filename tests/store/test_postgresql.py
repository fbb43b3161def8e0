"""The store in PostgreSQL: a real server, where its programs and psycopg are installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.libraries import OTHER_TAXONOMY, build, leaves, put, tag
from zsic_index import LabelIndex
from zsic_index.library.undo import undo
from zsic_index.store import Store, schema

pytest.importorskip("psycopg", reason="psycopg is not installed")

# Debian keeps the server's programs off the PATH.
PLACES = os.pathsep.join(
    [os.environ["PATH"], *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))]
)
PROGRAMS = [
    program for name in ("initdb", "pg_ctl") if (program := shutil.which(name, path=PLACES))
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server of our own on this machine; gives its URL."""
    if len(PROGRAMS) < 2:
        pytest.skip("PostgreSQL's server programs are not installed")
    initdb, pg_ctl = PROGRAMS
    # It refuses to run as root; and its socket's path must be short.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    room = tempfile.mkdtemp(dir="/tmp", prefix="pg-")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        if as_user:
            shutil.chown(room, "postgres")
        data, options = f"{room}/data", f"-k {room} -p {port} -c listen_addresses=127.0.0.1"
        for command in (
            [initdb, "-D", data, "-A", "trust", "-U", "zsic", "-E", "UTF8"],
            [pg_ctl, "-D", data, "-o", options, "-l", f"{room}/log", "-w", "start"],
        ):
            subprocess.run([*as_user, *command], check=True, stdout=subprocess.DEVNULL, cwd=room)
        yield f"postgresql+psycopg://zsic@127.0.0.1:{port}/postgres"
        stop = [*as_user, pg_ctl, "-D", data, "-m", "immediate", "stop"]
        subprocess.run(stop, check=True, stdout=subprocess.DEVNULL, cwd=room)
    except (LookupError, FileNotFoundError) as error:
        pytest.skip(f"no user that a server could run as: {error}")
    finally:
        shutil.rmtree(room, ignore_errors=True)


@pytest.fixture(autouse=True)
def _there(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSIC_STORE", server)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_an_index_and_a_library(tmp_path: Path) -> None:
    build(tmp_path)
    assert Store.upgrade() == (schema.HEAD, schema.HEAD)
    root = tmp_path / "photos"
    put(root, "dog-face", "2024/umbrella")
    assert tag(root, write="sidecar").counts["embedded"] == 2
    assert leaves(root / "dog-face.jpg") == ["dog face"]
    assert tag(root, write="sidecar").counts["unchanged"] == 2
    build(tmp_path, OTHER_TAXONOMY)
    assert tag(root, write="sidecar").counts["reused"] == 2
    with Store.open() as store:
        assert undo(store, store.tags.find_keys()).sidecars.removed == 2
        assert store.find_problems() == []
    with LabelIndex.open("things") as index:
        assert len(index) == 7
    with Store.open() as store:
        store.indexes.remove("things", prune=True)
        assert store.indexes.all() == []
