"""Reading embeddings that were made elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from zsic_index import EmbeddingError
from zsic_index.formats.embedding_files import read_array


@pytest.fixture
def values(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((4, 3)).astype(np.float32)


def test_npy(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", values)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), values)


def test_npz_and_safetensors_with_one_array_need_no_key(tmp_path: Path, values: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", values)
    save_file({"text": values}, tmp_path / "a.safetensors")
    for name in ("a.npz", "a.safetensors"):
        np.testing.assert_array_equal(read_array(tmp_path / name), values)


def test_a_missing_key_is_named_with_those_there_are(tmp_path: Path, values: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", left=values, right=values)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npz", "left"), values)
    with pytest.raises(EmbeddingError, match=r"no array 'up'; it has: left, right"):
        read_array(tmp_path / "a.npz", "up")
    with pytest.raises(EmbeddingError, match=r"--key; it has: left, right"):
        read_array(tmp_path / "a.npz")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(EmbeddingError, match=r"a\.npy: cannot be read"):
        read_array(tmp_path / "a.npy")


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors"])
def test_broken_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    for content in (b"", b"nonsense" * 20):
        path.write_bytes(content)
        with pytest.raises(EmbeddingError, match=f"a.{suffix}: cannot be read"):
            read_array(path)


def test_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingError, match=r"use \.npy, \.npz or \.safetensors"):
        read_array(tmp_path / "a.pt")
