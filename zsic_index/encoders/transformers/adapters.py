"""PEFT adapters: in a checkpoint's folder, or in a folder of their own that names a base.

The stock pipeline applies an adapter whenever peft is installed, and otherwise ignores those beside
a complete checkpoint. Here peft is needed then too: the same files must not give other embeddings
on another machine.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from zsic_index.encoders.checkpoint import existing_files, hash_files, major_version
from zsic_index.errors import ModelError, first_line

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""Names of an adapter's configuration and weights."""

WITHOUT_ADAPTER = {"adapter_kwargs": {"subfolder": "none"}}
"""Arguments of ``from_pretrained`` that keep it from loading an adapter in the same folder.

transformers would report only which of the adapter's weights are missing, not the model's own.
"""


def has_adapter(folder: Path) -> bool:
    """Tell whether a folder holds an adapter that transformers would load."""
    return (folder / ADAPTER_FILES[0]).is_file()


def find_missing(folder: Path) -> list[str]:
    """Return the names of needed files that an adapter's folder lacks."""
    return [name for name in ADAPTER_FILES if not (folder / name).is_file()]


def check_adapter(model_id: str, folder: Path) -> None:
    """Raise a ModelError if an adapter has no weights, or peft is not installed."""
    if find_missing(folder):
        raise ModelError(
            f"model {model_id}: {folder} has an adapter_config.json but no "
            "adapter_model.safetensors: save the adapter again with peft 0.6 or newer, or delete "
            "adapter_config.json if the adapter is merged into the weights"
        )
    if importlib.util.find_spec("peft") is None:
        raise ModelError(
            f"model {model_id}: its adapter ({folder / ADAPTER_FILES[0]}) needs peft: "
            "pip install peft"
        )


def read_base(model_id: str, folder: Path) -> str:
    """Return the folder or Hub id of the checkpoint that an adapter was trained on."""
    path = folder / ADAPTER_FILES[0]
    try:
        base = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"model {model_id}: {path} names no base: {error!r}") from error
    if not (isinstance(base, str) and base):
        raise ModelError(
            f"model {model_id}: {path} has base_model_name_or_path {base!r}: set it to the folder "
            "or the Hub id of the checkpoint that the adapter was trained on"
        )
    return base


def adapter_identity(folder: Path) -> list[str]:
    """Return hashes of an adapter's files, and the version of peft that applies them."""
    paths = existing_files(folder, *ADAPTER_FILES)
    return ["adapter", f"peft {major_version('peft')}", *hash_files(paths)]


def apply_adapter(model_id: str, model: Any, folder: Path, dtype: Any) -> None:
    """Load an adapter into a model, as ``from_pretrained`` does.

    Raises:
        ModelError: when it does not fit, or peft filled one of its weights with a start value.
    """
    try:
        missing = sorted(model.load_adapter(str(folder), dtype=dtype).missing_keys)
    except Exception as error:
        # For an adapter that does not fit peft raises anything from TypeError to KeyError.
        reason = first_line(error)
        raise ModelError(
            f"model {model_id}: the adapter in {folder} cannot be applied to a "
            f"{type(model).__name__}: {reason[:250]}"
        ) from error
    if missing:
        # True of every DoRA with transformers 5.23, which looks for the names of an older peft.
        raise ModelError(
            f"model {model_id}: transformers does not find {len(missing)} weights of the adapter "
            f"in {folder}, such as {missing[0]}: merge it with peft's merge_and_unload() and save "
            "the whole model"
        )
