"""Runs ``tag`` over one library again and again, killed at random moments; see test_tag_kills.py.

It needs a process that has everything imported and nothing computed: then a child is there at once
and no thread of the parent is missing in it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

from tests.support.libraries import tag

_KILLS_PER_ROUND = 8


def kill_and_resume(root: Path, kills: int, share: float, seed: int) -> None:
    """Kill and resume until there were enough kills; keep how every round ended beside the root.

    A kill comes at any moment of the first share of an uninterrupted run's time, at first; then
    that is adjusted so that there are several kills to a run. ``ROOT.rounds`` has a line for each
    round: the kills until its end.
    """
    chance = random.Random(seed)
    start_afresh(root)
    started = time.monotonic()
    assert attempt(root, 3_600), "nothing kills it"
    longest = share * (time.monotonic() - started)
    killed = rounds = 0
    while killed < kills:
        rounds += 1
        store = start_afresh(root)
        before = killed
        while not attempt(root, chance.uniform(0, longest)):
            killed += 1
        # A machine that is less busy now than before lets most runs through.
        longest *= 0.7 if killed - before < _KILLS_PER_ROUND else 1.2
        with Path(f"{root}.rounds").open("a", encoding="utf-8") as report:
            report.write(f"{killed}\n")
        shutil.copytree(root, f"{root}.{rounds}", copy_function=shutil.copy2)
        shutil.copy2(store, f"{store}.{rounds}")


def start_afresh(root: Path) -> Path:
    """Put library and store back to what they were; return the store."""
    store = Path(os.environ["ZSIC_STORE"])
    for old in (root, store, Path(f"{store}.indexes")):
        fresh = Path(f"{old}.fresh")
        if fresh.is_dir():
            shutil.rmtree(old, ignore_errors=True)
            shutil.copytree(fresh, old, copy_function=shutil.copy2)
        else:
            shutil.copy2(fresh, old)
    return store


def attempt(root: Path, seconds: float) -> bool:
    """Run ``tag`` for at most some seconds; return True if it came to its end."""
    child = os.fork()
    if not child:
        code = 1
        try:
            ran = tag(root, write="sidecar")
            code = 0 if ran.counts["done"] == ran.counts["inputs"] else 2
        finally:
            os._exit(code)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended_child, status = os.waitpid(child, os.WNOHANG)
        if ended_child:
            return ended(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return not os.WIFSIGNALED(status) and ended(status)


def ended(status: int) -> bool:
    """Return True, unless the run failed by itself."""
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"a run failed with {os.waitstatus_to_exitcode(status)}")
    return True
