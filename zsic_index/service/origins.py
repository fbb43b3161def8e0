"""Pages of other origins: refused, unless they are allowed; then CORS for them."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import Response

from zsic_index.web import RefusedError
from zsic_index.web.origins import other_origin, own_origins

ANY = "*"
"""Stands for all origins."""

_MAX_AGE = 600
"""Seconds for which browsers may keep the response to a preflight request."""


class Origins:
    """Check of the page that has sent a request.

    A page cannot read responses without CORS, but its requests would be computed all the same: a
    form, or ``fetch`` with ``mode: "no-cors"``.

    Args:
        allowed: allowed origins, or ``*`` for all.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = frozenset(origin.lower() for origin in allowed)

    def check(self, method: str, headers: Headers) -> None:
        """Check the origin of a request.

        Raises:
            RefusedError: 403 for a page of an origin that is not allowed.
        """
        origin = _other_origin(headers)
        is_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if origin is None or is_link or self._allows(origin):
            return
        name = "ORIGIN" if origin == "null" else origin[:100]
        raise RefusedError(
            HTTPStatus.FORBIDDEN,
            f"a page of another origin ({origin[:100]}) may not use this service: if it should, "
            f"start the service with --allow-origin {name}",
        )

    def preflight(self, method: str, headers: Headers) -> Response | None:
        """Return the response to a preflight request, or None for another request."""
        if method != "OPTIONS" or "access-control-request-method" not in headers:
            return None
        return Response(
            status_code=HTTPStatus.NO_CONTENT,
            headers={
                "Access-Control-Allow-Methods": "GET, HEAD, POST",
                "Access-Control-Allow-Headers": "Authorization, Content-Type",
                "Access-Control-Max-Age": str(_MAX_AGE),
            },
        )

    def headers_for(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """Return the headers of the response to a request, errors included.

        Tokens are sent in a header of their own, so that no credentials of the browser are needed.
        """
        if not self._allowed:
            return []
        added = [(b"vary", b"Origin")]
        origin = headers.get("origin", "")
        if origin and self._allows(origin):
            added += [
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"access-control-expose-headers", b"Retry-After"),
            ]
        return added

    def _allows(self, origin: str) -> bool:
        return ANY in self._allowed or origin.lower() in self._allowed


def _other_origin(headers: Headers) -> str | None:
    return other_origin(
        headers.getlist("origin"),
        headers.get("sec-fetch-site"),
        own_origins(headers.get("host", "")),
    )
