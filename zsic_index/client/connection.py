"""Requests to a service: what is tried again, and its refusals as the project's own errors."""

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
"""Statuses that say nothing against the half of a request."""

_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)

_JSON = "application/json"
_PROBLEM = "application/problem+json"

_NOTHING_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout)

_BACKOFF = 0.2
"""Seconds before a first retry, twice as many before each one after it."""

_LONGEST_WAIT = 30.0
"""Seconds that a service may ask to be left alone for; more is for the caller to wait."""

_CONNECTING = 10.0
"""Seconds that a connection may take."""

_IDLE = 2.0
"""Seconds that a connection is kept: less than servers do, so that none is closed on a request."""

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class ServiceResponse:
    """What a service has answered.

    Attributes:
        status: its HTTP status.
        document: its JSON object.
    """

    status: int
    document: dict[str, Any]

    @property
    def detail(self) -> str:
        """Why it was refused."""
        return str(self.document.get("detail") or "it does not say why")


class Connection:
    """Connections to one service, for any number of threads.

    Args:
        url: its address.
        token: what opens it; by default what is in ``ZSIC_TOKEN``.
        timeout: seconds without any news from it.
        retries: how often a request is sent again.

    Raises:
        InputError: for what is no address, token or number of these.
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

    def ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        """Return the document that answers a request; see ``send``.

        Raises:
            ZsicError: when it was refused; see ``refusal``.
        """
        answer = self.send(method, path, **content)
        if answer.status != HTTPStatus.OK:
            raise self.refusal(answer)
        return answer.document

    def send(self, method: str, path: str, **content: Any) -> ServiceResponse:
        """Return what a service answers, a refusal as well.

        A request is sent again when the service is full or not there for now, after the time that
        it asks for, and when nothing of it was sent.

        Args:
            method: of HTTP.
            path: below the service's address.
            content: what httpx takes.

        Raises:
            InputError: for text that cannot be sent.
            ServiceError: when there is no answer, or none of zsic-index.
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
        """Return whether the service answers within some seconds that it is ready.

        Raises:
            ServiceError: when what answers is not zsic-index, or goes by another name.
        """
        try:
            response = self._http.get("/readyz", timeout=seconds)
        except httpx2.RequestError:
            return False
        if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            return False
        answer = self._read(response)
        if answer.status != HTTPStatus.OK:
            raise self.refusal(answer)
        return answer.document.get("status") == "ok"

    def refusal(self, answer: ServiceResponse) -> ZsicError:
        """Return the error that says why a request was refused as a whole."""
        status, detail = answer.status, answer.detail
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            what = "refuses the token" if self._has_token else "needs a token"
            return ServiceError(
                f"{self.address} {what} ({status}): give one of the service's as token, with "
                f"--token-file, or as {TOKEN_VARIABLE}"
            )
        # A path that is not there has nothing else to say.
        if status == HTTPStatus.NOT_FOUND and detail != HTTPStatus.NOT_FOUND.phrase:
            return IndexNotFoundError(detail)
        if status in (400, 413, 415, 422):
            return InputError(detail)
        next_step = _NEXT_STEPS.get(status, _NOT_THERE)
        return ServiceError(f"{self.address}: {detail} ({status}): {next_step}")

    def read(self, make: Callable[[Any], Read], document: Any) -> Read:
        """Return what is made of a part of an answer.

        Raises:
            ServiceError: when it is not what this version knows.
        """
        try:
            return make(document)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ServiceError(
                f"{self.address} answers in a way that is not known here ({error!r}): use the same "
                "version of zsic-index on both sides"
            ) from error

    def _read(self, response: httpx2.Response) -> ServiceResponse:
        """Return an answer of zsic-index, or of a proxy in front to which it was too much."""
        status = response.status_code
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == (_JSON if response.is_success else _PROBLEM):
            document = self.read(lambda one: one.json(), response)
            if isinstance(document, dict):
                return ServiceResponse(status, document)
        if status in TOO_MUCH:
            return ServiceResponse(
                status, {"detail": "what is in front of the service takes no more"}
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
        raise InputError(f"server {url!r}: is no address: {error}") from None
    if parsed.userinfo:
        # Not shown: there may be a password in it.
        raise InputError(f"the address of {parsed.host} has a user in it: give a token instead")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError(f"server {url!r}: give an address such as http://127.0.0.1:8000")
    if parsed.query or parsed.fragment:
        raise InputError(f"server {url!r}: leave out what comes after the path")
    return str(parsed).rstrip("/")


def _checked_token(token: str) -> str:
    token = token.strip()
    if not token.isascii() or not all("!" <= one <= "~" for one in token):
        # Not shown: it opens the service.
        raise InputError(
            "the token has spaces or other characters that tokens do not have: give one line of "
            "the service's token file"
        )
    return token


def _retry_after(response: httpx2.Response) -> float:
    """Return the seconds that a service asks to be left alone for."""
    given = response.headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit():
        return float(given)
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except ValueError:
        return 0.0
