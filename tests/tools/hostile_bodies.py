"""Measure what hostile bodies cost a service before they are accepted or refused.

    python -m tests.tools.hostile_bodies --size 64

prints the status, the seconds of CPU and the growth of the peak memory for each body, and exits
with 1 if a limit is exceeded. It reads Linux's /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.hostile import HostileBody, all_bodies
from zsic_index import LabelIndex
from zsic_index.service.app import create_app
from zsic_index.service.settings import Settings

MAX_SECONDS = 1.0
MAX_MIB = 200
DIM = 1_152
"""Size of the embeddings of the largest SigLIP models."""


@dataclass(frozen=True)
class Cost:
    """The cost of a body: status of the response, seconds of CPU, and MiB of memory."""

    status: int
    seconds: float
    mib: float


def build_bare(store: Path) -> Path:
    """Return a store with an index without a model, to which only /v1/score is open."""
    matrix = np.eye(3, DIM, dtype=np.float32)
    LabelIndex.from_embeddings(
        ["a", "b", "c"], matrix, logit_scale=1.0, name="bare", store=store
    ).close()
    return store


def memory(name: str) -> float:
    """Return VmRSS or VmHWM of this process in MiB."""
    status = Path("/proc/self/status").read_text()
    match = re.search(rf"{name}:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) / 1_024


async def measure(app: Any, body: HostileBody, size: int) -> Cost:
    """Send a body to an application and measure its cost."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pieces = body.pieces(size)
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        piece = next(pieces, None)
        if piece is None:
            if not ended:
                ended.append(True)
                return {"type": "http.request", "body": b"", "more_body": False}
            await asyncio.Event().wait()
        return {"type": "http.request", "body": piece, "more_body": True}

    ended: list[bool] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    headers = {"Host": "localhost"} | body.headers
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": body.path,
        "raw_path": body.path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    Path("/proc/self/clear_refs").write_text("5")  # the peak is measured from here
    before, started = memory("VmRSS"), time.process_time()
    await app(scope, receive, send)
    seconds = time.process_time() - started
    return Cost(statuses[0], seconds, memory("VmHWM") - before)


async def measure_all(store: Path, size: int, pattern: str) -> list[tuple[HostileBody, Cost]]:
    """Return the costs of the bodies whose names match a regular expression."""
    app = create_app(Settings(store=store))
    costs = []
    async with app.router.lifespan_context(app):
        for body in all_bodies(app.openapi()):
            if not re.search(pattern, body.name):
                continue
            cost = await measure(app, body, size)
            line = f"{cost.status} {cost.seconds:6.2f} s {cost.mib:5.0f} MiB  {body.name}"
            print(line, flush=True)
            costs.append((body, cost))
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=float, default=64, help="size of the bodies in MiB")
    parser.add_argument("--pattern", default="", help="regular expression for their names")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = build_bare(Path(folder) / "store.db")
        costs = asyncio.run(measure_all(store, int(given.size * 2**20), given.pattern))
    dear = [
        f"{body.name}: {cost}"
        for body, cost in costs
        if cost.seconds > MAX_SECONDS or cost.mib > MAX_MIB or cost.status >= 500
    ]
    sys.exit("\n".join(dear) or 0)


if __name__ == "__main__":
    main()
