"""HTTP requests to a service: retries, and error responses as this package's exceptions."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeVar

import httpx2

from zsic_index.errors import IndexNotFoundError, InputError, ServiceError, ZsicError

TOKEN_VARIABLE = "ZSIC_TOKEN"

TOO_MUCH = frozenset(
    (
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.GATEWAY_TIMEOUT,
    )
)
"""Statuses of requests that were too large or slow, of which one half may succeed."""

_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)

_JSON = "application/json"
_PROBLEM = "application/problem+json"

_NOTHING_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout)

_BACKOFF = 0.2
"""Seconds before the first retry; doubled for each further one."""

_LONGEST_WAIT = 30.0
"""Longest Retry-After, in seconds, that the client waits for itself."""

_CONNECTING = 10.0
"""Timeout for establishing a connection, in seconds."""

_IDLE = 2.0
"""Seconds that an idle connection is kept: less than servers do, so that none of them closes it
during a request."""

Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class ServiceResponse:
    """A response of the service.

    Attributes:
        status: HTTP status.
        document: JSON object in the body.
    """

    status: int
    document: dict[str, Any]

    @property
    def detail(self) -> str:
        """Reason of an error response."""
        return str(self.document.get("detail") or "it does not say why")


class Connection:
    """Connections to one service, for any number of threads; see ``Client`` for the arguments.

    Raises:
        InputError: for an invalid address, token or number.
    """

    def __init__(
        self, url: str, *, token: str | None = None, timeout: float = 60.0, retries: int = 3
    ) -> None:
        if not timeout > 0:
            raise InputError(f"timeout is {timeout}; it must be above 0 seconds")
        if retries < 0:
            raise InputError(f"retries is {retries}; it must be at least 0")
        self.address = _checked_address(url)
        self._retries = retries
        token = _checked_token(token if token is not None else os.environ.get(TOKEN_VARIABLE, ""))
        self._has_token = bool(token)
        self._http = httpx2.Client(
            base_url=self.address,
            headers={"Authorization": f"Bearer {token}"} if token else None,
            timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECTING)),
            limits=httpx2.Limits(keepalive_expiry=_IDLE),
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def request(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        """Return the document of a successful response; see ``send``.

        Raises:
            ZsicError: for an error response; see ``refusal``.
        """
        response = self.send(method, path, **content)
        if response.status != HTTPStatus.OK:
            raise self.refusal(response)
        return response.document

    def send(self, method: str, path: str, **content: Any) -> ServiceResponse:
        """Return the response to a request, error responses included.

        A request is repeated if the service is full or unavailable, after the delay that it asks
        for, and if it could not be connected to.

        Args:
            method: HTTP method.
            path: path below the service's address.
            content: arguments of ``httpx2.Client.request``.

        Raises:
            InputError: for text that cannot be encoded.
            ServiceError: if there is no response, or one of another program.
        """
        for attempt in range(self._retries + 1):
            is_last = attempt == self._retries
            wait = 0.0
            try:
                response = self._http.request(method, path, **content)
            except UnicodeEncodeError as error:
                raise InputError(f"{error.object[:100]!r} cannot be sent: {error.reason}") from None
            except httpx2.RequestError as error:
                if is_last or not isinstance(error, _NOTHING_SENT):
                    raise self._unreachable(error) from error
            else:
                wait = _retry_after(response)
                if response.status_code not in _BUSY or is_last or wait > _LONGEST_WAIT:
                    return self._read(response)
            time.sleep(wait + random.uniform(0.5, 1.0) * _BACKOFF * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def is_ready(self, seconds: float) -> bool:
        """Return whether the service reports within a number of seconds that it is ready.

        Raises:
            ServiceError: if another program answers, or the service has another host name.
        """
        try:
            response = self._http.get("/readyz", timeout=seconds)
        except httpx2.RequestError:
            return False
        if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            return False
        parsed = self._read(response)
        if parsed.status != HTTPStatus.OK:
            raise self.refusal(parsed)
        return parsed.document.get("status") == "ok"

    def refusal(self, response: ServiceResponse) -> ZsicError:
        """Return the exception that stands for an error response."""
        status, detail = response.status, response.detail
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            what = "refuses the token" if self._has_token else "needs a token"
            return ServiceError(
                f"{self.address} {what} ({status}): give one of the service's as token, with "
                f"--token-file, or as {TOKEN_VARIABLE}"
            )
        # A response without another detail is about the path: the address is wrong.
        if status == HTTPStatus.NOT_FOUND and detail != HTTPStatus.NOT_FOUND.phrase:
            return IndexNotFoundError(detail)
        if status in (400, 413, 415, 422):
            return InputError(detail)
        next_step = _NEXT_STEPS.get(status, _NOT_THERE)
        return ServiceError(f"{self.address}: {detail} ({status}): {next_step}")

    def read(self, parse: Callable[[Any], Parsed], document: Any) -> Parsed:
        """Return a parsed part of a response.

        Raises:
            ServiceError: if this version cannot parse it.
        """
        try:
            return parse(document)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ServiceError(
                f"{self.address} sends a response that this version does not know ({error!r}): use "
                "the same version of zsic-index on both sides"
            ) from error

    def _read(self, response: httpx2.Response) -> ServiceResponse:
        """Return a response of the service, or of a proxy that found the request too large."""
        status = response.status_code
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == (_JSON if response.is_success else _PROBLEM):
            document = self.read(httpx2.Response.json, response)
            if isinstance(document, dict):
                return ServiceResponse(status, document)
        if status in TOO_MUCH:
            return ServiceResponse(
                status, {"detail": "a proxy in front of the service rejects so large a request"}
            )
        to = response.headers.get("location")
        raise ServiceError(
            f"{self.address} answers {status} with {kind or 'nothing'}, which is not zsic-index: "
            + (f"it points to {to}; give the address there" if to else _NOT_THERE)
        )

    def _unreachable(self, error: httpx2.RequestError) -> ServiceError:
        if isinstance(error, httpx2.TimeoutException):
            return ServiceError(
                f"{self.address} has not answered in time: see whether the service is there and "
                "how busy it is, or give it a longer timeout"
            )
        reason = " ".join(str(error).split()) or type(error).__name__
        return ServiceError(f"{self.address} cannot be reached: {reason}: {_NOT_THERE}")


_NOT_THERE = "see whether this is the address that 'zsic-index serve' prints, and whether it runs"

_TOO_SLOW = "ask less at a time, or start the service with a longer --deadline"

_NEXT_STEPS: dict[int, str] = {
    HTTPStatus.REQUEST_TIMEOUT: _TOO_SLOW,
    HTTPStatus.TOO_MANY_REQUESTS: "try again later",
    HTTPStatus.INTERNAL_SERVER_ERROR: "please report it with what the log says",
    HTTPStatus.SERVICE_UNAVAILABLE: "try again later",
    HTTPStatus.GATEWAY_TIMEOUT: _TOO_SLOW,
}


def _checked_address(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError) as error:
        raise InputError(f"server {url!r}: is not an address: {error}") from None
    if parsed.userinfo:
        # The message leaves the address out: there may be a password in it.
        raise InputError(f"the address of {parsed.host} has a user in it: give a token instead")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError(f"server {url!r}: give an address such as http://127.0.0.1:8000")
    if parsed.query or parsed.fragment:
        raise InputError(f"server {url!r}: leave out what comes after the path")
    return str(parsed).rstrip("/")


def _checked_token(token: str) -> str:
    token = token.strip()
    if not token.isascii() or not all("!" <= character <= "~" for character in token):
        # The message leaves the token out: it is a secret.
        raise InputError(
            "the token has spaces or other characters that tokens do not have: give one line of "
            "the service's token file"
        )
    return token


def _retry_after(response: httpx2.Response) -> float:
    """Return the seconds that a service asks to wait; 0 if it does not say."""
    header = response.headers.get("retry-after", "").strip()
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0
