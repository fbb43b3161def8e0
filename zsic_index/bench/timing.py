"""Contenders that take turns, and what they were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from zsic_index.parallel import available_cores


@dataclass(frozen=True, slots=True)
class Contender:
    """Something to be timed.

    Attributes:
        name: what it is called.
        run: what is timed.
        prepare: what comes before each run, not timed.
        share: the part of the work that it does; its times are divided by it, and its name says so.
    """

    name: str
    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Timing:
    """One contender's times in seconds, in the order of the rounds."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of the times."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Contenders that did the same work in turns.

    Attributes:
        work: what they did.
        timings: their times; ratios are to the first.
    """

    work: str
    timings: tuple[Timing, ...]

    def ratio(self, timing: Timing) -> float:
        """Return how many times as long the first contender took, as the median of the rounds."""
        pairs = zip(self.timings[0].seconds, timing.seconds, strict=True)
        return statistics.median(base / own for base, own in pairs)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "work": self.work,
            "contenders": [
                {
                    "name": timing.name,
                    "median_s": timing.median,
                    "times_faster_than_first": self.ratio(timing),
                    "seconds": list(timing.seconds),
                }
                for timing in self.timings
            ],
        }


def compare(
    work: str, contenders: Sequence[Contender], *, rounds: int, warmup: int = 1
) -> Comparison:
    """Let contenders take turns, so that a machine that slows down slows all of them.

    Args:
        work: what they do.
        contenders: who does it.
        rounds: turns that count.
        warmup: turns before these that do not.
    """
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for turn in range(warmup + rounds):
        for contender in contenders:
            contender.prepare()
            started = time.perf_counter()
            contender.run()
            elapsed = (time.perf_counter() - started) / contender.share
            if turn >= warmup:
                times[contender.name].append(elapsed)
    return Comparison(work, tuple(Timing(name, tuple(found)) for name, found in times.items()))


def machine() -> dict[str, Any]:
    """Return what a measurement was made on: processor, threads, BLAS, versions, environment."""
    names = ("zsic-index", "numpy", "torch", "transformers", "faiss-cpu")
    overrides = ("OPENBLAS_CORETYPE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        "cpu": _cpu(),
        "cores": available_cores(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "blas": [
            {key: pool.get(key) for key in ("internal_api", "version", "architecture")}
            | {"threads": pool.get("num_threads")}
            for pool in threadpool_info()
        ],
        "environment": {name: os.environ[name] for name in overrides if name in os.environ},
    }


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
