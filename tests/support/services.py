"""Services for tests: the real application on a real socket, its responses checked."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from tests.support.openapi import CheckedResponses
from tests.support.processes import Processes
from zsic_index import LabelIndex
from zsic_index.cli import main
from zsic_index.service import serving as sockets
from zsic_index.service.app import create_app
from zsic_index.service.settings import Settings

TAXONOMY = """\
id,label,parent,rank,aliases,lang:de
animals,animals,,kind,,Tiere
dog,dog face,animals,,,Hundegesicht
lion,lion,animals,,,Löwe
frog,frog,animals,,toad,Frosch
food,food,,kind,,Essen
apple,red apple,food,,,roter Apfel
pizza,pizza,food,,,
car,automobile,,,,Auto
"""


def build_two(folder: Path) -> Path:
    """Return a store with ``things``, a taxonomy, and ``bare``, embeddings without a model."""
    labels = folder / "things.csv"
    labels.write_text(TAXONOMY, encoding="utf-8")
    store = folder / "store.db"
    with LabelIndex.build(labels, model="builtin:clip", name="things", store=store) as index:
        matrix = np.array(index.embeddings)
    rows = [f"row {number}" for number in range(len(matrix))]
    LabelIndex.from_embeddings(rows, matrix, logit_scale=10.0, name="bare", store=store).close()
    return store


@dataclass(frozen=True)
class Served:
    """Address of a running service."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextmanager
def serving(store: Path, *, root_path: str = "", **options: Any) -> Iterator[Served]:
    """Run a service in a thread, as if a proxy had it at ``root_path``; look for new ones often.

    Every JSON response is checked against the OpenAPI document.
    """
    settings = Settings(store=store, **{"reload_every": 0.1} | options)
    app = create_app(settings)
    checked = CheckedResponses(app)
    listening = sockets.listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = uvicorn.Server(
        sockets.configuration(checked, settings, drain=5, root_path=root_path, proxies="127.0.0.1")
    )
    started, trouble = threading.Event(), []

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            started.set()
            await server.serve(sockets=[listening])

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            trouble.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    try:
        if trouble:
            raise trouble[0]
        yield Served("127.0.0.1", port)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
    assert not checked.errors, checked.errors


def started(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Start the command on any port; return it and its address once it answers."""
    command = [sys.executable, "-c", "from zsic_index.cli import main; main()", "serve"]
    process = subprocess.Popen(
        [*command, "--port", "0", *arguments], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("serving at "):
            return process, line.split()[2].rstrip("/")
    raise AssertionError(f"it ended with {process.wait()}")


def started_warm(processes: Processes, log: Path, *arguments: str) -> tuple[ForkServerProcess, str]:
    """Start the command in a process that has everything imported; return it and its address."""
    process = processes.start(_serve, log, arguments)
    while process.is_alive():
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        for line in lines:
            if line.startswith("serving at "):
                return process, line.split()[2].rstrip("/")
        time.sleep(0.02)
    raise AssertionError(f"it ended with {process.exitcode}")


def _serve(log: Path, arguments: Sequence[str]) -> None:
    with log.open("w", buffering=1, encoding="utf-8") as sys.stderr:
        main(["serve", "--port", "0", *arguments])


def ended(process: subprocess.Popen[str]) -> str:
    """Kill the command, if it still runs; return what it has written since it started."""
    process.kill()
    _, output = process.communicate()
    return output
