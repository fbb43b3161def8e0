"""Errors as answers: problem details (RFC 9457), whatever went wrong and wherever."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
"""Seconds after which a service that is full is worth another try."""

_STATUSES: tuple[tuple[type[Exception], HTTPStatus], ...] = (
    (ImageTooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (ImageFormatError, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (IndexNotFoundError, HTTPStatus.NOT_FOUND),
    (InputError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (ModelError, HTTPStatus.SERVICE_UNAVAILABLE),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE),
    (WorkerDiedError, HTTPStatus.SERVICE_UNAVAILABLE),
)
"""The first that fits counts."""


def status_of(error: Exception) -> HTTPStatus:
    """Return the status of an error that was raised on purpose, and 500 for any other."""
    if isinstance(error, RefusedError):
        return error.status
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    return HTTPStatus.INTERNAL_SERVER_ERROR


def detail_of(error: Exception) -> str:
    """Return what is said about an error: nothing of what was not raised on purpose."""
    if isinstance(error, ZsicError):
        return " ".join(str(error).split())
    return f"unexpected {type(error).__name__}; the service's log says more"


def problem(
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """Return the answer that says what went wrong.

    Args:
        status: its HTTP status.
        detail: why, in one line.
        headers: what it has besides.
        more: other members of the document.
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
    """Return the answer for an error; see ``problem``."""
    return problem(status_of(error), detail_of(error), getattr(error, "headers", None))


def invalid(error: ValidationError | RequestValidationError) -> Response:
    """Return the answer for a request that does not have the form it must have."""
    found = [
        {"loc": list(one["loc"]), "msg": one["msg"], "type": one["type"]} for one in error.errors()
    ]
    first = found[0]
    where = ".".join(str(part) for part in first["loc"])
    shown = f"{where}: {first['msg']}" if where else str(first["msg"])
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{shown}{more}", errors=found[:20])


def handle(app: FastAPI) -> None:
    """Answer every error of an application so."""

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
