"""Indexes on a GPU. No GPU is needed: the CPU stands in for one (``tests/support/gpus.py``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.gpus import fake_gpu
from tests.support.oracle import unit_rows
from tests.support.taxonomies import taxonomies
from tests.support.worlds import draw_pooling
from zsic_index import LabelIndex
from zsic_index.calibration import Calibration, FittedOn, HubBias
from zsic_index.index_files import HalfPrecision, IndexFiles
from zsic_index.label_index.node_scores import NodeScores
from zsic_index.label_index.searcher import Searcher
from zsic_index.records import Activation, IndexInfo, Kind
from zsic_index.scan.groups import Grouping, Reduction
from zsic_index.scan.pooling import How
from zsic_index.scan.spec import ScanResult
from zsic_index.taxonomy import Taxonomy
from zsic_index.taxonomy.structure import Structure

SUMS: dict[str, float] = {"rtol": 1e-6, "atol": 1e-6}


def make_searchers(
    rng: np.random.Generator,
    labels: int,
    *,
    how: How | None = None,
    with_bias: bool = False,
    activation: Activation = "softmax",
    kind: Kind = "flat",
    scale: float = 50.0,
) -> tuple[Searcher, Searcher]:
    """Return searchers of one random index of 24 dimensions, on a GPU and on the CPU."""
    pooling = None if how is None else draw_pooling(rng, labels, 5, how)
    rows = labels if pooling is None else int(pooling.starts[-1])
    matrix, label_ids = unit_rows(rng, rows, 24), np.arange(10, 10 + labels)
    half = matrix.astype(np.float16)
    rounding = float(np.linalg.norm(matrix - half, axis=1).max())
    first_pass = HalfPrecision(half, rounding) if kind == "float16" else None
    fields: dict[str, Any] = dict.fromkeys(IndexInfo.__dataclass_fields__)
    fields |= {"name": "random", "labels": labels, "rows": rows, "dim": 24, "kind": kind}
    fields |= {"logit_scale": scale, "activation": activation}
    # Under sigmoid few labels are probable.
    fields["logit_bias"] = -0.6 * scale if activation == "sigmoid" else 0.0
    calibration = None
    if with_bias:
        bias = rng.normal(0, 0.1, labels).astype(np.float32)
        hubs = HubBias(5, 0.5, 100, label_ids, bias)
        calibration = Calibration(activation, None, FittedOn(1, "", "2026-01-01"), hubs)
    files = IndexFiles(label_ids, matrix, first_pass, pooling)
    on_gpu = Searcher(IndexInfo(**fields), files, "cuda", calibration)
    return on_gpu, Searcher(IndexInfo(**fields), files, "cpu", calibration)


def check_equal(on_gpu: ScanResult, on_cpu: ScanResult) -> None:
    """Check that the results of two scans are the same, but for sums up to 1e-6."""
    np.testing.assert_array_equal(on_gpu.rows, on_cpu.rows)
    np.testing.assert_array_equal(on_gpu.similarities, on_cpu.similarities)
    np.testing.assert_array_equal(on_gpu.logits, on_cpu.logits)
    for sums, expected in (
        (on_gpu.log_partition, on_cpu.log_partition),
        (on_gpu.groups, on_cpu.groups),
    ):
        assert (sums is None) == (expected is None)
        if sums is not None and expected is not None:
            np.testing.assert_allclose(sums, expected, **SUMS)


@settings(max_examples=40)
@given(
    taxonomy=taxonomies(max_size=40),
    how=st.sampled_from([None, "max", "mass"]),
    with_bias=st.booleans(),
    reduction=st.sampled_from(["sum", "max", "noisy-or"]),
    of_all=st.booleans(),
    batch=st.sampled_from([1, 2, 9]),
    block_rows=st.sampled_from([1, 3, 16, 1_000]),
    scale=st.sampled_from([20.0, 100.0]),
    seed=st.integers(0, 2**31),
)
def test_roll_up_names_and_biases_are_those_of_the_cpu(
    taxonomy: Taxonomy,
    how: How | None,
    with_bias: bool,
    reduction: Reduction,
    of_all: bool,
    batch: int,
    block_rows: int,
    scale: float,
    seed: int,
) -> None:
    """Random DAGs, in blocks that cut nodes in the middle and can be smaller than a label."""
    rng = np.random.default_rng(seed)
    structure = Structure(taxonomy)
    on_gpu, on_cpu = make_searchers(
        rng,
        len(structure.row_order),
        how=how,
        with_bias=with_bias,
        activation="softmax" if reduction == "sum" else "sigmoid",
        scale=scale,
    )
    queries = unit_rows(rng, batch, 24)
    if of_all:
        nodes = NodeScores.of_all(structure, reduction)
    else:
        nodes = NodeScores.at_rank(structure, "depth 0", reduction)
    with fake_gpu(block_elements=256 * block_rows) as gpu:
        check_equal(on_gpu.find(queries, 4).best, on_cpu.find(queries, 4).best)
        result = on_gpu.find_groups(queries, 4, nodes.grouping)
        expected = on_cpu.find_groups(queries, 4, nodes.grouping)
    assert (gpu.copies, gpu.scans) == (1, 2)
    check_equal(result, expected)
    assert result.groups is not None
    assert expected.groups is not None
    for predictions, others in zip(
        nodes.best(result.groups, 3), nodes.best(expected.groups, 3), strict=True
    ):
        for prediction, other in zip(predictions, others, strict=True):
            assert prediction.probability == pytest.approx(other.probability, abs=1e-6)


@pytest.mark.parametrize("how", [None, "max", "mass"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_labels_of_a_larger_index_are_those_of_the_cpu(
    rng: np.random.Generator, how: How | None, with_bias: bool, activation: Activation
) -> None:
    """Batches of several passes; groups in order and not, over many blocks."""
    on_gpu, on_cpu = make_searchers(
        rng, 2_000, how=how, with_bias=with_bias, activation=activation, scale=100.0
    )
    queries = unit_rows(rng, 260, 24)
    reduction: Reduction = "sum" if activation == "softmax" else "max"
    group_of = rng.integers(0, 40, 2_000)
    with fake_gpu(block_elements=256 * 700):
        check_equal(on_gpu.find(queries, 5).best, on_cpu.find(queries, 5).best)
        for groups in (np.sort(group_of), group_of):
            grouping = Grouping(groups, 40, reduction)
            check_equal(
                on_gpu.find_groups(queries[:20], 5, grouping),
                on_cpu.find_groups(queries[:20], 5, grouping),
            )


def test_one_copy_is_shared_by_calibrated_searchers(rng: np.random.Generator) -> None:
    on_gpu, on_cpu = make_searchers(rng, 50, with_bias=True)
    queries = unit_rows(rng, 3, 24)
    with fake_gpu() as gpu:
        check_equal(on_gpu.find(queries, 4).best, on_cpu.find(queries, 4).best)
        plain = on_gpu.with_calibration(None).find(queries, 4).best
    check_equal(plain, on_cpu.with_calibration(None).find(queries, 4).best)
    assert (gpu.copies, gpu.scans) == (1, 2)


def test_half_precision_finds_labels_on_the_gpu_and_groups_on_the_cpu(
    rng: np.random.Generator,
) -> None:
    """Groups come from the float32 matrix, whose half-precision copy is what the GPU has."""
    on_gpu, on_cpu = make_searchers(rng, 400, how="max", with_bias=True, kind="float16")
    queries, grouping = unit_rows(rng, 3, 24), Grouping(np.arange(400) // 30, 14, "sum")
    with fake_gpu() as gpu:
        best, expected = on_gpu.find(queries, 4).best, on_cpu.find(queries, 4).best
        np.testing.assert_array_equal(best.rows, expected.rows)
        np.testing.assert_array_equal(best.similarities, expected.similarities)
        assert best.log_partition is not None
        np.testing.assert_allclose(best.log_partition, expected.log_partition, atol=1e-3)
        assert gpu.scans == 1
        groups = on_gpu.find_groups(queries, 4, grouping).groups
        np.testing.assert_array_equal(groups, on_cpu.find_groups(queries, 4, grouping).groups)
        assert gpu.scans == 1


def test_a_device_without_float64_reduces_on_the_cpu(rng: np.random.Generator) -> None:
    grouping = Grouping(np.arange(90) // 20, 5, "sum")
    queries = unit_rows(rng, 3, 24)
    with fake_gpu(name="mps") as gpu:
        pooled, on_cpu = make_searchers(rng, 90, how="max")
        np.testing.assert_array_equal(
            pooled.find(queries, 4).best.rows, on_cpu.find(queries, 4).best.rows
        )
        assert (gpu.copies, gpu.scans) == (0, 0)
        plain, on_cpu = make_searchers(rng, 90, with_bias=True)
        check_equal(plain.find(queries, 4).best, on_cpu.find(queries, 4).best)
        assert (gpu.copies, gpu.scans) == (1, 1)
        check_equal(
            plain.find_groups(queries, 4, grouping), on_cpu.find_groups(queries, 4, grouping)
        )
        assert (gpu.copies, gpu.scans) == (1, 1)


# Memory runs out: a fault that is injected, as there is no GPU here


def _no_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def _no_memory_for_cublas() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")


def _search_in_all_ways(searcher: Searcher, rng: np.random.Generator) -> list[ScanResult]:
    queries = unit_rows(rng, 5, 24)
    grouping = Grouping(np.arange(200) // 30, 7, "sum")
    return [
        searcher.find(queries, 4).best,
        searcher.find_groups(queries, 4, grouping),
        searcher.find(queries[:1], 300).best,
        searcher.with_calibration(None).find_groups(queries, 1, grouping),
    ]


@pytest.mark.parametrize("fail", [_no_memory, _no_memory_for_cublas])
def test_a_matrix_that_does_not_fit_is_scanned_on_the_cpu(
    rng: np.random.Generator, caplog: pytest.LogCaptureFixture, fail: Callable[[], None]
) -> None:
    on_gpu, on_cpu = make_searchers(rng, 200, how="mass", with_bias=True)
    with fake_gpu() as gpu:
        gpu.on_copy = fail
        results = _search_in_all_ways(on_gpu, np.random.default_rng(1))
    for result, expected in zip(
        results, _search_in_all_ways(on_cpu, np.random.default_rng(1)), strict=True
    ):
        check_equal(result, expected)
    assert gpu.scans == 0
    (record,) = caplog.records
    rows = len(on_gpu.files.matrix)
    assert record.getMessage() == (
        f"{rows} rows x 24 do not fit into the memory of cuda: scanning on the CPU"
    )


@pytest.mark.parametrize("fail", [_no_memory, _no_memory_for_cublas])
@pytest.mark.parametrize("first", ["labels", "groups"])
def test_a_scan_that_runs_out_of_memory_is_done_on_the_cpu(
    rng: np.random.Generator,
    caplog: pytest.LogCaptureFixture,
    fail: Callable[[], None],
    first: str,
) -> None:
    on_gpu, on_cpu = make_searchers(rng, 200, how="mass", with_bias=True)
    queries = unit_rows(rng, 5, 24)
    grouping = Grouping(np.arange(200) // 30, 7, "sum")

    def fail_in_the_middle(number: int) -> None:
        if number == 2:
            fail()

    with fake_gpu(block_elements=256 * 40) as gpu:
        on_gpu.find(queries, 4)
        gpu.on_block = fail_in_the_middle
        if first == "groups":
            result = on_gpu.find_groups(queries, 4, grouping)
            check_equal(result, on_cpu.find_groups(queries, 4, grouping))
        results = _search_in_all_ways(on_gpu, np.random.default_rng(1))
    for result, expected in zip(
        results, _search_in_all_ways(on_cpu, np.random.default_rng(1)), strict=True
    ):
        check_equal(result, expected)
    assert (gpu.copies, gpu.scans) == (1, 2)
    (record,) = caplog.records
    rows = len(on_gpu.files.matrix)
    assert record.getMessage() == (
        f"a scan of {rows} rows x 24 does not fit into the memory of cpu: scanning on the CPU"
    )


def test_other_errors_of_the_device_are_raised(rng: np.random.Generator) -> None:
    def fail(_number: int) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    on_gpu, _ = make_searchers(rng, 50)
    with fake_gpu() as gpu:
        gpu.on_block = fail
        with pytest.raises(RuntimeError, match="illegal memory access"):
            on_gpu.find(unit_rows(rng, 2, 24), 3)


def test_an_index_is_scanned_where_its_towers_run(rng: np.random.Generator) -> None:
    matrix, queries = unit_rows(rng, 400, 16), unit_rows(rng, 3, 16)
    labels = [f"label {row}" for row in range(400)]
    with (
        fake_gpu() as gpu,
        LabelIndex.from_embeddings(labels, matrix, logit_scale=50.0, name="a") as index,
    ):
        index.score(queries)
        predictions = index.score(queries)
    assert (gpu.copies, gpu.scans) == (1, 2)
    with LabelIndex.open("a", device="cpu") as index:
        expected = index.score(queries)
    for ours, theirs in zip(predictions, expected, strict=True):
        assert [p.label for p in ours] == [p.label for p in theirs]
        assert ours[0].probability == pytest.approx(theirs[0].probability, abs=1e-6)
