"""Processes for tests, forked from one that has everything imported and has computed nothing.

They start at once, where a new interpreter takes seconds to import torch and transformers, and no
thread of their parent is missing in them. Tests may kill them.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
import transformers

from zsic_index import LabelIndex
from zsic_index.embeddings import labels as label_embeddings

# transformers imports its parts when they are first asked for.
PARTS = (transformers.CLIPModel, transformers.CLIPImageProcessor, transformers.AutoTokenizer)

LABELS_PER_COMMIT = 256

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload([__name__])


class Processes:
    """Starts processes, and kills those that are left at the end."""

    def __init__(self) -> None:
        self._running: list[ForkServerProcess] = []

    def start(self, target: Callable[..., object], *arguments: Any) -> ForkServerProcess:
        """Run a function of a module in a new process, with the environment as it is now."""
        process = _FORKING.Process(target=_run, args=(dict(os.environ), target, *arguments))
        with _python_path():
            process.start()
        self._running.append(process)
        return process

    def run(self, target: Callable[..., object], *arguments: Any) -> None:
        """Run a function in a new process to its end, which must be a good one."""
        finish(self.start(target, *arguments))

    def end(self) -> None:
        """Kill what is still running."""
        while self._running:
            process = self._running.pop()
            process.kill()
            process.join()
            process.close()


def finish(process: ForkServerProcess, seconds: float = 240) -> None:
    """Wait for the good end of a process."""
    process.join(seconds)
    assert process.exitcode == 0


def _run(environment: dict[str, str], target: Callable[..., object], *arguments: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target(*arguments)


def build_numbers(store: Path, model: Path, count: int, first: int = 0) -> None:
    """Build the index ``things`` of the labels ``label number 0``, ``label number 1``, …."""
    warnings.simplefilter("error", RuntimeWarning)
    torch.set_num_threads(1)
    label_embeddings.LABELS_PER_COMMIT = LABELS_PER_COMMIT
    labels = [f"label number {number}" for number in range(first, first + count)]
    LabelIndex.build(labels, model=model, name="things", device="cpu", store=store).close()


@contextmanager
def _python_path() -> Iterator[None]:
    """Let a server that starts now find what this process can import."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
