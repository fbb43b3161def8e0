"""Builds in processes of their own, which a test may kill.

They are forked from one process that has everything imported and has computed nothing: a build
starts at once, and no thread of its parent is missing in it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch
import transformers

from zsic_index import LabelIndex
from zsic_index.embeddings import labels as label_embeddings

# transformers imports its parts when they are first asked for.
PARTS = (transformers.CLIPModel, transformers.CLIPImageProcessor, transformers.AutoTokenizer)

LABELS_PER_COMMIT = 256

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload([__name__])


class Builds:
    """Starts builds of the index ``things``, and ends those that are still running."""

    def __init__(self) -> None:
        self._processes: list[ForkServerProcess] = []

    def start(self, store: Path, model: Path, count: int, first: int = 0) -> ForkServerProcess:
        """Start a build of some of the labels ``label number 0``, ``label number 1``, …."""
        process = _FORKING.Process(target=_build, args=(store, model, count, first))
        with _python_path():
            process.start()
        self._processes.append(process)
        return process

    def end(self) -> None:
        """Kill what is still running."""
        while self._processes:
            process = self._processes.pop()
            process.kill()
            process.join()
            process.close()


def finish(process: ForkServerProcess) -> None:
    """Wait for a build; it must end well."""
    process.join(240)
    assert process.exitcode == 0


def _build(store: Path, model: Path, count: int, first: int) -> None:
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
