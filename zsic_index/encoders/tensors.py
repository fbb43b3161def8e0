"""Read tensors from files of weights: safetensors, or pickles that hold nothing else."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zsic_index.errors import ModelError

_SCALARS = frozenset({"logit_scale", "logit_bias", "temperature"})

_POINTER = b"version https://git-lfs"
"""Start of the file that Git keeps in the place of a large one."""


def read_scalars(weights: Sequence[Path]) -> dict[str, float]:
    """Read logit scale, logit bias and temperature from files of weights, by name.

    A model in bfloat16 holds a rounded scale, which would change logits by up to 0.4 %.

    Raises:
        ModelError: when a file cannot be read, or is a pickle of more than tensors; nothing in it
            is then run.
    """
    scalars = {}
    for path in weights:
        if path.suffix == ".safetensors":
            scalars.update(_read_safetensors(path))
        else:
            scalars.update(_read_pickle(path))
    return scalars


def _read_safetensors(path: Path) -> dict[str, float]:
    try:
        with safe_open(path, framework="pt") as file:
            names = _SCALARS.intersection(file.keys())
            return {name: float(file.get_tensor(name).float()) for name in names}
    except (OSError, SafetensorError) as error:
        raise ModelError(_explain(path, error)) from error


def _read_pickle(path: Path) -> dict[str, float]:
    is_archive = zipfile.is_zipfile(path)
    if is_archive and _is_torchscript(path):
        raise ModelError(
            f"{path.name} is a TorchScript archive, which holds code: save its state_dict() as "
            "safetensors"
        )
    try:
        # Mapped, so that only the scalars are read; the format of torch before 1.6 cannot be.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except Exception as error:
        # For a damaged file torch raises anything from EOFError to RuntimeError.
        raise ModelError(_explain(path, error)) from error
    # open_clip's training saves its progress beside the weights, whose names have a prefix.
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise ModelError(f"{path.name} holds a {type(content).__name__}, not weights by name")
    named = {str(name).removeprefix("module."): value for name, value in content.items()}
    return {
        name: float(named[name].float()) for name in _SCALARS if isinstance(named.get(name), Tensor)
    }


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _explain(path: Path, error: Exception) -> str:
    """Return a line that says why a file of weights was not read, and the next step."""
    message = str(error).strip() or type(error).__name__
    with path.open("rb") as file:
        start = file.read(len(_POINTER))
    if start == _POINTER:
        return f"{path.name} is a pointer of Git LFS, not the file itself: run git lfs pull"
    if isinstance(error, pickle.UnpicklingError) and start[:1] in (b"\x80", b"P"):
        name = re.search(r"GLOBAL ([\w.]+)", message)
        return (
            f"{path.name} holds more than tensors{f' ({name[1]})' if name else ''}, and code from "
            "a checkpoint is never run: take another checkpoint or revision, or save its tensors "
            "as safetensors if you trust it"
        )
    return f"{path.name}: {message.splitlines()[0]}"
