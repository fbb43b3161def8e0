"""Fetching by address: what is fetched, what is refused, and that refusing connects to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("httpcore2")

import httpcore2

import zsic_index
from zsic_index.errors import ImageError
from zsic_index.service import fetching
from zsic_index.service.fetching import (
    CheckedBackend,
    Fetcher,
    FetchLimits,
    NotPublicError,
)
from zsic_index.service.public_addresses import is_public

# Before conftest puts its own in its place; it is only ever asked for numbers here.
getaddrinfo = socket.getaddrinfo

default_ssl_context = httpcore2.default_ssl_context

LIMITS = FetchLimits(max_bytes=1_000, seconds=5)
HURRY = FetchLimits(max_bytes=1_000, seconds=0.2)
PUBLIC = "93.184.215.14"
NOT_PUBLIC = "unknown or not public"

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def system_certificates() -> ssl.SSLContext:
    return default_ssl_context()


@pytest.fixture(autouse=True)
def _certificates_are_read_once(
    system_certificates: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each fetcher of a test, that would take longer than the test."""
    monkeypatch.setattr(httpcore2, "default_ssl_context", lambda: system_certificates)


@dataclass
class Server:
    """What a server on this machine has seen."""

    port: int = 0
    connections: int = 0
    requests: list[str] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


def says(*parts: bytes, pause: float = 0) -> Answer:
    """Answers with these bytes, after each a pause."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return answer


def response(
    body: bytes = b"", *headers: str, status: str = "200 OK", length: bool = True
) -> bytes:
    own = [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([f"HTTP/1.1 {status}", *own, *headers, "", ""]).encode() + body


def redirect(location: str, *headers: str, status: str = "302 Found") -> Answer:
    return says(response(b"elsewhere", f"Location: {location}", *headers, status=status))


@contextlib.asynccontextmanager
async def serving(
    *answers: Answer, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """Serve on this machine: the first answer to the first request, the last to all from then."""
    server = Server()
    running: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        running.add(task)
        server.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            server.requests.append(head.decode())
            await answers[min(len(server.requests), len(answers)) - 1](writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
            running.discard(task)
            server.over.set()

    listener = await asyncio.start_server(handle, host, 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await listener.wait_closed()


@contextlib.asynccontextmanager
async def fetching_with(
    limits: FetchLimits = LIMITS,
    *,
    resolve: fetching.Resolve | None = None,
    is_allowed: Callable[[str], bool] = lambda address: address == "127.0.0.1",
) -> AsyncIterator[Fetcher]:
    fetcher = Fetcher(limits, resolve=resolve or numbers, is_allowed=is_allowed)
    try:
        yield fetcher
    finally:
        await fetcher.close()


async def numbers(host: str, port: int) -> list[str]:
    """Resolve as the system does, but only what are numbers in some spelling."""
    found = getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [str(address[0]) for *_, address in found]


def named(**hosts: Sequence[str]) -> fetching.Resolve:
    """Resolves NAME.test to its addresses."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return hosts[host.removesuffix(".test")]

    return resolve


async def fetch(
    *answers: Answer, path: str = "/", limits: FetchLimits = LIMITS
) -> tuple[bytes | str, Server]:
    """Fetch from a server with these answers: return the body, or the error's message."""
    async with serving(*answers) as server, fetching_with(limits) as fetcher:
        try:
            return await fetcher.fetch(server.url(path)), server
        except ImageError as error:
            message = str(error)
    assert "\n" not in message
    assert message.startswith("http://127.0.0.1:")
    return message, server


# What is public


PUBLIC_ADDRESSES = (
    "1.1.1.1", PUBLIC, "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0",
    "126.255.255.255", "128.0.0.0", "169.253.255.255", "172.15.255.255", "172.32.0.0",
    "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0",
    "223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "2001:200::1",
    "64:ff9b::1.1.1.1", "64:ff9b::101:101",
)  # fmt: skip

OTHER_ADDRESSES = (
    # IPv4: unspecified, private, CGNAT, loopback, link-local, assignments, documentation, 6to4
    # relays, benchmarks, multicast, reserved, broadcast; first and last
    "0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255",
    "100.100.100.200", "127.0.0.0", "127.0.0.1", "127.255.255.255", "169.254.0.0",
    "169.254.169.254", "169.254.255.255", "172.16.0.0", "172.31.255.255", "192.0.0.0",
    "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.0", "192.168.255.255", "198.18.0.0",
    "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.0", "239.255.255.255",
    "240.0.0.0", "255.255.255.255", "168.63.129.16",
    # IPv6: the same, and unique local, site-local
    "::", "::1", "fc00::1", "fd00:ec2::254", "fe80::1", "febf::1", "fec0::1", "feff::1",
    "ff02::1", "ff0e::1", "100::1", "2001:db8::1", "3fff::1", "5f00::1", "4000::1", "1fff::1",
    "2001:2::1", "2001:10::1", "2001:20::1",
    # IPv4 within IPv6: mapped, compatible, translated, 6to4, Teredo, NAT64
    "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:1.1.1.1", "::127.0.0.1", "::ffff:0:127.0.0.1",
    "2002:7f00:1::1", "2002:a9fe:a9fe::", "2002:101:101::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe",
    "64:ff9b::10.0.0.1", "64:ff9b:1::1.1.1.1", "64:ff9b:1::10.0.0.1", "64:ff9b:0:1::1.1.1.1",
    # Zones
    "fe80::1%eth0", "2606:4700:4700::1111%eth0", "64:ff9b::1.1.1.1%1",
    # No addresses in numbers, or not for sure
    "", "localhost", "2130706433", "0x7f.1", "127.1", "0177.0.0.1", "01.1.1.1", "1.1.1.1 ",
    "1.1.1", "[::1]", "1.1.1.1/32", "1.1.1.1:80", "１.1.1.1",
)  # fmt: skip


def test_what_is_public() -> None:
    assert [address for address in PUBLIC_ADDRESSES if not is_public(address)] == []
    assert [address for address in OTHER_ADDRESSES if is_public(address)] == []


@given(st.ip_addresses())
def test_nothing_is_public_that_the_standard_library_knows_better(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if is_public(str(address)) and address not in ipaddress.ip_network("64:ff9b::/96"):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved


# What is fetched


async def test_an_image_is_fetched_and_asked_for_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        serving(says(response(b"proxied"))) as proxy,
        serving(says(response(b"image"))) as server,
        fetching_with() as fetcher,
    ):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        assert await fetcher.fetch(server.url("/a/b.jpg?size=1&x=%2F#part")) == b"image"
        assert proxy.connections == 0
        lines = server.requests[0].split("\r\n")
        assert lines[0] == "GET /a/b.jpg?size=1&x=%2F HTTP/1.1"
        assert dict(line.split(": ") for line in lines[1:] if line) == {
            "Host": f"127.0.0.1:{server.port}",
            "User-Agent": f"zsic-index/{zsic_index.__version__}",
            "Accept": "image/*, */*;q=0.1",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }


@pytest.mark.parametrize(
    "answer",
    [
        response(b"x" * 1_000),
        response(b"x" * 1_000, length=False),
        response(b"3e8\r\n" + b"x" * 1_000 + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked",
                 length=False),
        response(b"x" * 1_000, "content-encoding: Identity"),
    ],
    ids=["with a length", "until the end", "in chunks", "identity"],
)  # fmt: skip
async def test_bodies_up_to_the_limit(answer: bytes) -> None:
    assert (await fetch(says(answer)))[0] == b"x" * 1_000


async def test_spaces_and_letters_of_any_script_in_a_path() -> None:
    result, server = await fetch(says(response(b"image")), path="/grüße 1.jpg?q=ü ")
    assert result == b"image"
    assert server.requests[0].startswith("GET /gr%C3%BC%C3%9Fe%201.jpg?q=%C3%BC HTTP/1.1\r\n")


@pytest.mark.parametrize("status", ["301 A", "302 A", "303 A", "307 A", "308 A"])
@pytest.mark.parametrize("location", ["/b c/ü.jpg", "../b c/ü.jpg", "//127.0.0.1:{port}/b c/ü.jpg"])
async def test_redirects_are_followed_without_cookies(status: str, location: str) -> None:
    async with serving(says(response(b"image"))) as second:
        there = location.format(port=second.port)
        first_answer = redirect(there, "Set-Cookie: a=b; Path=/", status=status)
        async with (
            serving(first_answer, says(response(b"image"))) as first,
            fetching_with() as fetcher,
        ):
            assert await fetcher.fetch(first.url("/a/a.jpg")) == b"image"
        requests = [*first.requests, *second.requests]
        assert len(requests) == 2
        assert requests[1].startswith("GET /b%20c/%C3%BC.jpg HTTP/1.1\r\n")
        assert "cookie" not in "".join(requests).lower()


async def test_the_default_resolver() -> None:
    async with serving(says(response(b"image"))) as server:
        # Only IPv4 is listened to; a second address is tried when the first one refuses.
        fetcher = Fetcher(LIMITS, is_allowed=lambda address: True)
        assert await fetcher.fetch(server.url(host="localhost")) == b"image"
        with pytest.raises(ImageError, match=NOT_PUBLIC):
            await fetcher.fetch("http://unknown.test/")
        await fetcher.close()


async def test_the_next_address_is_tried(connections: list[object]) -> None:
    async with serving(says(response(b"image"))) as server:
        addresses = named(two=["127.0.0.9", "127.0.0.9", "127.0.0.1"])
        async with fetching_with(resolve=addresses, is_allowed=lambda _: True) as fetcher:
            assert await fetcher.fetch(server.url(host="two.test")) == b"image"
        assert connections == [("127.0.0.9", server.port)]
        assert f"Host: two.test:{server.port}\r\n" in server.requests[0]


async def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect = httpcore2.AnyIOBackend.connect_tcp

    async def connect_tcp(
        self: httpcore2.AnyIOBackend, host: str, port: int, timeout: float, **rest: Any
    ) -> httpcore2.AsyncNetworkStream:
        if host == "127.0.0.9":
            await asyncio.sleep(timeout)
            raise httpcore2.ConnectTimeout
        return await connect(self, host, port, timeout, **rest)

    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", connect_tcp)

    async with serving(says(response(b"image"))) as server:
        addresses = named(two=["127.0.0.9", "127.0.0.1"])
        limits = FetchLimits(max_bytes=1_000, seconds=1)
        async with fetching_with(limits, resolve=addresses, is_allowed=lambda _: True) as fetcher:
            assert await fetcher.fetch(server.url(host="two.test")) == b"image"


# What is not public


async def refused(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(ImageError) as caught:
        await fetcher.fetch(url)
    return str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f.1", "0x7f000001", "017700000001", "0177.0.0.1",
        "0.0.0.0", "0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
        "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "LOCALHOST", "127.0.0.1.", "[fe80::1]",
        "169.254.169.254", "10.0.0.1", "unknown.test", "-", "a..b", f"{'a' * 70}.test",
    ],
)  # fmt: skip
async def test_what_is_not_public_is_not_connected_to(host: str, connections: list[object]) -> None:
    async def resolve(name: str, port: int) -> list[str]:
        return ["127.0.0.1"] if name == "localhost" else await numbers(name, port)

    async with serving(says(response(b"secret"))) as server:
        fetcher = Fetcher(LIMITS, resolve=resolve)
        message = await refused(fetcher, server.url(host=host))
        await fetcher.close()
        assert server.connections == 0
        assert connections == []
        shown = server.url(host=host)
        shown = shown if len(shown) <= 100 else f"{shown[:100]}..."
        assert message == (
            f"{shown}: its host, or one that it redirects to, is unknown or not public; only "
            "public addresses are fetched: send the image itself"
        )


async def test_a_refusal_does_not_tell_whether_somebody_listens() -> None:
    async with serving(says(response(b"secret"))) as server:
        heard = await refused(Fetcher(LIMITS), server.url())
    assert await refused(Fetcher(LIMITS), server.url()) == heard


async def test_one_private_address_among_public_ones_is_enough(connections: list[object]) -> None:
    async with serving(says(response(b"secret"))) as server:
        resolve = named(
            last=[PUBLIC, "127.0.0.1"], first=["127.0.0.1", PUBLIC],
            late=[PUBLIC, "1.1.1.1", "8.8.8.8", "9.9.9.9", "::1"], none=[],
        )  # fmt: skip
        fetcher = Fetcher(LIMITS, resolve=resolve)
        for name in ("last", "first", "late", "none"):
            message = await refused(fetcher, server.url(host=f"{name}.test"))
            assert NOT_PUBLIC in message
        assert server.connections == 0
        assert connections == []


async def test_a_name_server_that_changes_its_answer(
    connections: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A second look-up by anything below would find the private server, and be let through to it.
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda _host, *rest, **more: getaddrinfo("127.0.0.1", *rest, **more)
    )

    answers = [[PUBLIC], ["127.0.0.1"]]
    asked = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), 2) - 1]

    async with serving(says(response(b"secret"))) as server:
        fetcher = Fetcher(LIMITS, resolve=resolve)
        # Conftest stands in the way of the public address.
        message = await refused(fetcher, server.url(host="rebinding.test"))
        assert "no connection to its host" in message
        assert asked == ["rebinding.test"]
        assert connections == [(PUBLIC, server.port)]
        # From now on, the answer is the private one.
        message = await refused(fetcher, server.url(host="rebinding.test"))
        assert NOT_PUBLIC in message
        assert connections == [(PUBLIC, server.port)]
        assert server.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.2", "2130706434", "inside.test"])
async def test_a_redirect_to_what_is_not_public(host: str, connections: list[object]) -> None:
    async def resolve(name: str, port: int) -> list[str]:
        return ["127.0.0.2"] if name == "inside.test" else await numbers(name, port)

    async with (
        serving(says(response(b"secret")), host="127.0.0.2") as inside,
        serving(redirect(inside.url(host=host))) as server,
        fetching_with(resolve=resolve) as fetcher,
    ):
        message = await refused(fetcher, server.url("/a"))
        assert message.startswith(f"{server.url('/a')}: its host, or one that it redirects")
        assert server.connections == 1
        assert inside.connections == 0
        assert connections == []


async def test_a_redirect_to_a_name_that_changes_its_answer() -> None:
    asked = 0

    async def resolve(host: str, port: int) -> list[str]:
        nonlocal asked
        asked += 1
        return ["127.0.0.1"] if asked == 1 else ["127.0.0.2"]

    async with serving(redirect("/again"), says(response(b"image"))) as server:
        async with fetching_with(resolve=resolve) as fetcher:
            assert NOT_PUBLIC in await refused(fetcher, server.url(host="rebinding.test"))
        assert (asked, server.connections) == (2, 1)


async def test_unix_sockets_are_not_connected_to() -> None:
    backend = CheckedBackend(numbers, lambda address: True)
    with pytest.raises(NotPublicError):
        await backend.connect_unix_socket("/run/docker.sock")


# Addresses that are none


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "does not start with http"),
        ("cat.jpg", "does not start with http"),
        ("//127.0.0.1/cat.jpg", "does not start with http"),
        ("ftp://127.0.0.1/cat.jpg", "does not start with http"),
        ("file:///etc/passwd", "does not start with http"),
        ("data:image/png;base64,AAAA", "does not start with http"),
        ("ws://127.0.0.1/", "does not start with http"),
        ("http://", "no host"),
        ("http:/cat.jpg", "no host"),
        ("http:///cat.jpg", "no host"),
        ("http://:80/", "no host"),
        ("http:\\\\127.0.0.1\\", "no host"),
        ("http://bücher.example/", "xn--"),
        ("http://１２７.0.0.1/", "xn--"),
        ("http://127%2e0.0.1/", "xn--"),
        ("http://[fe80::1%25eth0]/", "xn--"),
        ("http://127.0.0.1\r\nX: y/", "not a valid address"),
        ("http://127.0.0.1\r\nX/", "xn--"),
        ("http://127.0.0.1:port/", "not a valid address"),
        ("http://127.0.0.1:65536/", "not a valid address"),
        ("http://[::1/", "not a valid address"),
        ("http://127.0.0.1/\ud800", "not a valid address"),
        ("http://user:pass@127.0.0.1/", "user name or password"),
        ("http://user@127.0.0.1/", "user name or password"),
        ("http://@127.0.0.1/", "user name or password"),
        ("http://example.org\\@127.0.0.1/", "user name or password"),
    ],
)
async def test_bad_addresses(url: str, message: str) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise AssertionError(host)

    text = await refused(Fetcher(LIMITS, resolve=resolve, is_allowed=lambda _: True), url)
    assert message in text
    assert "\n" not in text
    assert "pass@" not in text
    assert "user:" not in text


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("ftp://127.0.0.1/", "does not start with http"),
        ("file:///etc/passwd", "does not start with http"),
        ("http://user:pass@127.0.0.1/", "user name or password"),
        ("http://[::1/", "not a valid address"),
        ("http://bücher.example/", "xn--"),
    ],
)
async def test_redirects_to_bad_addresses(location: str, message: str) -> None:
    result, server = await fetch(redirect(location))
    assert isinstance(result, str)
    assert ": where it redirects to " in result
    assert message in result
    assert "pass" not in result.replace("password", "")
    assert server.connections == 1


async def test_messages_show_an_address_in_short_and_keep_its_secrets() -> None:
    fetcher = Fetcher(LIMITS)
    message = await refused(fetcher, f"http://127.0.0.1/{'a' * 200}")
    assert message.startswith(f"http://127.0.0.1/{'a' * 83}...: its host")
    message = await refused(fetcher, "http://127.0.0.1/@a/b.jpg?signature=secret")
    assert message.startswith("http://127.0.0.1/@a/b.jpg?...: its host")


# Answers that are none


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (response(status="404 Not Found"), "status 404"),
        (response(status="500 Oops"), "status 500"),
        (response(status="204 No Content", length=False), "status 204"),
        (response(b"part", status="206 Partial Content"), "status 206"),
        (response(status="304 Not Modified"), "status 304"),
        (response(status="302 Found"), "status 302"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
         "not valid HTTP"),
        (response(b"x", "Content-Encoding: gzip"), "Content-Encoding"),
        (response(b"x", "Content-Encoding: identity", "Content-Encoding: br"), "Content-Encoding"),
        (response(b"", "Content-Length: 1001", length=False), "limit of 1,000 bytes: scale"),
        (response(b"x" * 1_001, length=False), "limit of 1,000 bytes: scale"),
        (response(b"3e9\r\n" + b"x" * 1_001 + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked",
                  length=False), "limit of 1,000 bytes: scale"),
        (response(b"x", "Content-Length: 2", length=False), "not valid HTTP"),
        (response(b"x", "Content-Length: 2"), "not valid HTTP"),
        (response(b"x", "Content-Length: -1", length=False), "not valid HTTP"),
        (response(b"x", f"Content-Length: {'9' * 5_000}", length=False), "not valid HTTP"),
        (response(b"5\r\nx", "Transfer-Encoding: chunked", length=False), "not valid HTTP"),
        (response(b"", f"A: {'a' * 200_000}"), "not valid HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "not valid HTTP"),
        (b"", "not valid HTTP"),
    ],
)  # fmt: skip
async def test_bad_answers(answer: bytes, message: str) -> None:
    result, server = await fetch(says(answer), path="/a.jpg?b")
    assert isinstance(result, str)
    assert result.startswith(f"{server.url('/a.jpg?...')}: ")
    assert message in result
    assert re.search(r"check|send|scale", result)


async def test_a_body_is_cut_off_where_it_gets_too_large() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(response(length=False))
        while True:
            writer.write(b"x" * 100)
            await writer.drain()
            await asyncio.sleep(0)

    async with serving(endless) as server, fetching_with() as fetcher:
        assert "larger than the limit" in await refused(fetcher, server.url())
        await asyncio.wait_for(server.over.wait(), 5)


async def test_nobody_listens() -> None:
    async with serving(says()) as server:
        pass
    async with fetching_with() as fetcher:
        assert "no connection to its host" in await refused(fetcher, server.url())


@pytest.mark.parametrize("redirects", [0, 3])
async def test_redirects_have_an_end(redirects: int) -> None:
    limits = FetchLimits(max_bytes=1_000, seconds=5, max_redirects=redirects)
    result, server = await fetch(redirect("/"), limits=limits)
    assert isinstance(result, str)
    assert f"redirects more than {redirects} times" in result
    assert server.connections == redirects + 1


# Time


SLOW: dict[str, Answer] = {
    "no answer": says(b"", pause=30),
    "half a header": says(b"HTTP/1.1 200 OK\r\nContent-", pause=30),
    "endless informational answers": says(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 600, pause=0.05),
    "no body": says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", pause=30),
    "a dripping body": says(response(length=False), *[b"x"] * 600, pause=0.05),
    "slow redirects": says(b"", response(b"", "Location: /", status="302 Found"), pause=0.08),
}


@pytest.mark.parametrize("name", SLOW)
async def test_slow_servers(name: str) -> None:
    loop = asyncio.get_running_loop()
    async with serving(SLOW[name]) as server, fetching_with(HURRY) as fetcher:
        start = loop.time()
        message = await refused(fetcher, server.url("/a"))
        assert loop.time() - start < 2
        assert message == (
            f"{server.url('/a')}: took longer than the limit of 0.2 seconds: send the image itself"
        )


async def test_a_slow_name_server() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        await asyncio.sleep(30)
        return []

    async with fetching_with(HURRY, resolve=resolve) as fetcher:
        assert "limit of 0.2 seconds" in await refused(fetcher, "http://slow.test/")


async def test_a_tls_handshake_that_never_ends_leaves_no_connection() -> None:
    # It reads what it takes for a request and has no answer.
    async with serving(says(b"", pause=30)) as server, fetching_with(HURRY) as fetcher:
        message = await refused(fetcher, server.url(scheme="https"))
        assert "limit of 0.2 seconds" in message
        await asyncio.wait_for(server.over.wait(), 5)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_cancellation_goes_through_and_leaves_no_connection(scheme: str) -> None:
    answer = says(response(length=False), *[b"x"] * 600, pause=0.05)
    async with serving(answer) as server, fetching_with() as fetcher:
        task = asyncio.create_task(fetcher.fetch(server.url(scheme=scheme)))
        while not server.connections:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.over.wait(), 5)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_closing_ends_what_is_being_fetched(scheme: str) -> None:
    answer = says(response(length=False), *[b"x"] * 600, pause=0.05)
    async with serving(answer) as server, fetching_with() as fetcher:
        task = asyncio.create_task(refused(fetcher, server.url(scheme=scheme)))
        while not server.connections:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        await fetcher.close()
        assert "the connection broke off" in await asyncio.wait_for(task, 5)
        assert "is stopping" in await refused(fetcher, server.url())
        assert server.connections == 1


async def test_nothing_is_connected_to_after_closing() -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def resolve(host: str, port: int) -> list[str]:
        asked.set()
        await closed.wait()
        return ["127.0.0.1"]

    async with serving(says(response(b"image"))) as server:
        async with fetching_with(resolve=resolve) as fetcher:
            task = asyncio.create_task(refused(fetcher, server.url()))
            await asked.wait()
            await fetcher.close()
            closed.set()
            assert "no connection to its host" in await task
        assert server.connections == 0


async def test_many_at_a_time() -> None:
    async with serving(says(b"", response(b"image"), pause=0.05)) as server:
        async with fetching_with() as fetcher:
            found = await asyncio.gather(*(fetcher.fetch(server.url()) for _ in range(20)))
        assert found == [b"image"] * 20


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for images.test, signed by itself, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    path = tmp_path_factory.mktemp("tls") / "images.pem"
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-subj", "/CN=images.test", "-addext", "subjectAltName=DNS:images.test", "-days", "2",
        "-keyout", "-", "-out", "-",
    ]  # fmt: skip
    path.write_bytes(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    return path


async def fetch_by_tls(certificate: Path, host: str) -> tuple[bytes | str, Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    resolve = named(images=["127.0.0.1"], other=["127.0.0.1"])
    async with serving(says(response(b"image")), tls=context) as server:
        server.names = names
        async with fetching_with(resolve=resolve) as fetcher:
            try:
                return await fetcher.fetch(server.url("/", host, "https")), server
            except ImageError as error:
                return str(error), server


async def test_tls_names_and_checks_the_host(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(httpcore2, "default_ssl_context", default_ssl_context)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    result, server = await fetch_by_tls(certificate, "images.test")
    assert result == b"image"
    assert server.names == ["images.test"]
    result, server = await fetch_by_tls(certificate, "other.test")
    assert isinstance(result, str)
    assert "its certificate is refused (Hostname mismatch" in result
    assert (server.names, server.requests) == (["other.test"], [])


async def test_a_certificate_that_nobody_trusts(certificate: Path) -> None:
    result, server = await fetch_by_tls(certificate, "images.test")
    assert isinstance(result, str)
    assert "its certificate is refused (self" in result
    assert server.requests == []


async def test_a_host_that_does_not_speak_tls() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"image"))
        writer.close()
        await writer.wait_closed()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener, fetching_with() as fetcher:
        message = await refused(fetcher, f"https://127.0.0.1:{port}/")
        assert "the TLS handshake with its host failed" in message
