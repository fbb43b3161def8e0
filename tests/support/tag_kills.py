"""Runs ``tag`` over one library again and again, killed at random moments; see test_tag_kills.py.

It is a process of its own that has everything imported and nothing computed, so that a child is
there at once and no thread of the parent is missing in it.

    python -m tests.support.tag_kills ROOT KILLS SHARE SEED

A kill comes at any moment of the first SHARE of an uninterrupted run's time, at first; then that is
adjusted so that there are several kills to a run.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import transformers

from tests.support.libraries import tag

# transformers imports its parts when they are first asked for.
PARTS = (transformers.CLIPModel, transformers.CLIPImageProcessor, transformers.AutoTokenizer)

_KILLS_PER_ROUND = 8


def main() -> None:
    """Kill and resume until there were enough kills; print what became of every round."""
    root, kills, share = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    chance = random.Random(sys.argv[4])
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
        print(json.dumps({"round": rounds, "killed": killed}), flush=True)
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
    """Run ``tag`` for so long at most; return whether it came to its end."""
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
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
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


if __name__ == "__main__":
    main()
