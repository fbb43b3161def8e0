"""The bench commands, small: they run, check answers, and print what they timed."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from click.testing import CliRunner

from zsic_index import LabelIndex
from zsic_index.bench import checkpoints, cold, tower
from zsic_index.bench import scan as bench_scan
from zsic_index.bench.processes import run_python
from zsic_index.bench.timing import Contender, compare
from zsic_index.cli import main
from zsic_index.cli.bench import time_tower
from zsic_index.embedding_arrays import Float32, check_embeddings
from zsic_index.records import Prediction

COMMANDS = {
    "scan": ("--labels", "400", "--dim", "16", "--batch", "1", "--batch", "7"),
    "scan --half": ("--labels", "400", "--dim", "16", "--batch", "3"),
    "query": ("--labels", "6", "--images", "3", "--model", "builtin:clip"),
    "build": ("--labels", "20", "--model", "builtin:clip"),
    "roll-up": ("--labels", "300", "--images", "5", "--dim", "8"),
    "open": ("--labels", "40", "--dim", "8"),
    "drop-in": ("--labels", "6", "--model", "builtin:siglip"),
}

SLOW_COMMANDS = {
    "query --runtime onnx": ("--labels", "6", "--images", "3", "--model", "builtin:clip"),
    "tag --runtime onnx-int8": (
        *("--labels", "6", "--photos", "3", "--files", "30", "--embeddings", "50"),
        *("--model", "builtin:clip"),
    ),
}


@pytest.mark.parametrize(
    "command",
    [*COMMANDS, *(pytest.param(command, marks=pytest.mark.slow) for command in SLOW_COMMANDS)],
)
def test_a_bench_compares_its_contenders(command: str) -> None:
    arguments = [
        "bench",
        *command.split(),
        *(COMMANDS | SLOW_COMMANDS)[command],
        "--rounds",
        "1",
        "--json",
    ]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["blas"]
    for comparison in report["comparisons"]:
        first, *others = comparison["contenders"]
        assert first["times_faster_than_first"] == 1.0
        assert others or comparison["work"].endswith("labels of which one is new")
        for contender in comparison["contenders"]:
            assert contender["median_s"] == statistics.median(contender["seconds"]) > 0


def test_a_bench_prints_a_table_and_what_it_ran_on() -> None:
    arguments = ["bench", "scan", "--labels", "300", "--dim", "8", "--batch", "2", "--rounds", "1"]
    result = CliRunner().invoke(main, arguments)
    assert "300 labels x 8, 2 images, top 10, median of 1 rounds" in result.stdout
    assert "FAISS IndexFlatIP" in result.stdout
    assert "reading the matrix" in result.stdout
    assert f"numpy {np.__version__}" in result.stdout


def test_a_tower_is_timed_per_image_with_every_runtime_that_is_here() -> None:
    arguments = ["bench", "tower", "--model", "builtin:clip", "--batch", "1", "--batch", "3"]
    result = CliRunner().invoke(main, [*arguments, "--no-compile", "--rounds", "1", "--json"])
    assert result.exit_code == 0, result.output
    for comparison, batch in zip(json.loads(result.stdout)["comparisons"], (1, 3), strict=True):
        assert comparison["work"] == f"vision tower, one image in a batch of {batch}, builtin:clip"
        names = [contender["name"] for contender in comparison["contenders"]]
        assert names[:3] == ["torch", "ONNX Runtime", "ONNX Runtime, int8"]
        assert ("OpenVINO" in names[3:]) == (find_spec("openvino") is not None)


@pytest.mark.slow
def test_a_tower_is_timed_with_torch_compile() -> None:
    (comparison,) = tower.run(batches=[2], model="builtin:clip", rounds=1)
    assert [timing.name for timing in comparison.timings][:2] == ["torch", "torch.compile"]


@pytest.mark.parametrize(("change", "is_exact"), [(2e-5, True), (0.3, False)])
def test_other_embeddings_stop_the_bench(change: float, is_exact: bool) -> None:
    embeddings = check_embeddings(np.eye(3, 8))

    def embed(_: object) -> Float32:
        return check_embeddings(embeddings + change * np.eye(3, 8, k=1))

    first = tower.Runner("torch", lambda _: embeddings)
    tower.check_embeddings_agree([first, first], [{}] * 3)
    with pytest.raises(AssertionError, match="other"):
        tower.check_embeddings_agree([first, tower.Runner("other", embed, is_exact)], [{}] * 3)


def test_the_sizes_of_random_models_are_those_of_the_option() -> None:
    (option,) = (option for option in time_tower.params if option.name == "size")
    assert list(option.type.choices) == list(checkpoints.VISION_SIZES)  # type: ignore[attr-defined]


def test_a_cold_start_is_measured_beside_a_bare_program() -> None:
    runtimes = ("--runtime", "onnx-int8", "--runtime", "onnx")
    arguments = ["bench", "cold", "--labels", "6", "--model", "builtin:clip", *runtimes]
    result = CliRunner().invoke(main, [*arguments, "--rounds", "1", "--json"])
    assert result.exit_code == 0, result.output
    *queries, probe = json.loads(result.stdout)["processes"]
    names = [query["name"] for query in queries]
    assert names == ["query --runtime onnx-int8", "query --runtime onnx"]
    for query in queries:
        assert query["median_cpu_s"] > probe["median_cpu_s"] > 0.05
        assert query["cpu_s_beyond_last"] == query["median_cpu_s"] - probe["median_cpu_s"]
        assert query["median_peak_bytes"] > probe["median_peak_bytes"] > 20e6
        if sys.platform == "linux":
            assert query["resident_bytes"] > probe["median_peak_bytes"]
    assert probe["resident_bytes"] is None


def test_other_answers_of_a_new_process_stop_the_bench() -> None:
    prediction = Prediction("cat", 0.5, 3.0, 0.3, 1)
    printed = {"label": "cat", "similarity": 0.3}
    cold.check_answer([printed], [prediction])
    with pytest.raises(AssertionError, match=r"cat: similarity off by 1\.0e-02"):
        cold.check_answer([printed | {"similarity": 0.31}], [prediction])


def test_cpu_time_and_memory_are_those_of_the_new_process() -> None:
    ballast = np.ones(50_000_000, np.uint8)
    idle, output = run_python(["-c", "import time; time.sleep(0.2); print('a\\nb')"])
    assert output == "a\nb"
    assert idle.wall_seconds > 0.2
    assert idle.cpu_seconds < idle.wall_seconds
    assert idle.peak_bytes < ballast.nbytes
    busy, output = run_python(
        ["-c", "import time\nx = bytes([1]) * 90_000_000\nwhile time.process_time() < 0.4: pass"]
    )
    assert output == ""
    assert busy.cpu_seconds > 0.4
    assert 90e6 < busy.peak_bytes < 150e6
    with pytest.raises(subprocess.CalledProcessError, match="exit status 3"):
        run_python(["-c", "raise SystemExit(3)"])


def test_contenders_take_turns_and_ratios_are_of_one_turn() -> None:
    turns: list[str] = []
    comparison = compare(
        "nothing",
        [
            Contender("one", lambda: turns.append("one")),
            Contender("two", lambda: turns.append("two"), prepare=lambda: turns.append("ready")),
        ],
        rounds=2,
        warmup=1,
    )
    assert turns == ["one", "ready", "two"] * 3
    assert [len(timing.seconds) for timing in comparison.timings] == [2, 2]
    pairs = zip(comparison.timings[0].seconds, comparison.timings[1].seconds, strict=True)
    assert comparison.ratio(comparison.timings[1]) == statistics.median(a / b for a, b in pairs)


def test_a_wrong_answer_stops_the_bench(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings = check_embeddings(rng.standard_normal((50, 8)))
    labels = [f"label {row}" for row in range(50)]
    with LabelIndex.from_embeddings(labels, embeddings, logit_scale=100.0, name="a") as index:
        bench_scan.check_scores(index, embeddings[:3])
        wrong = [index.score(embeddings[3:6], top_k=10)] * 2
        monkeypatch.setattr(LabelIndex, "score", lambda *_, **__: wrong.pop())
        with pytest.raises(AssertionError, match="differs from float64"):
            bench_scan.check_scores(index, embeddings[:3])
