"""Reader of embeddings in .npy, .npz and .safetensors files."""

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
        key: name of the array; needed if the file holds several.

    Returns:
        The array as stored: shape and dtype are not checked. An ``.npy`` file is memory-mapped.

    Raises:
        EmbeddingError: for another kind of file, a broken file, or a missing or unknown key.
    """
    try:
        match path.suffix.lower():
            case ".npy":
                # Memory-mapped: rows are copied only once, when they are normalised.
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
        # zipfile, numpy and safetensors each raise their own errors for broken files.
        raise EmbeddingError(f"{path}: cannot be read: {error}") from error
    raise EmbeddingError(f"{path}: unknown kind of file; use .npy, .npz or .safetensors")


def _choose(path: Path, keys: list[str], key: str | None) -> str:
    """Return ``key`` if the file has it, or the only key if none is given."""
    if key is None and len(keys) == 1:
        return keys[0]
    if key in keys:
        return key
    raise EmbeddingError(
        f"{path}: "
        + (f"has no array {key!r}" if key else "holds several arrays: name one with --key")
        + f"; it has: {', '.join(keys)}"
    )
