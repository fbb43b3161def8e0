"""Fixtures: checkpoints, pictures, and a store per test; the network is out of reach."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Some virtual machines announce AMX and hide the leaf that describes its tiles; oneDNN then dies of
# an illegal instruction in any bfloat16 product, the reference's included. Before torch is used.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
# Tests that run side by side share the cores: torch's threads would mostly wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Exporting the vision tower takes seconds; tests of ONNX Runtime choose it.
os.environ["ZSIC_RUNTIME"] = "torch"
# Before anything imports transformers or huggingface_hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import hypothesis
import numpy as np
import pytest
from filelock import FileLock

from tests.support.browsers import chromium
from tests.support.pictures import picture

if TYPE_CHECKING:
    from tests.support.processes import Processes

# In CI a failure must come back with the next run; anywhere else every run tries other examples.
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile(
    "ci", deadline=None, derandomize=True, database=None, print_blob=True
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Addresses beyond this machine that the test tried to reach; every attempt fails."""
    tried: list[object] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def only_here(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in LOOPBACK:
            tried.append(address)
            raise ConnectionRefusedError(f"a test tried to connect to {address}")
        connect(self, address)

    def only_known(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in LOOPBACK:
            tried.append(host)
            raise socket.gaierror(socket.EAI_NONAME, f"a test tried to look up {host}")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket.socket, "connect", only_here)
    monkeypatch.setattr(socket, "getaddrinfo", only_known)
    return tried


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of the test's own, which is also the default one."""
    path = tmp_path / "store.db"
    monkeypatch.setenv("ZSIC_STORE", str(path))
    return path


@pytest.fixture(scope="session")
def filled_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, Callable[[Path], object]], Path]:
    """Give a folder that is filled when it is first needed, once for all workers of a session."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    (root / "shared").mkdir(exist_ok=True)

    @cache
    def give(name: str, fill: Callable[[Path], object]) -> Path:
        folder = root / "shared" / name
        full = folder.with_name(f"{name}.full")
        with FileLock(folder.with_name(f"{name}.lock")):
            if not full.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                full.touch()
        return folder

    return give


@pytest.fixture(scope="session")
def checkpoints(
    filled_once: Callable[[str, Callable[[Path], object]], Path],
) -> Callable[[str], Path]:
    """Give the folder of a small random checkpoint by its name among the makers of ``models``."""
    from tests.support import models

    makers = models.MAKERS | models.OPEN_CLIP_MAKERS
    return lambda name: filled_once(name, makers[name])


@pytest.fixture(scope="session")
def built_store(
    filled_once: Callable[[str, Callable[[Path], object]], Path],
) -> Callable[[str], Path]:
    """Give the path of a store by its name among the builders of ``stores``; never change it."""
    from tests.support import stores

    return lambda name: filled_once(name, stores.BUILDERS[name]) / stores.FILE


@pytest.fixture(scope="session")
def clip_folder(checkpoints: Callable[[str], Path]) -> Path:
    return checkpoints("clip")


@pytest.fixture(scope="session")
def siglip_folder(checkpoints: Callable[[str], Path]) -> Path:
    return checkpoints("siglip")


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Starts processes of the test's own."""
    from tests.support.processes import Processes

    processes = Processes()
    yield processes
    processes.end()


@pytest.fixture
def ready_store(built_store: Callable[[str], Path], store: Path) -> Path:
    """The test's own store, empty but with all its tables: making them takes 70 ms."""
    from tests.support.stores import copy_store

    return copy_store(built_store("empty"), store)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop that asynchronous tests run in, as the service does."""
    return "asyncio"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small JPEG with some structure in it."""
    path = tmp_path_factory.mktemp("photos") / "photo.jpg"
    picture(0).save(path, quality=95)
    return path


@pytest.fixture(autouse=True)
def _logger_as_it_was() -> Iterator[None]:
    """Restore the logger: the command line sets it up, and other tests must not see that."""
    import logging

    logger = logging.getLogger("zsic_index")
    handlers, propagate = logger.handlers[:], logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium that playwright drives."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (extra dev)"
    )
    program = chromium()
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"Chromium does not start here: {error}")
        yield browser
        browser.close()
