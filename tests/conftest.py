"""Fixtures: checkpoints, pictures, and a store per test; the network is out of reach."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before anything imports transformers or huggingface_hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import models
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple):
            raise AssertionError(f"a test tried to connect to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of the test's own, which is also the default one."""
    path = tmp_path / "store.db"
    monkeypatch.setenv("ZSIC_STORE", str(path))
    return path


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.make_siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small JPEG with some structure in it."""
    path = tmp_path_factory.mktemp("photos") / "photo.jpg"
    picture(0).save(path, quality=95)
    return path


def picture(seed: int, size: tuple[int, int] = (90, 60)) -> Image.Image:
    """A blurry random RGB picture."""
    values = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(autouse=True)
def _logger_as_it_was() -> Iterator[None]:
    """The command line sets up its logger; other tests must not see that."""
    import logging

    logger = logging.getLogger("zsic_index")
    handlers, propagate = logger.handlers[:], logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
