"""Middleware for every request: access, admission, body, deadline and disconnection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zsic_index.service import bodies
from zsic_index.service.access import Access
from zsic_index.service.admission import Admission, Admitted
from zsic_index.service.connections import ABORT
from zsic_index.service.metrics import Metrics
from zsic_index.service.origins import Origins
from zsic_index.service.pacing import paced
from zsic_index.service.problems import problem_of
from zsic_index.service.settings import Settings
from zsic_index.web import SECURITY_HEADERS, RefusedError

logger = logging.getLogger("zsic_index")

_GUARDED = "/v1/"
"""Prefix of the paths with limits on concurrency, body and time."""

_SMALL = 1 << 20
"""Size in bytes up to which a refused request's body is read to keep the connection."""

_LINGER = 2.0
"""Seconds for which a refused request's body is read, so that the client reads the response."""

_HEADERS = tuple(
    (name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()
)


class Intake:
    """ASGI middleware around the whole application.

    A body is read in full, within its limits, before the application sees it. When the client
    disconnects or the deadline passes, the work for the request is cancelled.
    """

    def __init__(self, app: ASGIApp, settings: Settings, access: Access, metrics: Metrics) -> None:
        self._app = app
        self._origins = Origins(settings.origins)
        self._settings = settings
        self._access = access
        self._metrics = metrics
        self._admission = Admission(settings.max_requests, settings.max_pending_bytes, metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; see ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        is_head = scope["method"] == "HEAD"
        if is_head:
            scope = {**scope, "method": "GET"}
        headers = [*_HEADERS, *self._origins.headers_for(Headers(scope=scope))]
        sender = _Sender(send, headers, has_body=not is_head)
        try:
            await self._handle(scope, receive, sender)
        except Exception as error:
            if sender.status is None:
                await problem_of(error)(scope, receive, sender)
            raise  # for the log
        finally:
            # Counted by route, because the number of other paths is unbounded.
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(path, str(sender.status or "gone")).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - started)

    async def _handle(self, scope: Scope, receive: Receive, sender: _Sender) -> None:
        path, headers = _path(scope), Headers(scope=scope)
        try:
            self._access.check_host(path, headers)
            self._origins.check(scope["method"], headers)
            preflight = self._origins.preflight(scope["method"], headers)
            if preflight is not None:
                await preflight(scope, receive, sender)
                return
            self._access.check_token(path, headers)
            if not path.startswith(_GUARDED):
                await self._app(scope, receive, sender)
                return
            size = bodies.declared_size(headers, self._settings.max_body)
            with self._admission.admitted(size) as admitted:
                await self._admitted(scope, receive, sender, admitted)
        except RefusedError as error:
            await _refuse(scope, receive, sender, error)

    async def _admitted(
        self, scope: Scope, receive: Receive, sender: _Sender, admitted: Admitted
    ) -> None:
        settings = self._settings
        deadline = settings.deadline
        end = asyncio.get_running_loop().time() + deadline
        try:
            async with asyncio.timeout_at(end):
                body = await bodies.read(
                    paced(receive, settings),
                    Headers(scope=scope),
                    settings.max_body,
                    admitted.charge,
                )
        except bodies.ClientGoneError:
            return
        except TimeoutError:
            raise RefusedError(
                HTTPStatus.REQUEST_TIMEOUT,
                f"the body has not arrived within the deadline of {deadline:g} s",
            ) from None
        admitted.take_place()
        try:
            async with asyncio.timeout_at(end):
                await _until_gone(self._app(scope, _replay(body), sender), receive)
        except TimeoutError:
            if sender.status is None:
                raise RefusedError(
                    HTTPStatus.GATEWAY_TIMEOUT, f"not done within the deadline of {deadline:g} s"
                ) from None
            if not sender.is_done:
                logger.warning(
                    "%s %r: the client has not read the response within the deadline of %g s: "
                    "closing its connection",
                    scope["method"],
                    scope["path"],
                    deadline,
                )
                scope["extensions"][ABORT]()
                await _disconnected(receive)


def _path(scope: Scope) -> str:
    """Return the path without the root path that a proxy has added."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


class _Sender:
    """An ASGI send function that adds headers and records the status.

    Args:
        send: the server's.
        headers: headers to add to the response.
        has_body: whether bodies are sent; False for the response to HEAD.
    """

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]], *, has_body: bool) -> None:
        self._send = send
        self._headers = headers
        self._has_body = has_body
        self.status: int | None = None
        self.is_done = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._headers]
        elif message["type"] == "http.response.body" and not self._has_body:
            message = {**message, "body": b""}
        await self._send(message)
        if message["type"] == "http.response.body":
            self.is_done = not message.get("more_body", False)


async def _until_gone(work: Awaitable[None], receive: Receive) -> None:
    """Wait for the work; cancel it if the client disconnects."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        for pending in (task, gone):
            pending.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _replay(body: bytes) -> Receive:
    """Return an ASGI receive function for a body that has been read."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        # _until_gone watches for the disconnection.
        never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await never

    return receive


async def _refuse(scope: Scope, receive: Receive, sender: _Sender, error: RefusedError) -> None:
    """Send an error response.

    If the body is small, the connection is kept: the server reads past the body, and the client
    need not connect again for a retry. A large body is read for a short time only, because clients
    read the response after they have sent the body, and the connection is closed.
    """
    response = problem_of(error)
    length = Headers(scope=scope).get("content-length", "0" if scope["method"] == "GET" else "")
    if length.isascii() and length.isdigit() and int(length) <= _SMALL:
        await response(scope, receive, sender)
        return
    response.headers["Connection"] = "close"
    start = {
        "type": "http.response.start",
        "status": response.status_code,
        "headers": response.raw_headers,
    }
    await sender(start)
    await sender({"type": "http.response.body", "body": response.body, "more_body": True})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER):
            await bodies.discard(receive, limit=1 << 30)
    await sender({"type": "http.response.body", "body": b"", "more_body": False})
