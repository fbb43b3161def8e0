"""Who may talk to a review's server: the browser that was given its address, and no other page.

The server is reached by every program and every page of every browser on this machine. A request
has to come with a secret that only the first page got; a page of another site cannot read answers
(no CORS), cannot send JSON (its type is asked for first), and cannot pass off its own name for this
machine's (the Host header is checked).
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

COOKIE = "zsic-review"

_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?", re.ASCII)

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""What every answer has."""


class RefusedError(Exception):
    """A request that is not answered.

    Attributes:
        status: why, as an HTTP status.
    """

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Guard:
    """Lets requests in.

    The token in the address is good for one browser: the first that shows it is given the secret in
    a cookie. An address that lies about, in a history or a list of processes, opens nothing.
    """

    def __init__(self, port: int) -> None:
        self.token = secrets.token_urlsafe(24)
        self._secret = secrets.token_urlsafe(32)
        # Browsers share cookies between ports: two reviews must not overwrite each other's.
        self._name = f"{COOKIE}-{port}"
        self._lock = threading.Lock()
        self._is_used = False

    def admit(self, headers: Any, token: str | None = None) -> str | None:
        """Let a request in.

        Args:
            headers: its headers, with ``get_all``.
            token: the one in its address; None for none.

        Returns:
            A cookie to be set, or None.

        Raises:
            RefusedError: when it may not come in.
        """
        _check_origin(headers, is_first=token is not None)
        if self._has_secret(headers):
            return None
        if token is None:
            raise RefusedError(
                HTTPStatus.FORBIDDEN, "open the address that 'zsic-index review' has printed"
            )
        with self._lock:
            right = hmac.compare_digest(token.encode(), self.token.encode())
            if not right or self._is_used:
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
        found = cookies[self._name].value if self._name in cookies else ""
        return hmac.compare_digest(found.encode(), self._secret.encode())


def _check_origin(headers: Any, *, is_first: bool) -> None:
    hosts = headers.get_all("Host", [])
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise RefusedError(
            HTTPStatus.MISDIRECTED_REQUEST, "this server is 127.0.0.1 and goes by no other name"
        )
    origins = headers.get_all("Origin", [])
    site = headers.get("Sec-Fetch-Site", "same-origin")
    # The first page may be opened from a link, as in a terminal that is itself a page.
    is_other_site = not is_first and site not in ("same-origin", "none")
    if is_other_site or any(one != f"http://{hosts[0]}" for one in origins):
        raise RefusedError(HTTPStatus.FORBIDDEN, "another page may not use this server")
