"""What every request goes through first: access, admission, its body, its deadline, its client."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zsic_index.service import bodies
from zsic_index.service.access import Access
from zsic_index.service.admission import Admission
from zsic_index.service.metrics import Metrics
from zsic_index.service.problems import problem_of
from zsic_index.service.settings import Settings
from zsic_index.web import SECURITY_HEADERS, RefusedError

_GUARDED = "/v1/"
"""Below this are the requests that cost something."""

_SMALL = 1 << 20
"""Bytes of a refused request's body that are not worth a new connection."""

_LINGER = 2.0
"""Seconds that a refused request's body is still read, so that its client gets to the answer."""

_HEADERS = tuple(
    (name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()
)


class Intake:
    """ASGI middleware around the whole application.

    A body is read in full, within its limits, before anything else looks at it. When the client
    hangs up or the deadline comes, what is being done for the request is cancelled.
    """

    def __init__(self, app: ASGIApp, settings: Settings, access: Access, metrics: Metrics) -> None:
        self._app = app
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
        answer = _Answer(send)
        try:
            await self._handle(scope, receive, answer)
        finally:
            # Counted by route: paths of no route could be anything, and without end.
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(path, str(answer.status or "gone")).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - started)

    async def _handle(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        path, headers = _path(scope), Headers(scope=scope)
        try:
            self._access.check(path, headers)
            if not path.startswith(_GUARDED):
                await self._app(scope, receive, answer)
                return
            size = bodies.declared(headers, self._settings.max_body)
            with self._admission.admitted(size):
                await self._admitted(scope, receive, answer, headers)
        except RefusedError as error:
            await _refuse(scope, receive, answer, error)

    async def _admitted(
        self, scope: Scope, receive: Receive, answer: _Answer, headers: Headers
    ) -> None:
        deadline = self._settings.deadline
        end = asyncio.get_running_loop().time() + deadline
        try:
            async with asyncio.timeout_at(end):
                body = await bodies.read(receive, headers, self._settings.max_body)
        except bodies.ClientGoneError:
            return
        except TimeoutError:
            raise RefusedError(
                HTTPStatus.REQUEST_TIMEOUT,
                f"the body has not arrived within the deadline of {deadline:g} s",
            ) from None
        try:
            async with asyncio.timeout_at(end):
                await _until_gone(self._app(scope, _replay(body), answer), receive)
        except TimeoutError:
            if answer.status is not None:
                raise
            raise RefusedError(
                HTTPStatus.GATEWAY_TIMEOUT, f"not done within the deadline of {deadline:g} s"
            ) from None


def _path(scope: Scope) -> str:
    """Return the path below where a proxy has the application."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


class _Answer:
    """Sends an answer on, and notes its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await self._send(message)


async def _until_gone(work: Awaitable[None], receive: Receive) -> None:
    """Wait for the work, or for the client to hang up: then the work is cancelled."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _replay(body: bytes) -> Receive:
    """Return what gives a body that has been read."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        # Whether the client is there is watched elsewhere.
        never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await never

    return receive


async def _refuse(scope: Scope, receive: Receive, answer: _Answer, error: RefusedError) -> None:
    """Answer with an error.

    A connection whose body is small goes on: the server reads past it, and a client that is told to
    come again need not connect again. What is large is not worth that; it is read for a while only,
    since a client that is still sending would not see an answer.
    """
    response = problem_of(error)
    length = Headers(scope=scope).get("content-length", "0" if scope["method"] == "GET" else "")
    if length.isascii() and length.isdigit() and int(length) <= _SMALL:
        await response(scope, receive, answer)
        return
    response.headers["Connection"] = "close"
    start = {
        "type": "http.response.start",
        "status": response.status_code,
        "headers": response.raw_headers,
    }
    await answer(start)
    await answer({"type": "http.response.body", "body": response.body, "more_body": True})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER):
            await bodies.discard(receive, limit=1 << 30)
    await answer({"type": "http.response.body", "body": b"", "more_body": False})
