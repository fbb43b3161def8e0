"""The GPU check: how it records, and its parts that a CPU can run in a second."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import gpu_check
from tests.tools.gpu_check import Row, Run, perform


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("cpu", True, tmp_path, tmp_path / "rows.json", time.monotonic() + 60)


def rows_of(run: Run) -> list[Row]:
    assert run.path is not None
    content = json.loads(run.path.read_text())
    assert content["machine"]["device"] == "cpu"
    assert content["machine"].keys() >= {"torch", "transformers", "python", "cores"}
    rows: list[Row] = content["rows"]
    return rows


def test_a_section_that_fails_is_recorded_and_the_next_one_runs(run: Run) -> None:
    def fails(_: Run) -> Iterator[Row]:
        yield {"before": 1}
        raise RuntimeError("CUDA error")

    def works(_: Run) -> Iterator[Row]:
        # Rows are written as they come.
        assert any(row.get("failed") == "RuntimeError: CUDA error" for row in rows_of(run))
        yield {"after": 2, "ok": True}

    perform(run, {"first": fails, "second": works})
    rows = [{key: row[key] for key in row if key != "seconds"} for row in rows_of(run)]
    assert rows == [
        {"section": "first", "before": 1},
        {"section": "first", "failed": "RuntimeError: CUDA error", "ok": False},
        {"section": "first"},
        {"section": "second", "after": 2, "ok": True},
        {"section": "second"},
    ]
    assert run.failed


def test_nothing_is_begun_when_the_time_is_up(run: Run) -> None:
    run.deadline = time.monotonic() - 1
    perform(run, gpu_check.SECTIONS)
    assert rows_of(run) == [
        {"section": name, "skipped": "no time was left"} for name in gpu_check.SECTIONS
    ]
    assert not run.failed


@pytest.mark.parametrize("section", ["scan", "reductions", "memory", "towers"])
def test_a_section_passes_on_the_cpu(section: str, run: Run) -> None:
    perform(run, {section: gpu_check.SECTIONS[section]})
    rows = rows_of(run)
    assert not run.failed
    assert not [row for row in rows if "failed" in row]
    match section:
        case "scan":
            assert [row["ok"] for row in rows if "ok" in row] == [True] * 4
        case "reductions":
            assert [row["rows_equal"] for row in rows if "ok" in row] == [True] * 16
        case "memory":
            (row,) = [row for row in rows if "ok" in row]
            assert row["out_of_memory"] == "simulated"
            assert row["passes"] > 4
        case "towers":
            assert {row["batch"] for row in rows if "bound" in row} == {2, 4}
            assert all(row["tower_s"] > 0 for row in rows if "bound" in row)


def test_a_wrong_number_is_seen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = gpu_check.DeviceMatrix.scan

    def off_by_one(*arguments: object, **options: object) -> object:
        result = scan(*arguments, **options)  # type: ignore[arg-type]
        result.rows[0, 0] += 1
        return result

    monkeypatch.setattr(gpu_check.DeviceMatrix, "scan", off_by_one)
    perform(run, {"scan": gpu_check.SECTIONS["scan"]})
    assert run.failed
