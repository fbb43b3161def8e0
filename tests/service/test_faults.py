"""What must happen when clients, images or workers misbehave; over real sockets."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests.support.libraries import SAMPLES, TAXONOMY
from tests.support.services import Served, serving
from zsic_index import LabelIndex
from zsic_index.encoders.two_towers import TwoTowerEncoder
from zsic_index.service import inputs

DOG = SAMPLES["dog-face"].read_bytes()
APPLE = SAMPLES["red-apple"].read_bytes()
TRUNCATED = APPLE[: len(APPLE) // 2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the index ``things``."""
    folder = tmp_path_factory.mktemp("served")
    labels = folder / "things.txt"
    labels.write_text(TAXONOMY, encoding="utf-8")
    store = folder / "store.db"
    LabelIndex.build(labels, model="builtin:clip", name="things", store=store).close()
    return store


@pytest.fixture(scope="module")
def service(built: Path) -> Iterator[Served]:
    """One service for all tests that only ask; its encoder is the others' too."""
    with serving(built, max_template_sets=1) as found:
        yield found


def asked(service: Served, *images: tuple[str, bytes], **fields: Any) -> httpx2.Response:
    """Send images as a form."""
    files = [("images", image) for image in images]
    return httpx2.post(f"{service.url}/v1/classify", files=files, data=fields, timeout=60)


def detail(response: httpx2.Response) -> str:
    assert response.headers["content-type"] == "application/problem+json", response.text
    found = response.json()
    assert found["status"] == response.status_code
    return str(found["detail"])


def first(response: httpx2.Response, at: int = 0) -> str:
    return str(response.json()["results"][at]["predictions"][0]["label"])


# Images


def test_one_truncated_image_is_refused_and_the_others_are_as_ever(service: Served) -> None:
    good = [(f"{number}.jpg", APPLE if number % 2 else DOG) for number in range(7)]
    alone = asked(service, *good).json()
    mixed = asked(service, *good[:3], ("broken.jpg", TRUNCATED), *good[3:])
    assert mixed.status_code == 200
    found = mixed.json()
    assert (found["done"], found["refused"]) == (7, 1)
    refused = found["results"].pop(3)
    assert refused["image"] == "broken.jpg"
    assert refused["error"]["status"] == 422
    assert "broken.jpg" in refused["error"]["detail"]
    for one, other in zip(alone["results"], found["results"], strict=True):
        assert one["image"] == other["image"]
        for left, right in zip(one["predictions"], other["predictions"], strict=True):
            assert left["label"] == right["label"]
            assert left["probability"] == pytest.approx(right["probability"], abs=1e-6)


def test_an_image_that_is_refused_alone_gives_its_status(service: Served) -> None:
    response = asked(service, ("broken.jpg", TRUNCATED))
    assert response.status_code == 422
    assert "broken.jpg" in detail(response)
    assert response.json()["results"][0]["error"]["status"] == 422


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels in a few bytes of header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1_000_000), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_a_pixel_bomb_is_refused_before_it_is_decoded(service: Served) -> None:
    started = time.monotonic()
    response = asked(service, ("bomb.png", bomb()))
    assert response.status_code == 413
    assert "900,000,000 pixels" in detail(response)
    assert time.monotonic() - started < 1


def test_pixels_have_the_service_own_limit(built: Path) -> None:
    with serving(built, max_pixels=10_000) as service:
        response = asked(service, ("dog.png", DOG))
        assert response.status_code == 413
        assert "the limit is 10,000" in detail(response)


@pytest.mark.parametrize(
    "start",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"SIMPLE  =                    T",
        b"%PDF-1.7\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"",
    ],
    ids=["EPS", "FITS", "PDF", "SVG", "nothing"],
)
def test_what_is_no_allowed_format_is_refused(
    service: Served, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import EpsImagePlugin, FitsImagePlugin

    def opened(*_: Any) -> None:
        raise AssertionError("its parser must not be opened")

    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "_open", opened)
    monkeypatch.setattr(FitsImagePlugin.FitsImageFile, "_open", opened)
    response = asked(service, ("holiday.jpg", start))
    assert response.status_code == 415
    assert "holiday.jpg" in detail(response)


def test_raw_is_not_opened(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.dng import dng

    response = asked(service, ("photo.dng", dng()))
    assert response.status_code == 415


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "P", "RGBA", "1", "CMYK", "I;16"])
def test_every_mode_is_answered_as_at_home(built: Path, service: Served, mode: str) -> None:
    picture = Image.open(io.BytesIO(DOG)).convert("RGB")
    picture = picture.convert("L").convert("I;16") if mode == "I;16" else picture.convert(mode)
    file = io.BytesIO()
    picture.save(file, "TIFF" if mode == "CMYK" else "PNG")
    found = asked(service, ("one", file.getvalue())).json()["results"][0]["predictions"]
    with LabelIndex.open("things", store=built) as index:
        expected = index.classify(file.getvalue())
    assert [one["label"] for one in found] == [one.label for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["probability"] == pytest.approx(other.probability, abs=1e-6)


# Bodies


def raw(service: Served, head: str, *chunks: bytes, wait: float = 10) -> bytes:
    """Send bytes as they are; return the answer's."""
    with socket.create_connection((service.host, service.port), timeout=wait) as link:
        link.sendall(head.replace("\n", "\r\n").encode())
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for chunk in chunks:
                link.sendall(chunk)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while not _is_whole(answer) and (part := link.recv(1 << 16)):
                answer += part
        return answer


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return bool(end and length and len(body) >= int(length[1]))


HEAD = """POST /v1/classify HTTP/1.1
Host: localhost
Content-Type: application/json
Connection: close
"""


def test_a_body_that_says_it_is_too_large_is_not_read(service: Served) -> None:
    answer = raw(service, f"{HEAD}Content-Length: 99999999999\n\n")
    assert answer.startswith(b"HTTP/1.1 413 "), answer[:100]


def test_a_body_without_a_length_is_read_up_to_the_limit(built: Path) -> None:
    with serving(built, max_body=1 << 20) as service:
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        answer = raw(service, f"{HEAD}Transfer-Encoding: chunked\n\n", *[chunk] * 64, b"0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 "), answer[:100]
        assert b"the limit" in answer
        assert first(asked(service, ("dog.png", DOG))) == "dog face"


def test_a_compressed_body_is_counted_as_it_unfolds(built: Path) -> None:
    with serving(built, max_body=1 << 20) as service:
        packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        url = f"{service.url}/v1/classify"
        response = httpx2.post(url, content=gzip.compress(bytes(1 << 28)), headers=packed)
        assert response.status_code == 413
        good = json.dumps({"images": [base64.b64encode(DOG).decode()]}).encode()
        response = httpx2.post(url, content=gzip.compress(good), headers=packed)
        assert first(response) == "dog face"
        response = httpx2.post(url, content=gzip.compress(good)[:-20], headers=packed)
        assert response.status_code == 400
        response = httpx2.post(url, content=b"no gzip at all", headers=packed)
        assert response.status_code == 400
        unknown = packed | {"Content-Encoding": "br"}
        assert httpx2.post(url, content=good, headers=unknown).status_code == 415


def test_very_many_parts_are_refused(service: Served) -> None:
    response = asked(service, *[("dog.png", b"x")] * 1_000)
    assert response.status_code == 413
    response = httpx2.post(
        f"{service.url}/v1/classify",
        files=[("labels", (None, "dog face"))] * 2_000 + [("images", ("dog.png", DOG))],
    )
    assert response.status_code == 413
    images = [base64.b64encode(DOG).decode()] * 65
    response = httpx2.post(f"{service.url}/v1/classify", json={"images": images})
    assert response.status_code == 413
    assert "65 images; the limit is 64" in detail(response)


def test_a_large_image_is_the_same_in_every_body(service: Served) -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(DOG)).convert("RGB").resize((512, 512)).save(file, "BMP")
    expected = asked(service, ("0", file.getvalue())).json()["results"]
    data = base64.b64encode(file.getvalue()).decode()
    lines = "\n".join(data[at : at + 76] for at in range(0, len(data), 76))
    entries = (data, f"data:image/bmp;base64,{data}", lines, {"data": data}, {"data": lines})
    for entry in entries:
        body = json.dumps({"images": [entry]})
        for text in (body, body.replace("/", "\\/"), body.replace("=", "\\u003d")):
            response = httpx2.post(
                f"{service.url}/v1/classify",
                content=text,
                headers={"Content-Type": "application/json"},
            )
            assert response.json()["results"] == expected


def test_a_large_image_that_is_no_base64_is_refused_in_its_slot(service: Served) -> None:
    images = [base64.b64encode(DOG).decode(), "é" * 200_000, "!" * 200_000, {"data": "\\" * 99_999}]
    response = httpx2.post(f"{service.url}/v1/classify", json={"images": images})
    results = response.json()["results"]
    assert "error" not in results[0]
    assert all("not base64" in result["error"]["detail"] for result in results[1:])


def test_a_text_that_is_too_long_is_refused_wherever_it_is(service: Served) -> None:
    image = base64.b64encode(DOG).decode()
    for field, value in (
        ("rank", "a" * 200_000),
        ("labels", ["a" * 200_000]),
        ("floors", {"a" * 200_000: 0.5}),
        ("a" * 200_000, 1),
    ):
        response = httpx2.post(f"{service.url}/v1/classify", json={"images": [image], field: value})
        assert response.status_code == 422
        assert len(response.text) < 2_000


def test_one_file_has_its_limit(built: Path) -> None:
    with serving(built, max_image_bytes=1_000) as service:
        response = asked(service, ("dog.png", DOG))
        assert response.status_code == 413
        assert "dog.png" in detail(response)
        sent = {"images": [base64.b64encode(DOG).decode()]}
        assert httpx2.post(f"{service.url}/v1/classify", json=sent).status_code == 413


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{", 422),
        ("application/json", b"", 422),
        ("application/json", b"\xff\xfe", 422),
        ("application/json", b"[" * 190, 422),
        ("application/json", b"[" * 100_000, 413),
        ("application/json", b'{"images": []}', 422),
        ("application/json", b'{"images": ["AAAA"], "who": 1}', 422),
        ("application/json", b'{"images": ["not base64"]}', 422),
        ("application/json", b'{"images": [{"data": "AAAA", "url": "http://a"}]}', 422),
        ("application/json", b'{"images": ["AAAA"], "top_k": 0}', 422),
        ("application/json", b'{"images": ["AAAA"], "threshold": 1.5}', 422),
        ("multipart/form-data", b"", 400),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n", 400),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422),
        ("text/plain", b"dog", 415),
        ("", b"", 415),
    ],
)
def test_a_body_of_another_form_is_refused(
    service: Served, kind: str, body: bytes, status: int
) -> None:
    response = httpx2.post(
        f"{service.url}/v1/classify", content=body, headers={"Content-Type": kind}
    )
    assert response.status_code == status, response.text
    assert detail(response)


def test_addresses_are_not_fetched_unless_it_is_allowed(service: Served, built: Path) -> None:
    sent = {"images": [{"url": "http://127.0.0.1:9/dog.png"}]}
    response = httpx2.post(f"{service.url}/v1/classify", json=sent)
    assert response.status_code == 422
    assert "addresses are not fetched here" in detail(response)
    came: list[str] = []
    with _counting_server(came) as port, serving(built, allow_urls=True) as fetching:
        sent = {"images": [{"url": f"http://127.0.0.1:{port}/dog.png"}, _inline(DOG)]}
        response = httpx2.post(f"{fetching.url}/v1/classify", json=sent)
        refused, done = response.json()["results"]
        assert refused["error"]["status"] == 422
        assert done["predictions"][0]["label"] == "dog face"
    assert came == []


def _inline(content: bytes) -> dict[str, str]:
    return {"data": "data:image/png;base64," + base64.b64encode(content).decode()}


@contextlib.contextmanager
def _counting_server(came: list[str]) -> Iterator[int]:
    """A server on this machine that notes who connects."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        stop = threading.Event()

        def accept() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    link, address = listening.accept()
                    came.append(str(address))
                    link.close()

        thread = threading.Thread(target=accept)
        thread.start()
        yield int(listening.getsockname()[1])
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/app.py", "/etc/passwd"]
)
@pytest.mark.parametrize("below", ["page", "v1/indexes"])
def test_no_path_leads_out(service: Served, path: str, below: str) -> None:
    answer = raw(
        service, f"GET /{below}/{path} HTTP/1.1\nHost: localhost\nConnection: close\n\n", wait=5
    )
    assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 405 ")), answer[:200]
    assert b"root:" not in answer


@pytest.mark.parametrize(
    "template", ["dog", "{} and {}", "{0.__class__}", "{:999999999}", "a } of {}", "/etc/passwd"]
)
def test_templates_of_requests_are_checked(service: Served, template: str) -> None:
    response = asked(service, ("dog.png", DOG), templates=template)
    assert response.status_code == 422
    assert "template" in detail(response)


def test_templates_of_requests_have_a_limit(built: Path) -> None:
    with serving(built, max_template_sets=1, max_template_prompts=10) as service:
        response = asked(service, ("dog.png", DOG), templates="photo")
        assert response.status_code == 422
        assert "prompts; the limit is 10" in detail(response)


@pytest.mark.parametrize("label", ["{}", '"', "a\0b", "🦊", "\u202elabel", "<script>", "x" * 1_000])
def test_labels_of_requests_are_taken_as_they_are(service: Served, label: str) -> None:
    sent = {"images": [base64.b64encode(DOG).decode()], "labels": ["dog face", label]}
    response = httpx2.post(f"{service.url}/v1/classify", json=sent)
    assert response.status_code == 422
    assert "not in index" in detail(response) or "NUL" in detail(response)


def _row(value: str) -> str:
    return f"[[{', '.join([value] * 192)}]]"


@pytest.mark.parametrize(
    "embeddings",
    [
        *map(_row, ("NaN", "Infinity", "1e39", "0", "null", '"1"')),
        *("[[1, 2]]", "[[1], [1, 2]]", '["AAA"]', "[]", "[[]]"),
    ],
    ids=lambda text: text[:9],
)
def test_embeddings_that_are_none_are_refused(service: Served, embeddings: str) -> None:
    response = httpx2.post(
        f"{service.url}/v1/score",
        content=f'{{"embeddings": {embeddings}}}',
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == 422, response.text
    assert detail(response)


# Load and workers


@contextlib.contextmanager
def _tower(monkeypatch: pytest.MonkeyPatch, instead: Callable[..., Any]) -> Iterator[None]:
    """Put something in the place of the vision tower."""
    with monkeypatch.context() as patched:
        patched.setattr(TwoTowerEncoder, "encode_images", instead)
        yield


def test_more_than_fit_are_told_to_come_again_at_once(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    encode = TwoTowerEncoder.encode_images

    def slow(self: TwoTowerEncoder, images: Any) -> Any:
        release.wait(30)
        return encode(self, images)

    with serving(built, max_requests=4) as service, _tower(monkeypatch, slow):
        answers: list[httpx2.Response] = []
        threads = [
            threading.Thread(target=lambda: answers.append(asked(service, ("dog.png", DOG))))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        _until(lambda: "zsic_requests_in_progress 4.0" in _metrics(service))
        with httpx2.Client(timeout=10) as client:
            client.get(f"{service.url}/healthz")
            started = time.monotonic()
            response = client.post(
                f"{service.url}/v1/classify", files=[("images", ("dog.png", DOG))]
            )
            took = time.monotonic() - started
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        assert "4 requests" in detail(response)
        assert took < 0.5  # 50 ms where the machine is quiet: see the load test
        release.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200] * 4


def test_a_refused_request_s_connection_goes_on(built: Path) -> None:
    with serving(built, max_requests=0) as service, httpx2.Client() as client:
        ports = set()
        for _ in range(5):
            with client.stream(
                "POST", f"{service.url}/v1/classify", files=[("images", ("dog.png", DOG))]
            ) as response:
                assert response.status_code == 429
                assert b"try again" in response.read()
                ports.add(response.extensions["network_stream"].get_extra_info("client_addr"))
        assert len(ports) == 1


def test_bodies_of_all_requests_together_have_a_limit(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(built, max_pending_bytes=1 << 20) as service:
        with socket.create_connection((service.host, service.port)) as first_one:
            head = HEAD.replace("\n", "\r\n") + f"Content-Length: {1 << 20}\r\n\r\n"
            first_one.sendall(head.encode() + bytes((1 << 20) - 1))
            _until(lambda: "zsic_pending_bytes 1.048575e+06" in _metrics(service))
            assert asked(service, ("dog.png", DOG)).status_code == 429
        _until(lambda: "zsic_requests_in_progress 0.0" in _metrics(service))
        assert asked(service, ("dog.png", DOG)).status_code == 200


def test_nothing_is_computed_for_a_client_that_has_gone(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    release = threading.Event()
    encode = TwoTowerEncoder.encode_images

    def counted(self: TwoTowerEncoder, images: Any) -> Any:
        passes.append(len(images))
        release.wait(30)
        return encode(self, images)

    with serving(built, max_batch=1) as service, _tower(monkeypatch, counted):
        busy = threading.Thread(target=lambda: asked(service, ("dog.png", DOG)))
        busy.start()
        _until(lambda: passes == [1])
        body = json.dumps({"images": [base64.b64encode(DOG).decode()]}).encode()
        head = HEAD.replace("\n", "\r\n") + f"Content-Length: {len(body)}\r\n\r\n"
        for _ in range(5):
            with socket.create_connection((service.host, service.port)) as link:
                link.sendall(head.encode() + body)
                _until(lambda: "zsic_requests_in_progress 2.0" in _metrics(service))
                time.sleep(0.05)  # so that the image waits for the tower
            _until(lambda: "zsic_requests_in_progress 1.0" in _metrics(service))
        release.set()
        busy.join()
        assert asked(service, ("apple.jpg", APPLE)).status_code == 200
        assert passes == [1, 1]


def test_a_slow_body_ends_at_the_deadline(built: Path) -> None:
    with serving(built, deadline=0.5) as service:
        answer = raw(service, f"{HEAD}Content-Length: 1000\n\n", b"{")
        assert answer.startswith(b"HTTP/1.1 408 "), answer[:100]
        assert asked(service, ("dog.png", DOG)).status_code == 200


def test_the_deadline_holds_while_a_large_body_is_parsed(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    parse = inputs._parse_json

    def slow(*arguments: Any) -> Any:
        release.wait(30)
        return parse(*arguments)

    body = {"images": ["A" * 100_000]}
    with serving(built, deadline=0.5) as service:
        with monkeypatch.context() as patched:
            patched.setattr(inputs, "_parse_json", slow)
            response = httpx2.post(f"{service.url}/v1/classify", json=body)
            assert response.status_code == 504
            assert httpx2.get(f"{service.url}/healthz").status_code == 200
            release.set()
        assert asked(service, ("dog.png", DOG)).status_code == 200


def test_a_worker_that_hangs(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hangs(_self: TwoTowerEncoder, _images: Any) -> Any:
        release.wait(60)
        raise RuntimeError("released")

    with serving(built, deadline=1.0) as service:
        with _tower(monkeypatch, hangs):
            started = time.monotonic()
            response = asked(service, ("dog.png", DOG))
            assert response.status_code == 504
            assert "deadline of 1 s" in detail(response)
            assert time.monotonic() - started < 5
            ready = httpx2.get(f"{service.url}/readyz", timeout=10)
            assert ready.status_code == 503
            assert "has not answered" in detail(ready)
            release.set()
        assert asked(service, ("dog.png", DOG)).status_code == 200
        _until(lambda: httpx2.get(f"{service.url}/readyz").status_code == 200)


def test_a_worker_that_fails_fails_its_batch_alone(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_self: TwoTowerEncoder, _images: Any) -> Any:
        raise RuntimeError("secret of the house")

    with serving(built) as service:
        with _tower(monkeypatch, fails):
            response = asked(service, ("dog.png", DOG))
        assert response.status_code == 500
        assert "secret" not in response.text
        assert asked(service, ("dog.png", DOG)).status_code == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_dies(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(_self: TwoTowerEncoder, _images: Any) -> Any:
        raise SystemExit

    with serving(built) as service:
        with _tower(monkeypatch, dies):
            response = asked(service, ("dog.png", DOG))
        assert response.status_code == 503
        assert "has ended" in detail(response)
        assert asked(service, ("dog.png", DOG)).status_code == 503
        assert httpx2.get(f"{service.url}/readyz").status_code == 503
        assert httpx2.get(f"{service.url}/healthz").status_code == 503


def test_memory_that_runs_out_halves_the_batch(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zsic_index.encoders.transformers.encoder import TransformersEncoder

    sizes: list[int] = []
    tower = TransformersEncoder._image_tower

    def small(self: TransformersEncoder, **inputs: Any) -> Any:
        size = len(next(iter(inputs.values())))
        sizes.append(size)
        if size > 1:
            raise RuntimeError("CUDA out of memory (in a test: there is no GPU here)")
        return tower(self, **inputs)

    with serving(built, max_wait=0.5) as service:
        with monkeypatch.context() as patched:
            patched.setattr(TransformersEncoder, "_image_tower", small)
            response = asked(service, *[("dog.png", DOG)] * 4)
            assert [first(response, at) for at in range(4)] == ["dog face"] * 4
            assert max(sizes) > 1

            def none(_self: TransformersEncoder, **_inputs: Any) -> Any:
                raise RuntimeError("CUDA out of memory (in a test: there is no GPU here)")

            patched.setattr(TransformersEncoder, "_image_tower", none)
            response = asked(service, ("dog.png", DOG))
            assert response.status_code == 422
            assert "does not fit into the memory" in detail(response)
        assert asked(service, ("dog.png", DOG)).status_code == 200


# Access


def test_a_token_opens(built: Path) -> None:
    tokens = ("a token of some length", "another token, for you")
    with serving(built, tokens=tokens) as service:
        for path in ("/v1/indexes", "/metrics"):
            assert httpx2.get(service.url + path).status_code == 401
            for given in ("", "Bearer", "Bearer x", f"Basic {tokens[0]}", f"Bearer {tokens[0]}x"):
                response = httpx2.get(service.url + path, headers={"Authorization": given})
                assert response.status_code == 401
                assert response.headers["www-authenticate"].startswith("Bearer")
            for token in tokens:
                headers = {"Authorization": f"Bearer {token}"}
                assert httpx2.get(service.url + path, headers=headers).status_code == 200
        for path in ("/", "/healthz", "/readyz", "/page/app.js"):
            assert httpx2.get(service.url + path).status_code == 200


def test_a_name_that_is_not_the_service_own(built: Path) -> None:
    with serving(built, hosts=("localhost", "127.0.0.1")) as service:
        for host in ("localhost", f"127.0.0.1:{service.port}"):
            assert httpx2.get(f"{service.url}/healthz", headers={"Host": host}).status_code == 200
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", ""):
            response = httpx2.get(f"{service.url}/healthz", headers={"Host": host})
            assert response.status_code in (421, 400)


def test_behind_a_proxy_the_same_holds(built: Path) -> None:
    token = "a token of some length"
    with serving(built, root_path="/tags", tokens=(token,), max_body=1_000) as service:
        headers = {"Authorization": f"Bearer {token}"}
        # The proxy has taken /tags away.
        assert httpx2.get(f"{service.url}/v1/indexes").status_code == 401
        assert httpx2.get(f"{service.url}/v1/indexes", headers=headers).status_code == 200
        large = httpx2.post(
            f"{service.url}/v1/classify", files=[("images", ("d", bytes(2_000)))], headers=headers
        )
        assert large.status_code == 413
        assert httpx2.get(f"{service.url}/page/app.js").status_code == 200


# What is said about it


def _metrics(service: Served) -> str:
    return httpx2.get(f"{service.url}/metrics").text


def _until(holds: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def test_an_unknown_index_path_or_method(service: Served) -> None:
    assert "no index 'x' is served" in detail(asked(service, ("d", DOG), index="x"))
    assert httpx2.get(f"{service.url}/v1/indexes/x").status_code == 404
    assert httpx2.get(f"{service.url}/v1/nothing").status_code == 404
    assert httpx2.get(f"{service.url}/v1/classify").status_code == 405
    assert httpx2.get(f"{service.url}/v1/indexes/things/labels?limit=0").status_code == 422
