"""Reading one array from an .npy, .npz or .safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zsic_index.errors import EmbeddingError


def read_array(path: Path, key: str | None = None) -> npt.NDArray[Any]:
    """Read the array of embeddings in a file; pickled data is never loaded.

    Args:
        path: an ``.npy``, ``.npz`` or ``.safetensors`` file.
        key: which array, where the file holds several.

    Raises:
        EmbeddingError: when the file is of another kind or broken, or the key is missing or needed.
    """
    try:
        match path.suffix.lower():
            case ".npy":
                # Mapped: rows are copied once, when they are normalised.
                loaded: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
                return loaded
            case ".npz":
                with np.load(path, allow_pickle=False) as file:
                    return np.asarray(file[_choose(path, list(file.files), key)])
            case ".safetensors":
                from safetensors import safe_open

                with safe_open(path, framework="np") as file:
                    return np.asarray(file.get_tensor(_choose(path, list(file.keys()), key)))
    except EmbeddingError:
        raise
    except Exception as error:
        # zipfile, numpy and safetensors each have their own errors for broken files.
        raise EmbeddingError(f"{path}: cannot be read: {error}") from error
    raise EmbeddingError(f"{path}: unknown kind of file; use .npy, .npz or .safetensors")


def _choose(path: Path, keys: list[str], key: str | None) -> str:
    if key is None and len(keys) == 1:
        return keys[0]
    if key in keys:
        return key
    raise EmbeddingError(
        f"{path}: "
        + (f"has no array {key!r}" if key else "holds several arrays: name one with --key")
        + f"; it has: {', '.join(keys)}"
    )
