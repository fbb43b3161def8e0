"""Access control of the review server: one browser, and no page of another site.

Every program and every page in any browser on this machine can reach the server. A request must
carry a secret that only the first page was given. A page of another site cannot read responses (no
CORS), cannot send JSON (a preflight is needed, and refused), and cannot reach the server under a
name of its own (the Host header is checked).
"""

from __future__ import annotations

import hmac
import re
import secrets
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Any

from zsic_index.web import SECURITY_HEADERS, RefusedError
from zsic_index.web.origins import other_origin

COOKIE = "zsic-review"

_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?", re.ASCII)

HEADERS: Mapping[str, str] = {**SECURITY_HEADERS, "Cache-Control": "no-store"}
"""Headers of every response."""


class Guard:
    """Token and secret of one review server.

    The token in the address is valid for one browser: the first one that sends it gets the secret
    as a cookie. An address in a history or in a list of processes is of no use afterwards.
    """

    def __init__(self, port: int) -> None:
        self.token = secrets.token_urlsafe(24)
        self._secret = secrets.token_urlsafe(32)
        # Browsers share cookies between ports: two reviews must not overwrite each other's.
        self._name = f"{COOKIE}-{port}"
        self._lock = threading.Lock()
        self._is_used = False

    def admit(self, headers: Any, token: str | None = None) -> str | None:
        """Check a request.

        Args:
            headers: its headers, with ``get`` and ``get_all``.
            token: the token in its address, or None.

        Returns:
            The ``Set-Cookie`` header for the first page, else None.

        Raises:
            RefusedError: 421 for another host, 403 for another site, or without secret and token.
        """
        _check_origin(headers, is_first=token is not None)
        if self._has_secret(headers):
            return None
        if token is None:
            raise RefusedError(
                HTTPStatus.FORBIDDEN, "open the address that 'zsic-index review' has printed"
            )
        with self._lock:
            is_right = hmac.compare_digest(token.encode(), self.token.encode())
            if not is_right or self._is_used:
                raise RefusedError(
                    HTTPStatus.FORBIDDEN,
                    "this address was opened before, in another browser, or is an older one: start "
                    "'zsic-index review' again",
                )
            self._is_used = True
        return f"{self._name}={self._secret}; Path=/; HttpOnly; SameSite=Strict"

    def _has_secret(self, headers: Any) -> bool:
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load("; ".join(headers.get_all("Cookie", [])))
        except CookieError:
            return False
        secret = cookies[self._name].value if self._name in cookies else ""
        return hmac.compare_digest(secret.encode(), self._secret.encode())


def _check_origin(headers: Any, *, is_first: bool) -> None:
    hosts = headers.get_all("Host", [])
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise RefusedError(
            HTTPStatus.MISDIRECTED_REQUEST, "this server is 127.0.0.1 and goes by no other name"
        )
    # The first page may be opened from a link, for example in a terminal that is itself a page.
    site = None if is_first else headers.get("Sec-Fetch-Site")
    own = (f"http://{hosts[0]}",)
    if other_origin(headers.get_all("Origin", []), site, own) is not None:
        raise RefusedError(HTTPStatus.FORBIDDEN, "another page may not use this server")
