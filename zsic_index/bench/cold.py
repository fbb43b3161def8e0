"""Cost of ``query`` in a new process by runtime, compared with a bare program that does as much."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zsic_index.bench import checkpoints
from zsic_index.bench.indexes import NAME, build_index
from zsic_index.bench.photos import write_photos
from zsic_index.bench.processes import ProcessUsage, run_python
from zsic_index.encoders.onnx.files import GRAPH_FILE
from zsic_index.encoders.runtime import check_installed, require_tower
from zsic_index.label_index import LabelIndex
from zsic_index.parallel import available_cores
from zsic_index.records import Prediction, Runtime

RUNTIMES: tuple[Runtime, ...] = ("torch", "onnx", "onnx-int8")

RESIDENT_IMAGES = 32
"""Number of images after which the memory of a resident process is measured."""

_TOP_K = 5
_TOLERANCE = 1e-5
"""Largest difference of a similarity from torch's."""

# The same settings of ONNX Runtime as an OnnxTower has.
_PROBE = """
import sys
import numpy as np
import onnxruntime
from PIL import Image
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[3])
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
options.log_severity_level = 3
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
pixels = session.get_inputs()[0]
image = Image.open(sys.argv[2]).convert("RGB").resize(pixels.shape[:1:-1], Image.Resampling.BICUBIC)
values = np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 255
(embedding,) = session.run(None, {pixels.name: values})
assert np.isfinite(embedding).all()
"""

_RESIDENT = """
import sys
from zsic_index import LabelIndex
name, store, runtime, *images = sys.argv[1:]
with LabelIndex.open(name, store=store, device="cpu", runtime=runtime) as index:
    index.classify(images)
    with open("/proc/self/status") as status:
        print(next(line.split()[1] for line in status if line.startswith("VmRSS:")))
"""


@dataclass(frozen=True, slots=True)
class ProcessCosts:
    """Costs of the same work in new processes, one for each round.

    Attributes:
        name: name in the report.
        rounds: usage of each round.
        resident_bytes: memory of a process after RESIDENT_IMAGES images, mapped files included;
            None where it does not stay or /proc does not tell.
    """

    name: str
    rounds: tuple[ProcessUsage, ...]
    resident_bytes: int | None

    @property
    def cpu_seconds(self) -> float:
        """Median of the CPU seconds."""
        return statistics.median(usage.cpu_seconds for usage in self.rounds)

    @property
    def wall_seconds(self) -> float:
        """Median of the seconds by the clock."""
        return statistics.median(usage.wall_seconds for usage in self.rounds)

    @property
    def peak_bytes(self) -> float:
        """Median of the peak memory."""
        return statistics.median(usage.peak_bytes for usage in self.rounds)

    def cpu_beyond(self, other: ProcessCosts) -> float:
        """Return the CPU seconds beyond those of another, as the median of the rounds."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return statistics.median(own.cpu_seconds - base.cpu_seconds for own, base in pairs)


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Costs of processes that were run in turns; the last of them is the lower bound.

    Attributes:
        work: description of the work.
        processes: costs of each process.
    """

    work: str
    processes: tuple[ProcessCosts, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "work": self.work,
            "processes": [
                {
                    "name": costs.name,
                    "median_cpu_s": costs.cpu_seconds,
                    "cpu_s_beyond_last": costs.cpu_beyond(self.processes[-1]),
                    "median_wall_s": costs.wall_seconds,
                    "median_peak_bytes": costs.peak_bytes,
                    "resident_bytes": costs.resident_bytes,
                    "rounds": [asdict(usage) for usage in costs.rounds],
                }
                for costs in self.processes
            ],
        }


def run(
    *,
    labels: int = 1_000,
    model: str | None = None,
    runtimes: Sequence[Runtime] = RUNTIMES,
    rounds: int = 3,
) -> ColdStart:
    """Measure ``zsic-index query`` of one image in new processes, by each runtime in turns.

    The lower bound is a program that imports Pillow, NumPy and ONNX Runtime, loads the float32
    tower and embeds the image. Files are in the system's cache. Similarities by float32 towers are
    compared with torch's first.

    Args:
        labels: number of labels, N.
        model: checkpoint; by default a random CLIP of ViT-B/32's size.
        runtimes: runtimes of the vision tower, of RUNTIMES.
        rounds: measured rounds.

    Raises:
        AssertionError: when a float32 tower gives other similarities.
        InputError: on Windows.
        ModelError: without the extra ``onnx``, or for a tower that cannot be exported.
    """
    check_installed()
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Path(temporary)
        folder, description = checkpoints.get_checkpoint(model, workspace)
        images = [str(path) for path in write_photos(workspace / "photos", RESIDENT_IMAGES)]
        store, names = workspace / "store.db", checkpoints.two_word_labels(labels)
        built: Runtime = "onnx-int8" if "onnx-int8" in runtimes else "onnx"
        with build_index(names, model=folder, store=store, runtime=built) as index:
            tower = require_tower(index.store.location.files, index.info, "float32")
            graph = tower.folder / GRAPH_FILE
        with LabelIndex.open(NAME, store=store, device="cpu", runtime="torch") as index:
            reference = index.classify(images[0], top_k=_TOP_K)
        queries = {
            runtime: [
                *("-m", "zsic_index", "query", images[0], "--name", NAME, "--store", str(store)),
                *("--device", "cpu", "--runtime", runtime, "--top-k", str(_TOP_K)),
                *("--format", "json"),
            ]
            for runtime in runtimes
        }
        probe = ["-c", _PROBE, str(graph), images[0], str(available_cores())]
        # In a first round, which is not counted, the files get into the cache.
        run_python(probe)
        for runtime, arguments in queries.items():
            _, output = run_python(arguments)
            if runtime != "onnx-int8":
                check_answer(json.loads(output)[0]["predictions"], reference)
        usages = _take_turns([*queries.values(), probe], rounds)
        return ColdStart(
            f"query of one 640 x 480 JPEG file in a new process, {labels:,} labels, {description}",
            (
                *(
                    ProcessCosts(
                        f"query --runtime {runtime}", usage, _measure_memory(store, runtime, images)
                    )
                    for runtime, usage in zip(queries, usages[:-1], strict=True)
                ),
                ProcessCosts("Pillow, NumPy and ONNX Runtime alone", usages[-1], None),
            ),
        )


def _take_turns(commands: list[list[str]], rounds: int) -> list[tuple[ProcessUsage, ...]]:
    """Return the usage of each command in each round."""
    turns = [[run_python(command)[0] for command in commands] for _ in range(rounds)]
    return list(zip(*turns, strict=True))


def _measure_memory(store: Path, runtime: Runtime, images: list[str]) -> int | None:
    if not Path("/proc/self/status").exists():
        return None
    _, output = run_python(["-c", _RESIDENT, NAME, str(store), runtime, *images])
    return int(output) * 1_024


def check_answer(answer: list[dict[str, Any]], reference: list[Prediction]) -> None:
    """Raise an AssertionError unless the predictions that ``query`` printed are the reference's."""
    for printed, prediction in zip(answer, reference, strict=True):
        difference = abs(printed["similarity"] - prediction.similarity)
        assert difference <= _TOLERANCE, f"{prediction.label}: similarity off by {difference:.1e}"
