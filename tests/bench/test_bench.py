"""The bench commands, small: they run, check answers, and print what they timed."""

from __future__ import annotations

import json
import statistics

import numpy as np
import pytest
from click.testing import CliRunner

from zsic_index import LabelIndex
from zsic_index.bench import scan as bench_scan
from zsic_index.bench.timing import Contender, compare
from zsic_index.cli import main
from zsic_index.embedding_arrays import check_embeddings

COMMANDS = {
    "scan": ("--labels", "400", "--dim", "16", "--batch", "1", "--batch", "7"),
    "scan --half": ("--labels", "400", "--dim", "16", "--batch", "3"),
    "query": ("--labels", "6", "--images", "3", "--model", "builtin:clip"),
    "build": ("--labels", "20", "--model", "builtin:clip"),
    "roll-up": ("--labels", "300", "--images", "5", "--dim", "8"),
    "open": ("--labels", "40", "--dim", "8"),
    "drop-in": ("--labels", "6", "--model", "builtin:siglip"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bench_compares_its_contenders(command: str) -> None:
    arguments = ["bench", *command.split(), *COMMANDS[command], "--rounds", "1", "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["blas"]
    for comparison in report["comparisons"]:
        first, *others = comparison["contenders"]
        assert first["times_faster_than_first"] == 1.0
        assert others
        for contender in comparison["contenders"]:
            assert contender["median_s"] == statistics.median(contender["seconds"]) > 0


def test_a_bench_prints_a_table_and_what_it_ran_on() -> None:
    arguments = ["bench", "scan", "--labels", "300", "--dim", "8", "--batch", "2", "--rounds", "1"]
    result = CliRunner().invoke(main, arguments)
    assert "300 labels x 8, 2 images, top 10, median of 1 rounds" in result.stdout
    assert "FAISS IndexFlatIP" in result.stdout
    assert "reading the matrix" in result.stdout
    assert f"numpy {np.__version__}" in result.stdout


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
