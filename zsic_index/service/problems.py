"""Error responses: problem details (RFC 9457) for every exception."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from zsic_index.errors import (
    ImageFormatError,
    ImageTooLargeError,
    IndexNotFoundError,
    InputError,
    ModelError,
    StoreError,
    ZsicError,
)
from zsic_index.service.batching import WorkerDiedError
from zsic_index.web import RefusedError

MEDIA_TYPE = "application/problem+json"

RETRY_AFTER = "1"
"""Value of the Retry-After header, in seconds."""

_MAX_NAME = 100
"""Maximum number of characters of a field's name in an error."""

_MAX_MESSAGE = 1_000
"""Maximum number of characters of an error's message."""

_STATUSES: tuple[tuple[type[Exception], HTTPStatus], ...] = (
    (ImageTooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (ImageFormatError, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (IndexNotFoundError, HTTPStatus.NOT_FOUND),
    (InputError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (ModelError, HTTPStatus.SERVICE_UNAVAILABLE),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE),
    (WorkerDiedError, HTTPStatus.SERVICE_UNAVAILABLE),
)
"""HTTP statuses of exceptions; the first match counts."""


def status_of(error: Exception) -> HTTPStatus:
    """Return the HTTP status of an exception; 500 for unexpected ones."""
    if isinstance(error, RefusedError):
        return error.status
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    return HTTPStatus.INTERNAL_SERVER_ERROR


def detail_of(error: Exception) -> str:
    """Return the message of an exception; unexpected ones keep theirs for the log."""
    if isinstance(error, ZsicError):
        return " ".join(str(error).split())
    return f"unexpected {type(error).__name__}; the service's log says more"


def problem(
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """Return an error response.

    Args:
        status: HTTP status.
        detail: reason in one line.
        headers: additional headers.
        more: additional members of the document.
    """
    status = HTTPStatus(status)
    document = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        **more,
    }
    return Response(
        json.dumps(document, ensure_ascii=True), status, dict(headers or {}), media_type=MEDIA_TYPE
    )


def problem_of(error: Exception) -> Response:
    """Return the error response for an exception."""
    return problem(status_of(error), detail_of(error), getattr(error, "headers", None))


def invalid(error: ValidationError | RequestValidationError) -> Response:
    """Return the error response for a request that does not fit its model."""
    errors = [
        {
            "loc": [_shortened(part) for part in entry["loc"]],
            "msg": entry["msg"][:_MAX_MESSAGE],
            "type": entry["type"],
        }
        for entry in _errors(error)
    ]
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"])
    detail = f"{place}: {first['msg']}" if place else str(first["msg"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{detail}{more}", errors=errors[:20])


def _errors(error: ValidationError | RequestValidationError) -> Sequence[Any]:
    if isinstance(error, RequestValidationError):
        return error.errors()
    return error.errors(include_url=False, include_context=False, include_input=False)


def _shortened(part: int | str) -> int | str:
    """Return a part of an error's place; names of unknown fields can be of any length."""
    return part if isinstance(part, int) else part[:_MAX_NAME]


def handle(app: FastAPI) -> None:
    """Register handlers that turn every exception of an application into an error response."""

    @app.exception_handler(ZsicError)
    async def _own(_request: Request, error: ZsicError) -> Response:
        return problem_of(error)

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def _request(_request: Request, error: RequestValidationError) -> Response:
        return invalid(error)

    @app.exception_handler(ValidationError)
    async def _body(_request: Request, error: ValidationError) -> Response:
        return invalid(error)

    @app.exception_handler(Exception)
    async def _any(_request: Request, error: Exception) -> Response:
        return problem_of(error)
