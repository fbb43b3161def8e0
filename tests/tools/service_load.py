"""Load on the service from ``hey``: one request, many at once, and too many.

    python -m tests.tools.service_load [--image FILE] [--requests 4000]

prints one JSON object a line. Everything runs on this machine: the load generator takes its share
of the cores.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.support.services import ended, started
from zsic_index import LabelIndex, builtin

FORM = "multipart/form-data; boundary=here"


@dataclass(frozen=True)
class Load:
    """The requests of one run, each as (seconds, status, seconds since the start)."""

    requests: list[tuple[float, int, float]]

    def latencies(self, status: int = 200) -> list[float]:
        return sorted(took for took, code, _ in self.requests if code == status)

    def throughput(self, status: int = 200) -> float:
        """Return answers of a status per second in the middle of the run, under full load."""
        ends = sorted(start + took for took, _, start in self.requests)
        low, high = ends[len(ends) // 10], ends[len(ends) * 9 // 10]
        inside = [
            1
            for took, code, start in self.requests
            if code == status and low <= start + took < high
        ]
        return len(inside) / (high - low)

    def summary(self) -> dict[str, Any]:
        took = self.latencies()
        return {
            "statuses": dict(Counter(code for _, code, _ in self.requests)),
            "per_second": round(self.throughput(), 1),
            "median_ms": round(1e3 * statistics.median(took), 2),
            "p99_ms": round(1e3 * percentile(took, 0.99), 2),
            "longest_ms": round(1e3 * took[-1], 2),
        }


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def hey(url: str, body: Path, clients: int, requests: int) -> Load:
    """Send requests on some connections, on each the next when the last is answered."""
    return _read(_start(url, body, clients, requests))


def paced(url: str, body: Path, clients: int, requests: int, rate: float) -> Load:
    """Send requests at a rate per second from clients that began at random moments.

    hey's own pace is one for all of its connections, which then send at the same moment: here each
    client is a process. What is sent until a second after the last of them was started is left out,
    since starting them takes the cores.
    """
    chance = random.Random(1)
    interval = clients / rate
    delays = sorted(chance.uniform(0, interval) for _ in range(clients))
    running, started_at = [], time.monotonic()
    for delay in delays:
        time.sleep(max(0.0, started_at + delay - time.monotonic()))
        pace = ["-q", f"{1 / interval:.4f}"]
        running.append(
            (time.monotonic() - started_at, _start(url, body, 1, requests // clients, pace))
        )
    sent = [
        (took, status, start + delay)
        for delay, process in running
        for took, status, start in _read(process).requests
    ]
    begin = running[-1][0] + 1
    return Load([request for request in sent if request[2] >= begin])


def _start(
    url: str, body: Path, clients: int, requests: int, more: Sequence[str] = ()
) -> subprocess.Popen[str]:
    options = ["-m", "POST", "-T", FORM, "-D", str(body), "-c", str(clients), "-n", str(requests)]
    return subprocess.Popen(
        ["hey", *options, *more, "-t", "60", "-o", "csv", f"{url}/v1/classify"],
        stdout=subprocess.PIPE,
        text=True,
    )


def _read(process: subprocess.Popen[str]) -> Load:
    out, _ = process.communicate()
    assert process.returncode == 0
    return Load(
        [
            (float(row["response-time"]), int(row["status-code"]), float(row["offset"]))
            for row in csv.DictReader(io.StringIO(out))
        ]
    )


def mean_batch(url: str) -> dict[str, tuple[float, float]]:
    """Return images and batches so far, by stage."""
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    numbers = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {
        stage: tuple(
            float(numbers[f'zsic_batch_size_{what}{{stage="{stage}"}}'])
            for what in ("sum", "count")
        )
        for stage in ("tower", "scan")
    }


def overhead(url: str, store: Path, content: bytes, body: Path, rounds: int) -> dict[str, Any]:
    """Ask the API and the service in turns."""
    here, there = [], []
    with LabelIndex.open("emoji", store=store) as index, httpx2.Client() as client:
        for _ in range(rounds):
            start = time.perf_counter()
            index.classify(content)
            here.append(time.perf_counter() - start)
            start = time.perf_counter()
            client.post(
                f"{url}/v1/classify", content=body.read_bytes(), headers={"Content-Type": FORM}
            ).raise_for_status()
            there.append(time.perf_counter() - start)
    extra = statistics.median(there) - statistics.median(here)
    return {
        "api_median_ms": round(1e3 * statistics.median(here), 2),
        "service_median_ms": round(1e3 * statistics.median(there), 2),
        "overhead_ms": round(1e3 * extra, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, default=builtin.samples()[0])
    parser.add_argument("--requests", type=int, default=4_000)
    parser.add_argument("--serve", default="", help="options of serve, in one argument")
    given = parser.parse_args()
    if shutil.which("hey") is None:
        sys.exit("this needs hey, the load generator: apt install hey")
    content = given.image.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        store, body = Path(folder) / "store.db", Path(folder) / "body"
        body.write_bytes(
            b'--here\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
            + content
            + b"\r\n--here--\r\n"
        )
        LabelIndex.build("builtin:emoji", model="builtin:clip", name="emoji", store=store).close()
        normal(store, body, content, given)
        too_many(store, body, given)


def tell(what: str, **figures: Any) -> None:
    print(json.dumps({"run": what, **figures}), flush=True)


def normal(store: Path, body: Path, content: bytes, given: argparse.Namespace) -> None:
    process, url = started("--store", str(store), *given.serve.split())
    try:
        hey(url, body, 64, 500)  # warm
        tell("overhead of one request", **overhead(url, store, content, body, 300))
        single = hey(url, body, 1, 300)
        alone = statistics.median(single.latencies())
        tell("one client", **single.summary())
        before = mean_batch(url)
        many = hey(url, body, 64, given.requests)
        after = mean_batch(url)
        batches = {
            stage: round((after[stage][0] - was[0]) / (after[stage][1] - was[1]), 2)
            for stage, was in before.items()
        }
        peak = many.throughput()
        ratio = percentile(many.latencies(), 0.99) / alone
        tell(
            "64 clients, each as fast as it can",
            **many.summary(),
            batch=batches,
            p99_ratio=round(ratio, 2),
        )
        for share in (0.3, 0.5, 0.7):
            load = paced(url, body, 64, given.requests // 2, share * peak)
            ratio = round(percentile(load.latencies(), 0.99) / alone, 2)
            tell(f"64 clients, {share:.0%} of that", **load.summary(), p99_ratio=ratio)
    finally:
        ended(process)


def too_many(store: Path, body: Path, given: argparse.Namespace) -> None:
    process, url = started("--store", str(store), "--max-requests", "32", *given.serve.split())
    try:
        hey(url, body, 32, 500)  # warm
        peak = hey(url, body, 32, given.requests).throughput()
        offered = {
            "twice what it can": lambda: paced(url, body, 64, given.requests, 2 * peak),
            "64 clients, each as fast as it can": lambda: hey(url, body, 64, 4 * given.requests),
        }
        for what, run in offered.items():
            load = run()
            rejected = load.latencies(429)
            tell(
                f"{what}, 32 let in",
                **load.summary(),
                rejected_median_ms=round(1e3 * statistics.median(rejected), 2),
                rejected_p99_ms=round(1e3 * percentile(rejected, 0.99), 2),
                of_peak=round(load.throughput() / peak, 3),
            )
    finally:
        ended(process)


if __name__ == "__main__":
    main()
