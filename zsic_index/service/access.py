"""Who may ask: those with a token, where there are any, and those who call the service by name."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from zsic_index.web import RefusedError

OPEN_PATHS = frozenset(("/", "/healthz", "/readyz", "/openapi.json"))
"""Paths that need no token, as do those below /page/."""


class Access:
    """Lets requests in.

    Args:
        tokens: any of them opens; none at all is open to everyone.
        hosts: names that the Host header may have, without their port; any when there are none.
            Without this, a page of another site could pass its own name off for this machine's.
    """

    def __init__(self, tokens: Sequence[str], hosts: Sequence[str]) -> None:
        self._tokens = [_digest(token) for token in tokens]
        self._hosts = frozenset(host.lower() for host in hosts)

    def check(self, path: str, headers: Mapping[str, str]) -> None:
        """Let a request pass.

        Raises:
            RefusedError: 421 for another host, 401 without a token or with a wrong one.
        """
        if self._hosts and _host(headers.get("host", "")) not in self._hosts:
            raise RefusedError(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"this service is not called {headers.get('host', '')[:100]!r}: use one of "
                f"{', '.join(sorted(self._hosts))}, or start it with --allow-host",
            )
        if not self._tokens or path in OPEN_PATHS or path.startswith("/page/"):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        digest = _digest(given.strip())
        # All are compared, whichever fits: how long it takes says nothing.
        fits = [hmac.compare_digest(digest, token) for token in self._tokens]
        if scheme.lower() != "bearer" or not any(fits):
            raise RefusedError(
                HTTPStatus.UNAUTHORIZED,
                "send one of the service's tokens as 'Authorization: Bearer TOKEN'",
                {"WWW-Authenticate": 'Bearer realm="zsic-index"'},
            )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _host(header: str) -> str:
    """Return a Host header's name without its port."""
    name, colon, port = header.rpartition(":")
    return (name if colon and port.isdigit() else header).lower()
