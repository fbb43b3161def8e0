"""Whatever is sent: no crash, no hang, no status of 500 and above, no memory that grows.

    python -m pytest -m slow -s tests/service/test_fuzz.py

sends 10,000 mutated images and bodies, and lets schemathesis try more.
"""

from __future__ import annotations

import base64
import io
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from tests.support.libraries import SAMPLES, TAXONOMY
from tests.support.processes import Processes
from tests.support.services import started_warm
from zsic_index import LabelIndex

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The address of a service in a process of its own, and the process."""
    folder = tmp_path_factory.mktemp("fuzzed")
    labels = folder / "things.txt"
    labels.write_text(TAXONOMY, encoding="utf-8")
    store = folder / "store.db"
    LabelIndex.build(labels, model="builtin:clip", name="things", store=store).close()
    processes = Processes()
    options = ("--store", str(store), "--max-body", "4")
    process, url = started_warm(processes, folder / "log.txt", *options)
    yield url, process.pid
    assert process.is_alive(), "it has ended"
    processes.end()


@dataclass(frozen=True)
class Sent:
    """A request's path, body and headers."""

    path: str
    body: bytes
    headers: dict[str, str]


def mutated(chance: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Return what may have become of some bytes on their way."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 8, 64))):
        at = chance.randrange(len(data) + 1)
        length = min(chance.choice((1, 4, 64, 4_096)), len(data) - at)
        match chance.randrange(7):
            case 0:
                data[at : at + length] = chance.randbytes(length)
            case 1:
                del data[at:]
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = chance.randbytes(length)
            case 4:
                data[at : at + length] = bytes(length)
            case 5:
                data[at : at + length] = b"\xff" * length
            case _:
                data[at:] = chance.choice(others)[at:]
    return bytes(data)


def requests(seed: int, count: int) -> Iterator[Sent]:
    """Yield requests: half of them with damaged images, half damaged themselves."""
    chance = random.Random(seed)
    images = []
    for name in ("dog-face", "red-apple", "automobile"):
        picture = Image.open(SAMPLES[name]).convert("RGB")
        for format in FORMATS:
            file = io.BytesIO()
            picture.save(file, format)
            images.append(file.getvalue())
    good = [
        json.dumps({"images": [base64.b64encode(images[0]).decode()], "top_k": 2}).encode(),
        json.dumps({"embeddings": [[0.1] * 192], "rank": "depth 0"}).encode(),
        json.dumps({"prompts": ["a dog", "🐕"], "encoding_format": "base64"}).encode(),
        json.dumps({"images": [{"name": "a", "data": "AAAA"}], "labels": ["frog"]}).encode(),
        form([images[1], images[2]], top_k="3", floors="x=0.5", deepest="0.5"),
    ]
    paths = ("/v1/classify", "/v1/score", "/v1/embeddings")
    kinds = ("application/json", FORM, "text/plain", "multipart/form-data", "")
    for number in range(count):
        if number % 2 == 0:
            damaged = mutated(chance, chance.choice(images), images)
            yield Sent("/v1/classify", form([damaged]), {"Content-Type": FORM})
        else:
            body = mutated(chance, chance.choice(good), good)
            headers = {"Content-Type": chance.choice(kinds)}
            if chance.random() < 0.1:
                headers["Content-Encoding"] = chance.choice(("gzip", "deflate", "br", "identity"))
            yield Sent(chance.choice(paths), body, headers)


FORM = "multipart/form-data; boundary=here"


def form(images: list[bytes], **fields: str) -> bytes:
    """Return a form's body."""
    parts = [
        f'--here\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = '--here\r\nContent-Disposition: form-data; name="images"; filename="{}"\r\n\r\n'
    parts += [head.format(at).encode() + one + b"\r\n" for at, one in enumerate(images)]
    return b"".join(parts) + b"--here--\r\n"


def memory(pid: int) -> int:
    """Return the bytes that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4_096


def campaign(url: str, seed: int, count: int) -> Counter[int]:
    """Send requests from eight threads; return how often each status came."""
    with httpx2.Client(timeout=30) as client:

        def send(one: Sent) -> int:
            response = client.post(url + one.path, content=one.body, headers=one.headers)
            assert response.status_code < 500, (response.text, one.headers, one.body[:200])
            if response.status_code != 200:
                assert response.headers["content-type"] == "application/problem+json"
                assert response.json()["detail"]
            return response.status_code

        with ThreadPoolExecutor(8) as pool:
            return Counter(pool.map(send, requests(seed, count)))


def test_a_few_hundred_damaged_requests(command: tuple[str, int]) -> None:
    url, _ = command
    found = campaign(url, seed=1, count=300)
    assert found.total() == 300
    assert found[200] > 10
    assert found[422] > 10
    assert httpx2.get(f"{url}/readyz").status_code == 200


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_ten_thousand_damaged_requests(command: tuple[str, int]) -> None:
    url, pid = command
    campaign(url, seed=2, count=2_000)
    before = memory(pid)
    found = campaign(url, seed=3, count=10_000)
    after = memory(pid)
    print(f"{dict(found)}; memory {before / 2**20:.0f} -> {after / 2**20:.0f} MiB")
    assert found.total() == 10_000
    assert after < 1.05 * before
    assert httpx2.get(f"{url}/readyz").status_code == 200


CHECKS: tuple[str, ...] = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
)
"""All but ``positive_data_acceptance``: no schema says which labels an index has."""


def by_schema(url: str, examples: int, folder: Path) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    options: dict[str, str] = {
        "--max-examples": str(examples),
        "--phases": "examples,coverage,fuzzing",
        "--checks": ",".join(CHECKS),
        "--seed": "1",
        "--request-timeout": "30",
    }
    arguments = [part for option in options.items() for part in option]
    found = subprocess.run(
        [program, "run", f"{url}/openapi.json", "--generation-deterministic", *arguments],
        capture_output=True,
        text=True,
        timeout=1_500,
        cwd=folder,  # it keeps a history there
    )
    print(found.stdout[-3_000:])
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_openapi_document_is_true(command: tuple[str, int], tmp_path: Path) -> None:
    by_schema(command[0], 5, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_the_openapi_document_is_true_of_much_more(
    command: tuple[str, int], tmp_path: Path
) -> None:
    by_schema(command[0], 500, tmp_path)


@pytest.mark.parametrize("make", [lambda: b"[" * 1_000_000, lambda: b"{" * 1_000_000], ids="[{")
def test_nesting_without_end(command: tuple[str, int], make: Callable[[], bytes]) -> None:
    headers = {"Content-Type": "application/json"}
    response = httpx2.post(f"{command[0]}/v1/score", content=make(), headers=headers, timeout=30)
    assert response.status_code == 413
