"""A fetcher of images by URL that does not expose the service's own network (SSRF).

A client could name a URL that only this machine reaches: a router, a database, the metadata of a
cloud. Therefore every IP address that a host resolves to is checked, and the connection is made to
a checked IP address without a second DNS look-up, for which a name server could return another
result. A redirect is a new connection and passes the same check.

A machine whose own network has public IP addresses needs a firewall as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import string
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

import httpcore2

from zsic_index import __version__
from zsic_index.errors import ImageError
from zsic_index.service.public_addresses import is_public

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the IP addresses of a host and port; raises OSError if there are none."""

_PORTS = {"http": 80, "https": 443}

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

_TRIES = 3
"""Maximum number of a host's IP addresses to try, one after the other."""

_MESSAGE_URL = 100
"""Maximum number of characters of a URL in messages."""

_HOST = re.compile(r"[a-z0-9_.-]+|[0-9a-f:.]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Limits for fetching one image.

    Attributes:
        max_bytes: maximum size of the body.
        seconds: maximum time from resolving the host to the last byte.
        max_redirects: maximum number of redirects.
    """

    max_bytes: int
    seconds: float
    max_redirects: int = 3


async def look_up(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host in the system's order.

    Raises:
        OSError: if there are none.
        UnicodeError: if a part of the name is empty or too long.
    """
    loop = asyncio.get_running_loop()
    entries = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in entries]


class NotPublicError(Exception):
    """Error for a host that is unknown or not public; the message does not tell which."""


class CheckedBackend(httpcore2.AsyncNetworkBackend):
    """A network backend that connects to allowed IP addresses only.

    Args:
        resolve: returns the IP addresses of a host.
        is_allowed: returns whether an IP address may be connected to.
    """

    def __init__(self, resolve: Resolve, is_allowed: Callable[[str], bool]) -> None:
        self._resolve = resolve
        self._is_allowed = is_allowed
        self._inner = httpcore2.AnyIOBackend()
        self._streams: list[httpcore2.AsyncNetworkStream] = []
        self._is_closed = False

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve a host, check all of its IP addresses, and connect to one of them.

        Raises:
            NotPublicError: before any connection, if the host is unknown or has an IP address that
                is not allowed.
            httpcore2.ConnectError: if none of the first few IP addresses accepts a connection.
            httpcore2.ConnectTimeout: if the last of them exceeds its share of the time.
        """
        addresses = (await self._checked(host, port))[:_TRIES]
        failure: Exception = httpcore2.ConnectError("closed")
        for address in addresses:
            if self._is_closed:
                break
            try:
                stream = await self._inner.connect_tcp(
                    # Numeric, so that httpcore does not resolve it again.
                    address,
                    port,
                    timeout=None if timeout is None else timeout / len(addresses),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                self._streams.append(stream)
                return stream
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Refuse to connect to a Unix socket.

        Raises:
            NotPublicError: always.
        """
        raise NotPublicError

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Close all connections of this backend, and refuse new ones.

        httpcore leaves a connection open if it is cancelled during a TLS handshake.
        """
        self._is_closed = True
        while self._streams:
            await self._streams.pop().aclose()

    async def _checked(self, host: str, port: int) -> list[str]:
        try:
            addresses = list(dict.fromkeys(await self._resolve(host, port)))
        except (OSError, UnicodeError):
            raise NotPublicError from None
        # A host with a public and a private IP address is suspicious: refuse it altogether.
        if not addresses or not all(self._is_allowed(address) for address in addresses):
            raise NotPublicError
        return addresses


@dataclass(frozen=True, slots=True)
class _Target:
    """The target of one request.

    Attributes:
        text: URL as ASCII text.
        url: parsed URL for httpcore.
        host: value of the Host header.
    """

    text: str
    url: httpcore2.URL
    host: str


class Fetcher:
    """A fetcher of images from public hosts, any number at a time.

    No cookies or connections are kept between two images. Proxies and passwords in the environment
    are ignored.

    Args:
        limits: limits for each image.
        resolve: returns the IP addresses of a host.
        is_allowed: returns whether an IP address may be connected to.
    """

    def __init__(
        self,
        limits: FetchLimits,
        *,
        resolve: Resolve = look_up,
        is_allowed: Callable[[str], bool] = is_public,
    ) -> None:
        self._limits = limits
        self._resolve = resolve
        self._is_allowed = is_allowed
        # Created once: reading the certificates takes longer than a typical fetch.
        self._ssl_context = httpcore2.default_ssl_context()
        self._backends: set[CheckedBackend] = set()
        self._is_closed = False

    async def fetch(self, url: str) -> bytes:
        """Return the bytes at a URL; they are not checked to be an image.

        Raises:
            ImageError: for an invalid URL, a host that is not public, a status other than 200, or
                a body over the limits. For hosts that are not public the message is always the
                same, so that it does not reveal whether they exist.
        """
        short_url = _short(url)
        if self._is_closed:
            raise ImageError(
                f"{short_url}: is not fetched: the service is stopping; ask again later"
            )
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await self._follow(url, short_url)
        except ImageError:
            raise
        except NotPublicError:
            raise ImageError(
                f"{short_url}: its host, or one that it redirects to, is unknown or not public; "
                "only public addresses are fetched: send the image itself"
            ) from None
        except TimeoutError:
            raise ImageError(
                f"{short_url}: took longer than the limit of {self._limits.seconds:g} seconds: "
                "send the image itself"
            ) from None
        except Exception as error:
            # httpcore's exceptions have no common base class, and those of AnyIO, ssl and h11 pass
            # through it: a Content-Length of 5,000 digits is a ValueError.
            raise ImageError(
                f"{short_url}: cannot be fetched: {_reason(error)}: check the address, or send the "
                "image itself"
            ) from error

    async def close(self) -> None:
        """Refuse new images; running fetches end with an ImageError."""
        self._is_closed = True
        while self._backends:
            await self._backends.pop().close()

    async def _follow(self, url: str, short_url: str) -> bytes:
        """Return the body at a URL, following redirects."""
        target = _parse(url.strip(), short_url, "the address")
        for _ in range(self._limits.max_redirects + 1):
            async with self._request(target) as response:
                locations = _header(response, b"location")
                if response.status not in _REDIRECTS or not locations:
                    return await self._body(response, short_url)
            target = _parse(locations[0], short_url, "where it redirects to", base=target.text)
        raise ImageError(
            f"{short_url}: redirects more than {self._limits.max_redirects} times, which is the "
            "limit: give the address that it ends at"
        )

    @contextlib.asynccontextmanager
    async def _request(self, target: _Target) -> AsyncIterator[httpcore2.Response]:
        """Send one request over its own connection; yield the response."""
        headers = [
            ("Host", target.host),
            ("User-Agent", f"zsic-index/{__version__}"),
            ("Accept", "image/*, */*;q=0.1"),
            # A few compressed bytes could expand to gigabytes.
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ]
        backend = CheckedBackend(self._resolve, self._is_allowed)
        self._backends.add(backend)
        try:
            async with (
                httpcore2.AsyncHTTPConnection(
                    target.url.origin, ssl_context=self._ssl_context, network_backend=backend
                ) as connection,
                connection.stream(
                    "GET",
                    target.url,
                    headers=headers,
                    # The backend divides this among the host's IP addresses.
                    extensions={"timeout": {"connect": self._limits.seconds}},
                ) as response,
            ):
                yield response
        finally:
            self._backends.discard(backend)
            await backend.close()

    async def _body(self, response: httpcore2.Response, short_url: str) -> bytes:
        """Return the body of a response, within the limits."""
        if response.status != 200:
            raise ImageError(
                f"{short_url}: was answered with status {response.status}, and an image comes with "
                "200: check the address"
            )
        for encoding in _header(response, b"content-encoding"):
            if encoding.strip().lower() not in (b"", b"identity"):
                raise ImageError(
                    f"{short_url}: comes compressed (Content-Encoding), which was not asked for: "
                    "send the image itself"
                )
        limit = self._limits.max_bytes
        too_large = f"{short_url}: is larger than the limit of {limit:,} bytes: scale it down first"
        if any(int(length) > limit for length in _header(response, b"content-length")):
            raise ImageError(too_large)
        # A list of chunks would take many times the limit if they had one byte each.
        body = bytearray()
        async with aclosing(response.aiter_stream()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    raise ImageError(too_large)
        return bytes(body)


def _parse(url: str | bytes, short_url: str, noun: str, *, base: str = "") -> _Target:
    """Parse a URL and check all of it that needs no DNS look-up.

    Args:
        url: URL, or bytes of a Location header.
        short_url: URL of the image in messages.
        noun: name of this URL in messages.
        base: base of a relative URL.

    Raises:
        ImageError: for a URL that cannot be fetched.
    """
    try:
        # Browsers accept spaces and letters of any script, so that servers send them.
        text = urljoin(base, quote(url, safe=string.punctuation))
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ImageError(
            f"{short_url}: {noun} is not a valid address: check its spelling"
        ) from None
    if parts.scheme not in _PORTS:
        raise ImageError(
            f"{short_url}: {noun} does not start with http:// or https://, and only those are "
            "fetched: send the image itself"
        )
    if "@" in parts.netloc:
        raise ImageError(
            f"{short_url}: {noun} has a user name or password before its host; those are not sent: "
            "leave them out, or send the image itself"
        )
    if not _HOST.fullmatch(host):
        raise ImageError(
            f"{short_url}: {noun} has no host in plain letters: check its spelling; a name in "
            "another script is given in its form with xn--"
        )
    bracketed = f"[{host}]" if ":" in host else host
    default = _PORTS[parts.scheme]
    port = port or default
    return _Target(
        text=text,
        url=httpcore2.URL(
            scheme=parts.scheme,
            host=host,
            port=port,
            target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        ),
        host=bracketed if port == default else f"{bracketed}:{port}",
    )


def _header(response: httpcore2.Response, name: bytes) -> list[bytes]:
    return [value for key, value in response.headers if key.lower() == name]


def _reason(error: Exception) -> str:
    """Return why a fetch failed, for messages."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is refused ({cause.verify_message.rstrip('.')})"
    if isinstance(cause, ssl.SSLError):
        return "the TLS handshake with its host failed"
    if isinstance(error, (httpcore2.ConnectError, httpcore2.ConnectTimeout)):
        return "no connection to its host"
    if isinstance(error, (httpcore2.ProtocolError, ValueError)):
        return "the answer is not valid HTTP"
    return "the connection broke off"


def _short(url: str) -> str:
    """Return a URL shortened for messages, without user, password and query."""
    text = re.sub(r"^([a-zA-Z+.-]*:)?(/*)[^/?#]*@", r"\1\2", url.strip())
    text, mark, _ = text.partition("?")
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    if len(text) > _MESSAGE_URL:
        return f"{text[:_MESSAGE_URL]}..."
    return f"{text}?..." if mark else text
