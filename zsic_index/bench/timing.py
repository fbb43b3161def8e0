"""Timing of contenders in turns, and a description of the machine."""

from __future__ import annotations

import importlib.metadata
import importlib.util
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
    """A function to be timed.

    Attributes:
        name: name in the report.
        run: function that is timed.
        prepare: function called before each run, not timed.
        share: share of the work that ``run`` does, by which its times are divided; a share below 1
            belongs in the name. For times per image it is the number of images.
    """

    name: str
    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Timing:
    """The times of one contender in seconds, in the order of the rounds."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the times, in seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The times of contenders that did the same work in turns.

    Attributes:
        work: description of the work.
        timings: times of each contender; ratios are to the first.
    """

    work: str
    timings: tuple[Timing, ...]

    def ratio(self, timing: Timing) -> float:
        """Return the first contender's time divided by this one's, as the median of the rounds."""
        pairs = zip(self.timings[0].seconds, timing.seconds, strict=True)
        return statistics.median(base / own for base, own in pairs)

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as a JSON object."""
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
    """Time contenders in turns, so that a machine that slows down slows all of them.

    Args:
        work: description of the work.
        contenders: functions to time; the first is the baseline.
        rounds: timed rounds.
        warmup: rounds before these that are not counted.
    """
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for current in range(warmup + rounds):
        for contender in contenders:
            contender.prepare()
            started = time.perf_counter()
            contender.run()
            elapsed = (time.perf_counter() - started) / contender.share
            if current >= warmup:
                times[contender.name].append(elapsed)
    return Comparison(work, tuple(Timing(name, tuple(seconds)) for name, seconds in times.items()))


def describe_machine() -> dict[str, Any]:
    """Return the processor, BLAS, versions and environment variables that affect timings."""
    names = ["zsic-index", "numpy", "torch", "transformers", "faiss-cpu"]
    names += filter(importlib.util.find_spec, ("onnxruntime", "openvino"))
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
