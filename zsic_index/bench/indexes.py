"""Indexes for timing, with the vision tower of any runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zsic_index.encoders.runtime import read_runtime, require_tower
from zsic_index.label_index import LabelIndex
from zsic_index.label_index.towers import write_int8_tower
from zsic_index.records import Runtime

NAME = "bench"
"""Name of the index."""


def build_index(
    labels: Sequence[str], *, model: str | Path, store: Path, runtime: Runtime | None
) -> LabelIndex:
    """Build an index with the tower of a runtime, which it then uses, on the CPU.

    Args:
        labels: labels.
        model: checkpoint.
        store: path of the store.
        runtime: runtime of the vision tower; see ``LabelIndex.build``.

    Raises:
        ModelError: when there can be no such tower.
    """
    runtime = read_runtime(runtime)
    index = LabelIndex.build(
        labels, model=model, name=NAME, store=store, device="cpu", runtime=runtime
    )
    if runtime == "onnx-int8":
        # Without images its agreement with float32 stays unmeasured, and it is not refused.
        tower = require_tower(index.store.location.files, index.info, "float32")
        write_int8_tower(index, tower, [])
    return index
