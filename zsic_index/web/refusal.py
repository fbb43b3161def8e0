"""The error for HTTP requests that a server refuses."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from zsic_index.errors import ZsicError


class RefusedError(ZsicError):
    """A refused request.

    Args:
        status: HTTP status of the response.
        detail: the reason, in one line.
        headers: additional headers of the response.
    """

    def __init__(
        self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers or {}
