"""The scan in torch. No GPU is needed: the CPU stands in for one, as a device like any other."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from tests.support.oracle import unit_rows
from zsic_index import LabelIndex
from zsic_index.embedding_arrays import Float32
from zsic_index.scan.device import DeviceMatrix
from zsic_index.scan.exact import scan

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("scale", [10.0, 100.0, 1_000.0])
@pytest.mark.parametrize("batch", [1, 7, 300])
def test_it_finds_what_the_cpu_finds(
    rng: np.random.Generator,
    device: str,
    dtype: Literal["float32", "float16", "bfloat16"],
    scale: float,
    batch: int,
) -> None:
    matrix, queries = unit_rows(rng, 9_000, 64), unit_rows(rng, batch, 64)
    resident = DeviceMatrix(matrix, device, dtype)
    found = resident.scan(queries, 9, logit_scale=scale, logit_bias=-3.0, block_elements=1 << 19)
    right = scan(matrix, queries, 9, logit_scale=scale, logit_bias=-3.0)
    np.testing.assert_array_equal(found.rows, right.rows)
    np.testing.assert_array_equal(found.similarities, right.similarities)
    assert found.log_partition is not None
    bound = scale * resident.rounding + 1e-5
    np.testing.assert_allclose(found.log_partition, right.log_partition, atol=bound, rtol=0)


def test_ties_and_crowds_are_settled_on_the_cpu() -> None:
    matrix = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (9_000, 1))
    matrix[8_990] = (1.0, 0.0)
    query = np.array([[1.0, 0.0]], dtype=np.float32)
    found = DeviceMatrix(matrix, "cpu").scan(query, 4)
    assert found.rows.tolist() == [[8_990, 0, 1, 2]]


def test_fewer_labels_than_asked_for_and_no_queries(rng: np.random.Generator) -> None:
    resident = DeviceMatrix(unit_rows(rng, 5, 8), "cpu")
    assert resident.scan(unit_rows(rng, 2, 8), 9).rows.shape == (2, 5)
    assert resident.scan(np.empty((0, 8), np.float32), 9).rows.shape == (0, 5)
    assert resident.scan(unit_rows(rng, 2, 8), 2, partition=False).log_partition is None


def test_the_process_keeps_its_own_precision(rng: np.random.Generator) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        DeviceMatrix(unit_rows(rng, 50, 8), "cpu").scan(unit_rows(rng, 2, 8), 3)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_an_index_is_scanned_where_its_towers_run(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stand-in: the CPU is called "meta" to the index, since no GPU may be here."""
    matrix, queries = unit_rows(rng, 400, 16), unit_rows(rng, 3, 16)
    labels = [f"label {row}" for row in range(400)]
    monkeypatch.setattr("zsic_index.label_index.gpu_copy.MIN_GPU_ELEMENTS", 1)
    monkeypatch.setattr(
        "zsic_index.encoders.two_towers.select_device", lambda _name: torch.device("meta")
    )
    moved: list[DeviceMatrix] = []

    class OnCpu(DeviceMatrix):
        def __init__(self, matrix: Float32, _device: object, dtype: object) -> None:
            assert dtype == "float32"
            super().__init__(matrix, "cpu")
            moved.append(self)

    monkeypatch.setattr("zsic_index.scan.device.DeviceMatrix", OnCpu)
    with LabelIndex.from_embeddings(labels, matrix, logit_scale=50.0, name="a") as index:
        index.score(queries)
        found = index.score(queries)
    assert len(moved) == 1
    with LabelIndex.open("a", device="cpu") as index:
        right = index.score(queries)
    for ours, theirs in zip(found, right, strict=True):
        assert [p.label for p in ours] == [p.label for p in theirs]
        assert ours[0].probability == pytest.approx(theirs[0].probability, abs=1e-6)

    class TooLarge(DeviceMatrix):
        def __init__(self, *_arguments: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("zsic_index.scan.device.DeviceMatrix", TooLarge)
    with LabelIndex.open("a") as index:
        assert index.score(queries) == right
    assert "do not fit into the memory of meta: scanning on the CPU" in caplog.text
