"""CPU time and memory of new processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from zsic_index.errors import InputError

# A process of its own: on Linux the peak memory of a child is at least that of the process that
# starts it, which here has torch and a model in memory.
_LAUNCHER = """
import json, os, sys, time
started = time.perf_counter()
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
seconds = time.perf_counter() - started
print(json.dumps([usage.ru_utime + usage.ru_stime, seconds, usage.ru_maxrss]))
sys.exit(os.waitstatus_to_exitcode(status))
"""

_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1_024
"""Bytes of the unit of ``ru_maxrss``."""


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """Resources that a process used from its start to its end.

    Attributes:
        cpu_seconds: user and system time of all threads.
        wall_seconds: time by the clock.
        peak_bytes: largest resident memory, mapped files included.
    """

    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int


def run_python(arguments: Sequence[str]) -> tuple[ProcessUsage, str]:
    """Run this Python with arguments in a new process; return its usage and standard output.

    Raises:
        CalledProcessError: when it fails.
        InputError: on Windows, where a process has no such record of its usage.
    """
    if not hasattr(os, "wait4"):
        raise InputError(f"on {sys.platform} CPU time of a process cannot be measured: use Linux")
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, sys.executable, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    output, _, last = ended.stdout.rstrip().rpartition("\n")
    cpu_seconds, wall_seconds, peak = json.loads(last)
    return ProcessUsage(cpu_seconds, wall_seconds, peak * _MAXRSS_UNIT), output
