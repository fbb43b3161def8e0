"""The scan in torch. No GPU is needed: the CPU stands in for one, as a device like any other."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.oracle import unit_rows
from tests.support.worlds import draw_pooling
from zsic_index.scan.device import DeviceMatrix
from zsic_index.scan.exact import scan
from zsic_index.scan.groups import Grouping, Reduction
from zsic_index.scan.pooling import How, Pooling

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


@settings(max_examples=50)
@given(
    labels=st.integers(1, 300),
    most=st.sampled_from([1, 3, 40]),
    how=st.sampled_from(["max", "mass"]),
    with_bias=st.booleans(),
    reduction=st.sampled_from([None, "sum", "max", "noisy-or"]),
    in_order=st.booleans(),
    batch=st.integers(1, 9),
    top_k=st.integers(1, 40),
    block_rows=st.sampled_from([1, 7, 90, 1_000]),
    segment_rows=st.sampled_from([2, 5, 256]),
    dtype=st.sampled_from(["float32", "float32", "bfloat16"]),
    scale=st.sampled_from([0.5, 14.3, 100.0, 3_000.0]),
    seed=st.integers(0, 2**31),
)
def test_names_biases_and_groups_are_those_of_the_cpu(
    labels: int,
    most: int,
    how: How,
    with_bias: bool,
    reduction: Reduction | None,
    in_order: bool,
    batch: int,
    top_k: int,
    block_rows: int,
    segment_rows: int,
    dtype: Literal["float32", "bfloat16"],
    scale: float,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    pooling = draw_pooling(rng, labels, most, how) if most > 1 else None
    rows = labels if pooling is None else int(pooling.starts[-1])
    matrix, queries = unit_rows(rng, rows, 48), unit_rows(rng, batch, 48)
    group_of = rng.integers(0, 6, labels)
    group_of = np.sort(group_of) if in_order else group_of
    softmax = reduction in (None, "sum")
    options: Any = {
        "logit_scale": scale,
        # Few labels are probable.
        "logit_bias": -2.5 if softmax else -0.4 * scale,
        "pooling": pooling,
        "label_bias": rng.normal(0, 0.1, labels).astype(np.float32) if with_bias else None,
        "partition": softmax,
        "grouping": None if reduction is None else Grouping(group_of, 6, reduction),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zsic_index.scan.device_segments.SEGMENT_ROWS", segment_rows)
        resident = DeviceMatrix(matrix, "cpu", dtype)
        on_device = resident.scan(queries, top_k, block_elements=256 * block_rows, **options)
    on_cpu = scan(matrix, queries, top_k, **options)
    np.testing.assert_array_equal(on_device.rows, on_cpu.rows)
    np.testing.assert_array_equal(on_device.similarities, on_cpu.similarities)
    np.testing.assert_array_equal(on_device.logits, on_cpu.logits)
    # In half precision sums have an error of up to this; it is zero in float32.
    off = scale * resident.rounding
    if softmax:
        assert on_device.log_partition is not None
        np.testing.assert_allclose(
            on_device.log_partition, on_cpu.log_partition, rtol=1e-6, atol=1e-6 + off
        )
    if reduction is not None:
        np.testing.assert_allclose(on_device.groups, on_cpu.groups, rtol=0, atol=1e-6 + off)


class Operations(TorchDispatchMode):
    """Counts operations of torch, and records the largest tensor that they make."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.largest = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.names.append(func.overloadpacket.__name__)
        made = result if isinstance(result, tuple | list) else (result,)
        views = {"slice", "t", "transpose", "unsqueeze", "select", "alias", "detach", "expand"}
        if self.names[-1] not in views:
            sizes = (tensor.numel() for tensor in made if isinstance(tensor, torch.Tensor))
            self.largest = max(self.largest, *sizes, 0)
        return result


@pytest.mark.parametrize("how", [None, "max", "mass"])
@pytest.mark.parametrize("reduction", [None, "sum", "max", "noisy-or"])
@pytest.mark.parametrize("batch", [1, 20])
def test_memory_is_a_few_blocks_and_nothing_waits_for_the_device(
    rng: np.random.Generator, how: How | None, reduction: Reduction | None, batch: int
) -> None:
    labels, block_elements = 600, 1 << 14
    pooling = None if how is None else Pooling(np.arange(0, 2 * labels + 1, 2), how)
    matrix = unit_rows(rng, labels if how is None else 2 * labels, 96)
    resident, queries = DeviceMatrix(matrix, "cpu", "float16"), unit_rows(rng, batch, 96)
    counts = []
    for groups in (12, 300):
        grouping = None
        if reduction is not None:
            grouping = Grouping(np.arange(labels) * groups // labels, groups, reduction)
        options: Any = {"pooling": pooling, "grouping": grouping, "block_elements": block_elements}
        # The first scan copies the groups to the device.
        resident.scan(queries, 3, **options)
        with Operations() as operations:
            resident.scan(queries, 3, **options)
        assert operations.largest <= 2 * block_elements
        # The host would wait for these.
        assert not {"_local_scalar_dense", "nonzero", "unique_dim"} & set(operations.names)
        counts.append(len(operations.names))
    # There are no loops over rows or groups.
    assert counts[0] == counts[1]
    blocks = operations.names.count("topk") // 2
    assert counts[0] <= 10 + 45 * blocks


def test_groups_are_copied_once_and_few_are_held(rng: np.random.Generator) -> None:
    resident, queries = DeviceMatrix(unit_rows(rng, 60, 8), "cpu"), unit_rows(rng, 2, 8)
    groupings = [Grouping(rng.integers(0, 4, 60), 4, "sum") for _ in range(12)]
    on_cpu = [scan(resident._exact, queries, 1, grouping=each).groups for each in groupings]
    for _ in range(2):
        for grouping, groups in zip(groupings, on_cpu, strict=True):
            on_device = resident.scan(queries, 1, grouping=grouping).groups
            np.testing.assert_allclose(on_device, groups, atol=1e-9)
    assert len(resident._copies._copies) == 8
    held = list(resident._copies._copies.values())
    resident.scan(queries[:1], 1, grouping=groupings[-1])
    assert list(resident._copies._copies.values()) == held
