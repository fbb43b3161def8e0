"""Access control of the service: tokens and allowed host names."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from zsic_index.web import RefusedError

OPEN_PATHS = frozenset(("/", "/healthz", "/readyz", "/openapi.json"))
"""Paths that need no token; neither do those below /page/."""

_PROBE_PATHS = frozenset(("/healthz", "/readyz"))
"""Paths that are also answered under an IP address: orchestrators probe a container by its own.
DNS rebinding needs a name."""


class Access:
    """Checks of tokens and host names.

    Args:
        tokens: valid tokens; without any, requests need none.
        hosts: allowed host names in the Host header, without port; without any, all are allowed.
            They protect against DNS rebinding, by which another site's page reaches this machine.
    """

    def __init__(self, tokens: Sequence[str], hosts: Sequence[str]) -> None:
        self._tokens = [_digest(token) for token in tokens]
        self._hosts = frozenset(host.lower() for host in hosts)

    def check_host(self, path: str, headers: Mapping[str, str]) -> None:
        """Check the Host header of a request to a path.

        Raises:
            RefusedError: 421 for another host.
        """
        host = _host(headers.get("host", ""))
        is_probe = path in _PROBE_PATHS and _is_address(host)
        if self._hosts and host not in self._hosts and not is_probe:
            raise RefusedError(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"this service is not called {headers.get('host', '')[:100]!r}: use one of "
                f"{', '.join(sorted(self._hosts))}, or start it with --allow-host",
            )

    def check_token(self, path: str, headers: Mapping[str, str]) -> None:
        """Check the token of a request.

        Raises:
            RefusedError: 401 for a missing or invalid token.
        """
        if not self._tokens or path in OPEN_PATHS or path.startswith("/page/"):
            return
        scheme, _, sent_token = headers.get("authorization", "").partition(" ")
        digest = _digest(sent_token.strip())
        # Compare with all tokens, so that the time does not depend on which one matches.
        matches = [hmac.compare_digest(digest, token) for token in self._tokens]
        if scheme.lower() != "bearer" or not any(matches):
            raise RefusedError(
                HTTPStatus.UNAUTHORIZED,
                "send one of the service's tokens as 'Authorization: Bearer TOKEN'",
                {"WWW-Authenticate": 'Bearer realm="zsic-index"'},
            )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _host(header: str) -> str:
    """Return a Host header's name without its port and without the dot of an absolute name."""
    name, colon, port = header.rpartition(":")
    return (name if colon and port.isdigit() else header).lower().removesuffix(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
