"""Choice of the runtime of a vision tower: torch, or ONNX Runtime where it can be used."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from pathlib import Path

from zsic_index.encoders.onnx.files import TowerFiles, find_tower
from zsic_index.errors import IndexFileError, InputError, ModelError
from zsic_index.records import Dtype, IndexInfo, Precision, Runtime

logger = logging.getLogger("zsic_index")

ENVIRONMENT_VARIABLE = "ZSIC_RUNTIME"

PRECISIONS: dict[Runtime, Precision] = {"onnx": "float32", "onnx-int8": "int8"}
"""Precision of each runtime of ONNX."""

_NAMES = ("auto", "torch", *PRECISIONS)

_TO_RUN = ("onnxruntime",)
_TO_WRITE = ("onnx", "onnxruntime", "onnxscript")
"""Modules of the extra ``onnx``."""

# Device files of the drivers of NVIDIA (bare, and in WSL) and AMD, and NVIDIA's library on Windows.
_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd", r"C:\Windows\System32\nvcuda.dll")


def read_runtime(runtime: str | None) -> Runtime:
    """Return a runtime by its name; None is ``ZSIC_RUNTIME``, else ``auto``.

    Raises:
        InputError: for any other name.
    """
    name = runtime or os.environ.get(ENVIRONMENT_VARIABLE) or "auto"
    for supported in _NAMES:
        if name == supported:
            return supported
    raise InputError(f"runtime {name!r}: use one of {', '.join(_NAMES)}")


def choose_tower(folder: Path, info: IndexInfo, runtime: Runtime, device: str) -> TowerFiles | None:
    """Return the ONNX tower of an index to use; None for torch.

    Args:
        folder: folder of the index files.
        info: the index.
        runtime: runtime that the caller chose.
        device: device that the caller chose.

    Raises:
        ModelError: when a runtime of ONNX is chosen that cannot be used here.
    """
    if runtime == "torch":
        return None
    if runtime == "auto":
        if not can_run() or not suits(device, info.dtype):
            return None
        try:
            tower = find_tower(folder, info.encoder_fingerprint, "float32")
        except IndexFileError as error:
            command = f"zsic-index onnx write {info.name}"
            logger.warning("%s: torch is used; %r writes it anew", error, command)
            return None
        if tower is None or not tower.record.is_exact:
            return None
        if not tower.record.is_measured_with(info):
            logger.warning("%s; until then torch is used", _unmeasured(info))
            return None
        return tower
    if info.dtype != "float32":
        raise ModelError(
            f"runtime {runtime} computes in float32, the index in {info.dtype}: use torch"
        )
    if device not in ("auto", "cpu"):
        raise ModelError(f"runtime {runtime} runs on the CPU, not on {device}: use torch for that")
    check_installed(_TO_RUN)
    tower = require_tower(folder, info, PRECISIONS[runtime])
    if tower.record.precision == "float32" and not tower.record.is_measured_with(info):
        raise ModelError(_unmeasured(info))
    return tower


def require_tower(folder: Path, info: IndexInfo, precision: Precision) -> TowerFiles:
    """Return the ONNX tower of an index.

    Raises:
        ModelError: when there is none, or it is damaged; the message has the command to write it.
    """
    problem = f"index {info.name!r} has no ONNX tower in {precision}"
    try:
        tower = find_tower(folder, info.encoder_fingerprint, precision)
    except IndexFileError as error:
        tower, problem = None, str(error)
    if tower is None:
        option = "" if precision == "float32" else f" --precision {precision}"
        raise ModelError(f"{problem}: write it with 'zsic-index onnx write {info.name}{option}'")
    return tower


def suits(device: str, dtype: Dtype) -> bool:
    """Tell whether the vision tower would run on a CPU in float32, as ONNX Runtime does."""
    return dtype == "float32" and _is_cpu(device)


def can_run() -> bool:
    """Tell whether ONNX Runtime is installed."""
    return not _find_missing(_TO_RUN)


def can_write() -> bool:
    """Tell whether everything that exports a tower is installed."""
    return not _find_missing(_TO_WRITE)


def check_installed(modules: tuple[str, ...] = _TO_WRITE) -> None:
    """Raise a ModelError unless all modules of the extra ``onnx`` are installed."""
    missing = _find_missing(modules)
    if missing:
        raise ModelError(
            f"ONNX towers need {', '.join(missing)}: pip install 'zsic-index[onnx]', "
            "or use --runtime torch"
        )


def _unmeasured(info: IndexInfo) -> str:
    return (
        f"the ONNX tower was not measured with the labels of index {info.name!r}: do that with "
        f"'zsic-index onnx write {info.name}'"
    )


def _find_missing(modules: tuple[str, ...]) -> list[str]:
    return [name for name in modules if importlib.util.find_spec(name) is None]


def _is_cpu(device: str) -> bool:
    if device != "auto":
        return device == "cpu"
    if sys.platform != "darwin" and not any(map(os.path.exists, _GPU_FILES)):
        return True
    # torch alone knows whether it can use the GPU.
    from zsic_index.encoders.two_towers import select_device

    return select_device("auto").type == "cpu"
