"""No body within the limits costs more than 1 s of CPU or 200 MB before it is accepted or refused.

    python -m pytest -m slow -s tests/service/test_hostile_bodies.py

tries several sizes of a body for every property of the OpenAPI document.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.support.hostile import HostileBody, form_bodies, json_bodies, packed_bodies
from tests.support.paths import ROOT
from tests.support.services import ended, started
from tests.tools.hostile_bodies import build_bare
from tests.tools.openapi_document import openapi_document

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="reads Linux's /proc"
)


def measure_costs(size: float, pattern: str) -> None:
    """Measure bodies in a process of their own."""
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.tools.hostile_bodies",
            f"--size={size}",
            "--pattern",
            pattern,
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout


def test_the_dearest_bodies_at_full_size() -> None:
    names = ("gzip: a list of numbers", "numbers and texts", "images and texts", "as many numbers")
    measure_costs(63.9, "|".join((*names, "form: (fields with|headers of|one file of line)")))


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("size", [63.9, 30, 15, 2, 0.06])
def test_bodies_for_every_property(size: float) -> None:
    measure_costs(size, "")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bare(tmp_path_factory.mktemp("hostile") / "store.db")


@pytest.fixture(scope="module")
def url(store: Path) -> Iterator[str]:
    """The address of a service in a process of its own."""
    process, url = started("--store", str(store))
    yield url
    ended(process)


def select(store: Path, name: str) -> HostileBody:
    bodies = (*packed_bodies(), *form_bodies(), *json_bodies(openapi_document(store)))
    return next(body for body in bodies if body.name == name)


def check_latency(store: Path, url: str, name: str, size: int) -> None:
    """Check that another client is answered while a body is handled."""
    body = select(store, name)

    def send() -> httpx2.Response:
        return httpx2.post(
            url + body.path, content=body.pieces(size), headers=body.headers, timeout=60
        )

    latencies = []
    with ThreadPoolExecutor(1) as pool, httpx2.Client(timeout=60) as client:
        client.get(f"{url}/healthz")
        response = pool.submit(send)
        while not response.done() or not latencies:
            before = time.monotonic()
            assert client.get(f"{url}/healthz").status_code == 200
            latencies.append(time.monotonic() - before)
            time.sleep(0.01)
        assert response.result().status_code in (400, 413, 422)
    print(f"{name}: {max(latencies):.3f} s")
    assert max(latencies) < 0.5


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("/v1/classify gzip: a list of numbers", 1 << 20),
        ("/v1/score: numbers and texts", 63 << 20),
    ],
)
def test_another_client_is_answered_meanwhile(store: Path, url: str, name: str, size: int) -> None:
    check_latency(store, url, name, size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("/v1/classify gzip: a list of numbers", 63 << 20),
        ("/v1/classify gzip: zeros", 1 << 28),
        ("/v1/classify: images and texts", 63 << 20),
        ("/v1/classify form: files", 63 << 20),
        ("/v1/classify form: large files", 60 << 20),
    ],
)
def test_another_client_is_answered_beside_any_large_body(
    store: Path, url: str, name: str, size: int
) -> None:
    check_latency(store, url, name, size)
