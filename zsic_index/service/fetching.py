"""Fetching images by address, without becoming a way into the network that the service is in.

Who may name an address may name one that only this machine reaches: a router, a database, the
metadata of a cloud. So what is checked is not the address as it is spelt but every number that its
host resolves to, and the connection goes to a number that was checked: there is no second look-up
in between, for which a name server could have another answer ready. A redirect is a new connection
and passes the same check.

A machine whose own network has public numbers needs a firewall as well: they look like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
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

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a host and a port to the host's addresses as numbers; raises OSError when it has none."""

_PORTS = {"http": 80, "https": 443}

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

_TRIES = 3
"""Addresses of one host that are connected to, one after the other, until one answers."""

_SHOWN = 100
"""Characters of an address that are shown in messages."""

_HOST = re.compile(r"[a-z0-9_.-]+|[0-9a-f:.]+", re.ASCII)

# What the standard library calls global differs from release to release: 3.11 has multicast, 6to4
# and site-local among it. These are IANA's registries of special-purpose addresses, with the few
# left in whose use is global but that no web server has.
_SPECIAL_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared behind carriers' NAT
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # public by its number, but the host of every machine on Azure
        "169.254.0.0/16",  # link-local, and clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that is given out for global unicast.

Not in it: loopback, mapped and compatible IPv4, unique, link- and site-local, and multicast.
"""

_SPECIAL_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries an IPv4 address
        "3fff::/20",  # documentation
    )
)

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""How a network without IPv4 writes IPv4 addresses: they are what counts, in the last 32 bits.

``64:ff9b:1::/48``, which is for local use, is not meant: it is refused whatever it carries.
"""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one image may take.

    Attributes:
        max_bytes: the most bytes of its body.
        seconds: the time for all of it, from resolving its host to the last byte.
        max_redirects: the most redirects on the way to it.
    """

    max_bytes: int
    seconds: float
    max_redirects: int = 3


def is_public(address: str) -> bool:
    """Return whether an address is one of the global internet's, for one machine.

    Args:
        address: IPv4 or IPv6, in numbers. Whatever else it is, or with a zone, it is not public.
    """
    if "%" in address:
        return False
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(number, ipaddress.IPv6Address):
        if number not in _NAT64:
            return number in _GLOBAL_V6 and not any(number in one for one in _SPECIAL_V6)
        number = ipaddress.IPv4Address(int(number) & 0xFFFF_FFFF)
    return not any(number in one for one in _SPECIAL_V4)


async def look_up(host: str, port: int) -> list[str]:
    """Return the addresses that the system has for a host, in its order.

    Raises:
        OSError: when it has none.
        UnicodeError: when a part of the name is empty or too long.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class NotPublicError(Exception):
    """A host is unknown, or not all of its addresses are allowed; it does not say which."""


class CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to allowed addresses only.

    Args:
        resolve: finds the addresses of a host.
        is_allowed: whether an address, in numbers, may be connected to.
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
        """Resolve a host, check all of its addresses, and connect to one of them.

        Raises:
            NotPublicError: when the host is unknown, or one address or more is not allowed; then
                there has been no connection to any.
            httpcore2.ConnectError: when none of the first few addresses answers.
            httpcore2.ConnectTimeout: when the last of them does not in its share of the time.
        """
        addresses = (await self._checked(host, port))[:_TRIES]
        failure: Exception = httpcore2.ConnectError("closed")
        for address in addresses:
            if self._is_closed:
                break
            try:
                stream = await self._inner.connect_tcp(
                    # Numbers: nothing below this looks anything up again.
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
        """Refuse.

        Raises:
            NotPublicError: always.
        """
        raise NotPublicError

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Close every connection that was made here, and make no more.

        httpcore leaves one open when it is cancelled during a TLS handshake.
        """
        self._is_closed = True
        while self._streams:
            await self._streams.pop().aclose()

    async def _checked(self, host: str, port: int) -> list[str]:
        try:
            addresses = list(dict.fromkeys(await self._resolve(host, port)))
        except (OSError, UnicodeError):
            raise NotPublicError from None
        # A name with a public and a private address is one that somebody is playing with.
        if not addresses or not all(self._is_allowed(address) for address in addresses):
            raise NotPublicError
        return addresses


@dataclass(frozen=True, slots=True)
class _Target:
    """What one request is sent to.

    Attributes:
        address: as text, in ASCII.
        url: its parts, for httpcore.
        host: what the Host header says.
    """

    address: str
    url: httpcore2.URL
    host: str


class Fetcher:
    """Fetches images from public addresses; any number at a time.

    Nothing is kept between two images: no cookies and no connections. Proxies and passwords that
    the environment names are not used.

    Args:
        limits: what one image may take.
        resolve: finds the addresses of a host.
        is_allowed: whether an address, in numbers, may be connected to.
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
        # Reading the certificates takes longer than many a fetch: once.
        self._ssl_context = httpcore2.default_ssl_context()
        self._backends: set[CheckedBackend] = set()
        self._is_closed = False

    async def fetch(self, url: str) -> bytes:
        """Return the bytes at an address; whether they are an image is for others to see.

        Raises:
            ImageError: when the address is not one that is fetched, it is not public, or it does
                not give status 200 and a body within the limits. Of an address that is not public,
                the message is the same whatever is there.
        """
        shown = _shown(url)
        if self._is_closed:
            raise ImageError(f"{shown}: is not fetched: the service is stopping; ask again later")
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await self._follow(url, shown)
        except ImageError:
            raise
        except NotPublicError:
            raise ImageError(
                f"{shown}: its host, or one that it redirects to, is unknown or not public; only "
                "public addresses are fetched: send the image itself"
            ) from None
        except TimeoutError:
            raise ImageError(
                f"{shown}: took longer than the limit of {self._limits.seconds:g} seconds: send "
                "the image itself"
            ) from None
        except Exception as error:
            # What httpcore raises has no base of its own, and errors of AnyIO, ssl and h11 come
            # through: a Content-Length of 5,000 digits is a ValueError.
            raise ImageError(
                f"{shown}: cannot be fetched: {_reason(error)}: check the address, or send the "
                "image itself"
            ) from error

    async def close(self) -> None:
        """Fetch nothing more; what is being fetched ends in an ImageError."""
        self._is_closed = True
        while self._backends:
            await self._backends.pop().close()

    async def _follow(self, url: str, shown: str) -> bytes:
        target = _parse(url.strip(), shown, "the address")
        for _ in range(self._limits.max_redirects + 1):
            async with self._request(target) as response:
                locations = _header(response, b"location")
                if response.status not in _REDIRECTS or not locations:
                    return await self._body(response, shown)
            target = _parse(locations[0], shown, "where it redirects to", base=target.address)
        raise ImageError(
            f"{shown}: redirects more than {self._limits.max_redirects} times, which is the "
            "limit: give the address that it ends at"
        )

    @contextlib.asynccontextmanager
    async def _request(self, target: _Target) -> AsyncIterator[httpcore2.Response]:
        """Give the response to one request, over a connection of its own."""
        headers = [
            ("Host", target.host),
            ("User-Agent", f"zsic-index/{__version__}"),
            ("Accept", "image/*, */*;q=0.1"),
            # A few bytes could become gigabytes otherwise.
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
                    # Only for its shares: of several addresses, the first may not take it all.
                    extensions={"timeout": {"connect": self._limits.seconds}},
                ) as response,
            ):
                yield response
        finally:
            self._backends.discard(backend)
            await backend.close()

    async def _body(self, response: httpcore2.Response, shown: str) -> bytes:
        if response.status != 200:
            raise ImageError(
                f"{shown}: was answered with status {response.status}, and an image comes with "
                "200: check the address"
            )
        for encoding in _header(response, b"content-encoding"):
            if encoding.strip().lower() not in (b"", b"identity"):
                raise ImageError(
                    f"{shown}: comes compressed (Content-Encoding), which was not asked for: send "
                    "the image itself"
                )
        limit = self._limits.max_bytes
        too_large = f"{shown}: is larger than the limit of {limit:,} bytes: scale it down first"
        if any(int(length) > limit for length in _header(response, b"content-length")):
            raise ImageError(too_large)
        # Not a list of chunks: of one byte each, they would take many times the limit.
        body = bytearray()
        async with aclosing(response.aiter_stream()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    raise ImageError(too_large)
        return bytes(body)


def _parse(address: str | bytes, shown: str, what: str, *, base: str = "") -> _Target:
    """Check an address as far as that goes without resolving its host.

    Args:
        address: the address, or bytes of a Location header.
        shown: the address that was asked for, for messages.
        what: what to call this one in messages.
        base: the address that a relative one is relative to.

    Raises:
        ImageError: when it is not one that is fetched.
    """
    try:
        # Browsers take spaces and letters of any script, and servers send them.
        text = urljoin(base, quote(address, safe=string.punctuation))
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ImageError(f"{shown}: {what} is not a valid address: check its spelling") from None
    if parts.scheme not in _PORTS:
        raise ImageError(
            f"{shown}: {what} does not start with http:// or https://, and only those are "
            "fetched: send the image itself"
        )
    if "@" in parts.netloc:
        raise ImageError(
            f"{shown}: {what} has a user name or password before its host; those are not sent: "
            "leave them out, or send the image itself"
        )
    if not _HOST.fullmatch(host):
        raise ImageError(
            f"{shown}: {what} has no host in plain letters: check its spelling; a name in another "
            "script is given in its form with xn--"
        )
    bracketed = f"[{host}]" if ":" in host else host
    default = _PORTS[parts.scheme]
    port = port or default
    return _Target(
        address=text,
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
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is refused ({cause.verify_message.rstrip('.')})"
    if isinstance(cause, ssl.SSLError):
        return "its host and this machine do not come to a TLS connection"
    if isinstance(error, (httpcore2.ConnectError, httpcore2.ConnectTimeout)):
        return "no connection to its host"
    if isinstance(error, (httpcore2.ProtocolError, ValueError)):
        return "the answer is not valid HTTP"
    return "the connection broke off"


def _shown(url: str) -> str:
    """Return a short form for messages, without passwords and without what a query may hold."""
    text = re.sub(r"^([a-zA-Z+.-]*:)?(/*)[^/?#]*@", r"\1\2", url.strip())
    text, mark, _ = text.partition("?")
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    if len(text) > _SHOWN:
        return f"{text[:_SHOWN]}..."
    return f"{text}?..." if mark else text
