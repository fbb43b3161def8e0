"""Indexes that are not flat: half precision, a graph, inverted lists."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from click.testing import CliRunner

from tests.support import oracle
from tests.support.stores import copy_store
from zsic_index import LabelIndex, builtin
from zsic_index.cli import main
from zsic_index.embedding_arrays import Float32, check_embeddings
from zsic_index.errors import IndexFileError, InputError
from zsic_index.index_files import ApproximateSearch, HalfPrecision, locate_file, verify_files
from zsic_index.records import Kind
from zsic_index.scan.sampled import CONFIDENCE, draw, estimate

pytestmark = pytest.mark.usefixtures("ready_store")

N, D = 6_000, 32
SCALE = 60.0


@pytest.fixture(scope="module")
def embeddings() -> Float32:
    """Label embeddings in clusters, as names of related things have."""
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((200, D))
    return check_embeddings(centres[rng.integers(0, 200, N)] + 0.5 * rng.standard_normal((N, D)))


@pytest.fixture(scope="module")
def queries(embeddings: Float32) -> Float32:
    rng = np.random.default_rng(4)
    near = embeddings[rng.integers(0, N, 200)]
    return check_embeddings(near + 0.3 * rng.standard_normal(near.shape))


def make(embeddings: Float32, kind: Kind, **more: object) -> LabelIndex:
    return LabelIndex.from_embeddings(
        [f"label {row}" for row in range(len(embeddings))],
        embeddings,
        logit_scale=SCALE,
        name=f"of-{kind}",
        kind=kind,
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def open_made(
    embeddings: Float32, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., LabelIndex]:
    """Open an index of all embeddings of a kind and activation; each is made once."""
    folder = tmp_path_factory.mktemp("kinds")

    @cache
    def made(kind: Kind, activation: Literal["softmax", "sigmoid"]) -> Path:
        bias = -20.0 if activation == "sigmoid" else 0.0
        store = folder / f"{activation}.db"
        make(embeddings, kind, activation=activation, logit_bias=bias, store=store).close()
        return store

    def give(kind: Kind, activation: Literal["softmax", "sigmoid"] = "softmax") -> LabelIndex:
        return LabelIndex.open(f"of-{kind}", store=made(kind, activation))

    return give


def test_half_precision_finds_the_same_labels_and_the_same_similarities(
    open_made: Callable[..., LabelIndex], queries: Float32
) -> None:
    with open_made("flat") as flat, open_made("float16") as half:
        exact, found = flat.score(queries, top_k=10), half.score(queries, top_k=10)
    for ours, theirs in zip(found, exact, strict=True):
        assert [p.label for p in ours] == [p.label for p in theirs]
        assert [p.similarity for p in ours] == [p.similarity for p in theirs]
        assert [p.probability for p in ours] == pytest.approx(
            [p.probability for p in theirs], rel=2e-3
        )
        assert all(p.interval is None for p in ours)


def test_half_precision_takes_half_the_bytes(open_made: Callable[..., LabelIndex]) -> None:
    with open_made("float16") as half:
        assert isinstance(half.searcher.files.first_pass, HalfPrecision)
        assert half.searcher.files.first_pass.matrix.nbytes == 2 * N * D
        assert half.searcher.files.first_pass.rounding < 4e-4
        assert half.searcher.files.first_pass.matrix.flags.aligned


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_an_approximate_kind_finds_what_it_says(
    kind: Kind, open_made: Callable[..., LabelIndex], queries: Float32
) -> None:
    with open_made(kind) as opened:
        assert isinstance(opened.searcher.files.first_pass, ApproximateSearch)
        assert opened.searcher.files.first_pass.recall >= 0.99
        assert opened.searcher.recall(queries) >= 0.97


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_sigmoid_probabilities_of_an_approximate_kind_are_exact(
    kind: Kind, open_made: Callable[..., LabelIndex], queries: Float32
) -> None:
    with open_made("flat", "sigmoid") as flat, open_made(kind, "sigmoid") as approximate:
        exact = flat.score(queries, top_k=20)
        found = approximate.score(queries, top_k=5)
    for ours, theirs in zip(found, exact, strict=True):
        right = {p.label: p.probability for p in theirs}
        for prediction in ours:
            assert prediction.interval is None
            if prediction.label in right:
                assert prediction.probability == right[prediction.label]


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_softmax_probabilities_of_an_approximate_kind_are_within_their_interval(
    kind: Kind,
    open_made: Callable[..., LabelIndex],
    queries: Float32,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So few that most of the tail is unknown.
    monkeypatch.setattr(draw, "__defaults__", (1_500, 0))
    with open_made("flat") as flat, open_made(kind) as approximate:
        exact = flat.score(queries, top_k=1)
        found = approximate.score(queries, top_k=1)
    widths, within = [], []
    for ours, theirs in zip(found, exact, strict=True):
        assert ours[0].interval is not None
        low, high = ours[0].interval
        assert low <= ours[0].probability <= high
        widths.append(high - low)
        if ours[0].label == theirs[0].label:
            within.append(low - 1e-5 <= theirs[0].probability <= high + 1e-5)
    assert np.mean(within) >= CONFIDENCE
    assert 0 < np.median(widths) < 0.1


@pytest.mark.parametrize(("scale", "spread"), [(20.0, 0.5), (60.0, 0.5), (100.0, 1.0)])
def test_the_interval_covers_at_least_what_it_says(scale: float, spread: float) -> None:
    """Over many queries and many draws of the sample, with the head that a search would find."""
    rng = np.random.default_rng(7)
    matrix = check_embeddings(rng.standard_normal((20_000, 24)))
    covered, total, relative = 0, 0, []
    for seed in range(20):
        sample = draw(matrix, size=2_000, seed=seed)
        queries = check_embeddings(
            matrix[rng.integers(0, len(matrix), 25)] + spread * rng.standard_normal((25, 24))
        )
        similarities = oracle.similarities(queries, matrix)
        exact = oracle.log_sum_exp(similarities * scale)
        head = np.argsort(-similarities, axis=1)[:, :256]
        logits = np.take_along_axis(similarities, head, axis=1) * scale
        found = estimate(sample, queries, head, logits, scale)
        covered += ((found.low <= exact) & (exact <= found.high)).sum()
        total += len(queries)
        relative += (found.log_partition - exact).tolist()
    assert covered / total >= CONFIDENCE
    assert np.abs(np.mean(relative)) < 0.01


def test_a_sample_of_everything_is_exact(queries: Float32) -> None:
    matrix = check_embeddings(np.random.default_rng(0).standard_normal((500, D)))
    similarities = oracle.similarities(queries, matrix)
    head = np.argsort(-similarities, axis=1)[:, :9]
    found = estimate(
        draw(matrix),
        queries,
        head,
        np.take_along_axis(similarities, head, axis=1) * SCALE,
        SCALE,
    )
    np.testing.assert_array_equal(found.low, found.high)
    np.testing.assert_allclose(found.low, oracle.log_sum_exp(similarities * SCALE), atol=1e-5)


@pytest.fixture(scope="module")
def made_of_fewer(
    embeddings: Float32, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Kind], Path]:
    """Give a store with an index of a kind of some embeddings; each is made once."""

    @cache
    def made(kind: Kind) -> Path:
        store = tmp_path_factory.mktemp(kind) / "store.db"
        make(embeddings[:1_500], kind, store=store).close()
        return store

    return made


@pytest.mark.parametrize("kind", ["float16", "hnsw", "ivf"])
@pytest.mark.parametrize("damage", ["missing", "cut", "scrambled"])
def test_a_second_file_that_is_wrong_is_rebuilt(
    kind: Kind,
    damage: str,
    made_of_fewer: Callable[[Kind], Path],
    queries: Float32,
    store: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    copy_store(made_of_fewer(kind), store)
    with LabelIndex.open(f"of-{kind}") as opened:
        before = opened.score(queries, top_k=3)
        file = locate_file(opened._store.location.files, opened.info, kind)
    content = file.read_bytes()
    match damage:
        case "missing":
            file.unlink()
        case "cut":
            file.write_bytes(content[:-1])
        case "scrambled":
            file.write_bytes(bytes(64) + content[64:])
    with caplog.at_level(logging.WARNING, "zsic_index"), LabelIndex.open(f"of-{kind}") as again:
        assert str(file) in caplog.text
        found = again.score(queries, top_k=3)
    if kind == "float16":
        assert found == before
    assert file.exists()


def test_verify_compares_half_precision_with_float32(embeddings: Float32) -> None:
    with make(embeddings[:400], "float16") as opened:
        info, folder = opened.info, opened._store.location.files
    file = locate_file(folder, info, "float16")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(IndexFileError, match="differs from the float32 one"):
        verify_files(folder, info)


def test_another_kind_encodes_nothing_and_is_another_generation() -> None:
    labels = [f"thing {number}" for number in range(40)]
    with LabelIndex.build(labels, model="builtin:clip", name="a") as flat:
        assert flat.info.kind == "flat"
    with LabelIndex.build(labels, model="builtin:clip", name="a", kind="ivf") as other:
        assert other.report is not None
        assert not other.report.model_loaded
        assert (other.report.encoded_labels, other.info.generation) == (0, 2)
        assert other.info.kind == "ivf"
        other.classify(builtin.samples()[0])
        folder = other._store.location.files
    assert [path.suffix for path in sorted(folder.glob("a-*"))] == [".faiss", ".ivf"]
    with LabelIndex.build(labels, model="builtin:clip", name="a") as again:
        assert (again.info.kind, again.info.generation) == ("flat", 3)
    assert [path.suffix for path in folder.glob("a-*")] == [".faiss"]


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(InputError, match="kind 'hsnw': use one of flat, float16, hnsw, ivf"):
        LabelIndex.build(["a"], model="builtin:clip", name="a", kind="hsnw")  # type: ignore[arg-type]


def test_the_command_line_builds_shows_and_removes_a_kind(tmp_path: Path, store: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"thing {number}" for number in range(900)), encoding="utf-8")
    runner = CliRunner()
    build = ["build", str(labels), "--model", "builtin:clip", "--name", "a", "--kind", "hnsw"]
    assert runner.invoke(main, build).exit_code == 0
    shown = json.loads(runner.invoke(main, ["info", "a", "--json"]).stdout)
    assert shown["kind"] == "hnsw"
    assert shown["recall_at_10"] >= 0.9
    found = runner.invoke(main, ["query", str(builtin.samples()[0]), "--name", "a"])
    assert "95 % interval" in found.stdout
    as_csv = ["query", str(builtin.samples()[0]), "--name", "a", "--format", "csv", "-k", "1"]
    assert "probability_low,probability_high" in runner.invoke(main, as_csv).stdout
    assert runner.invoke(main, ["rm", "a"]).exit_code == 0
    assert not list(store.with_name(store.name + ".indexes").glob("a-*"))
