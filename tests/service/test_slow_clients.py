"""Clients that send or read slowly, or send endless heads, take nothing from the others."""

from __future__ import annotations

import contextlib
import gzip
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.support.services import Served, serving
from zsic_index import LabelIndex

SCORE = """POST /v1/score HTTP/1.1
Host: localhost
Content-Type: application/json
"""
CHUNKED = f"{SCORE}Transfer-Encoding: chunked\n\n"
EMBEDDING = b'{"embeddings": [[1, 0]]}'


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an index of 1,000 long labels, whose list is a response of 2 MB."""
    path = tmp_path_factory.mktemp("slow") / "store.db"
    labels = [f"label {number} {'x' * 900}" for number in range(1_000)]
    embeddings = [[1.0, number / 1_000] for number in range(1_000)]
    LabelIndex.from_embeddings(labels, embeddings, logit_scale=1.0, name="bare", store=path).close()
    return path


def connect(service: Served, head: str) -> socket.socket:
    """Return a connection on which the start of a request has been sent."""
    link = socket.create_connection((service.host, service.port), timeout=20)
    link.sendall(head.replace("\n", "\r\n").encode())
    return link


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def response_to(link: socket.socket) -> bytes:
    """Read until the service closes the connection."""
    response = b""
    with contextlib.suppress(ConnectionResetError):
        while part := link.recv(1 << 16):
            response += part
    return response


def score(service: Served) -> int:
    """Send a small request; return its status, which must come within four seconds."""
    started = time.monotonic()
    response = httpx2.post(
        f"{service.url}/v1/score",
        content=EMBEDDING,
        headers={"Content-Type": "application/json"},
        timeout=20,
    )
    assert time.monotonic() - started < 4
    return response.status_code


def until(service: Served, metric: str) -> None:
    """Wait until the metrics have a line."""
    end = time.monotonic() + 10
    while f"\n{metric}\n" not in httpx2.get(f"{service.url}/metrics").text:
        assert time.monotonic() < end, f"never {metric}"
        time.sleep(0.01)


# Bodies


@pytest.mark.parametrize("encoding", ["", "Content-Encoding: gzip\n"], ids=["chunked", "gzip"])
def test_bodies_are_charged_as_they_arrive(store: Path, encoding: str) -> None:
    start = gzip.compress(EMBEDDING)[:12] if encoding else b'{"embeddings": '
    with serving(store) as service, ExitStack() as links:
        for _ in range(16):
            head = CHUNKED.replace("\n\n", f"\n{encoding}\n")
            links.enter_context(connect(service, head)).sendall(chunk(start))
        until(service, "zsic_requests_in_progress 16.0")
        assert score(service) == 200


def test_slow_bodies_take_no_place(store: Path) -> None:
    with serving(store, max_requests=2) as service, ExitStack() as links:
        for _ in range(16):
            links.enter_context(connect(service, CHUNKED)).sendall(chunk(b"{"))
        until(service, "zsic_requests_in_progress 16.0")
        assert score(service) == 200


def test_a_body_that_does_not_fit_beside_the_others_is_refused(store: Path) -> None:
    with serving(store, max_pending_bytes=100_000) as service:
        with connect(service, CHUNKED) as link, connect(service, CHUNKED) as other:
            link.sendall(chunk(bytes(60_000)))
            until(service, "zsic_pending_bytes 60000.0")
            assert score(service) == 200
            until(service, "zsic_pending_bytes 60000.0")
            other.sendall(chunk(bytes(60_000)))
            response = response_to(other)
            assert response.startswith(b"HTTP/1.1 429 "), response[:100]
            assert b"60,000 of at most 100,000 bytes" in response
        until(service, "zsic_pending_bytes 0.0")


def test_a_body_has_a_minimum_speed(store: Path) -> None:
    with (
        serving(store, body_grace=0.5, min_body_rate=1_000) as service,
        connect(service, CHUNKED) as slow,
        connect(service, CHUNKED) as fast,
    ):
        started = time.monotonic()
        slow.settimeout(0.1)
        response = b""
        while not response and time.monotonic() < started + 5:
            slow.sendall(chunk(b" " * 10))
            fast.sendall(chunk(b" " * 3_000))
            with contextlib.suppress(TimeoutError):
                response = slow.recv(1 << 16)
        assert 0.4 < time.monotonic() - started < 4
        assert response.startswith(b"HTTP/1.1 408 "), response[:100]
        assert b"send at least 1,000 bytes per second" in response
        fast.sendall(chunk(EMBEDDING) + b"0\r\n\r\n")
        assert fast.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


def test_a_body_that_stops_is_refused(store: Path) -> None:
    with serving(store, body_idle=0.3) as service, connect(service, CHUNKED) as link:
        link.sendall(chunk(bytes(1_000)))
        started = time.monotonic()
        response = response_to(link)
        assert response.startswith(b"HTTP/1.1 408 "), response[:100]
        assert b"nothing of the body has arrived for 0.3 s" in response
        assert time.monotonic() - started < 4


def test_a_body_to_a_path_without_limits_ends_too(store: Path) -> None:
    with serving(store, head_timeout=0.3) as service:
        head = CHUNKED.replace("/v1/score", "/healthz")
        with connect(service, head) as link:
            started = time.monotonic()
            with contextlib.suppress(ConnectionError):
                while time.monotonic() < started + 5:
                    link.sendall(chunk(b"x"))
                    time.sleep(0.05)
            assert time.monotonic() - started < 4


# Heads


@pytest.mark.parametrize(
    "sent",
    [b"", b"\r\n", b"GET /healthz HTTP/1.1\r\nHost: local"],
    ids=["nothing", "an empty line", "half a head"],
)
def test_a_head_has_to_arrive(store: Path, sent: bytes) -> None:
    with serving(store, head_timeout=0.3) as service, connect(service, "") as link:
        started = time.monotonic()
        link.sendall(sent)
        response = response_to(link)
        assert 0.2 < time.monotonic() - started < 4
        assert not response or response.startswith(b"HTTP/1.1 408 ")
        assert bool(response) == bool(sent)
        assert score(service) == 200


def test_the_next_head_has_to_arrive_too(store: Path) -> None:
    head = "GET /healthz HTTP/1.1\nHost: localhost\n\n"
    with serving(store, head_timeout=0.3) as service, connect(service, head) as link:
        assert link.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        started = time.monotonic()
        link.sendall(b"GET /he")
        assert b"HTTP/1.1 408 " in response_to(link)
        assert time.monotonic() - started < 4


@pytest.mark.parametrize(
    "head",
    [
        "GET /healthz HTTP/1.1\nHost: localhost\nX: {}\n\n",
        "GET /healthz?{} HTTP/1.1\nHost: localhost\n\n",
        "GET /healthz HTTP/1.1\nHost: localhost\n{}: x\n\n",
    ],
    ids=["value", "address", "name"],
)
@pytest.mark.parametrize("size", [70_000, 1 << 20])
def test_a_head_has_a_limit(store: Path, head: str, size: int) -> None:
    with serving(store) as service:
        with connect(service, head.format("x" * 60_000)) as link:
            assert link.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        link = socket.create_connection((service.host, service.port), timeout=20)
        with link:
            with contextlib.suppress(ConnectionError):
                link.sendall(head.format("x" * size).replace("\n", "\r\n").encode())
            response = response_to(link)
        assert response.startswith(b"HTTP/1.1 431 "), response[:100]
        assert b"application/problem+json" in response
        assert b"more than 65,536 bytes" in response


@pytest.mark.parametrize("form", ["X: {}\n", "X{}"], ids=["many", "long"])
def test_trailers_have_a_limit(store: Path, form: str) -> None:
    with serving(store) as service, connect(service, CHUNKED) as link:
        link.sendall(chunk(EMBEDDING) + b"0\r\n")
        text = "".join(form.format(f"x{number}" * 500) for number in range(2_000))
        with pytest.raises(ConnectionError):
            link.sendall(text.replace("\n", "\r\n").encode() * 10)
        assert score(service) == 200


# Responses


@contextmanager
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Collect the lines that the service and its server log."""
    server = logging.getLogger("uvicorn")
    server.addHandler(caplog.handler)
    lines: list[str] = []
    try:
        yield lines
    finally:
        server.removeHandler(caplog.handler)
        lines += caplog.text.splitlines()


LABELS = "GET /v1/indexes/bare/labels?limit=1000 HTTP/1.1\nHost: localhost\n\n"


def test_a_deadline_within_a_response_closes_the_connection(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        logged(caplog) as lines,
        serving(store, deadline=1.0) as service,
        connect(service, LABELS * 20),
    ):
        until(service, "zsic_requests_in_progress 1.0")
        until(service, "zsic_requests_in_progress 0.0")
        assert score(service) == 200
    assert len(lines) == 1, "\n".join(lines)
    assert "has not read the response within the deadline of 1 s" in lines[0]


def test_a_client_that_does_not_read_loses_its_connection(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        logged(caplog) as lines,
        serving(store, body_idle=0.5) as service,
        connect(service, LABELS * 20) as link,
    ):
        time.sleep(1.5)
        started = time.monotonic()
        response_to(link)
        assert time.monotonic() - started < 4
    assert len(lines) == 1, "\n".join(lines)
    assert "closing its connection" in lines[0]


def test_a_client_that_reads_slowly_gets_the_whole_response(store: Path) -> None:
    with serving(store, body_idle=0.3) as service:
        whole = httpx2.get(f"{service.url}/v1/indexes/bare/labels?limit=1000").content
        last = LABELS.replace("\n\n", "\nConnection: close\n\n")
        with connect(service, LABELS * 3 + last) as link:
            response = b""
            while part := link.recv(1 << 18):
                response += part
                time.sleep(0.02)
        assert response.count(whole) == 4
