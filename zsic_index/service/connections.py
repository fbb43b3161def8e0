"""Connections of clients: uvicorn's protocol with limits on heads and on slow clients."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from zsic_index.service.problems import problem
from zsic_index.service.settings import Settings

logger = logging.getLogger("zsic_index")

ABORT = "zsic_index.abort"
"""ASGI extension: a function that closes the connection at once, without what is unsent."""

_LINGER = 2.0
"""Seconds for which a refused client's bytes are read, so that it reads the response."""


class _HeadTooLargeError(Exception):
    """Error that stops the parser."""


class LimitedProtocol(HttpToolsProtocol):
    """A connection with limits that uvicorn and httptools lack.

    - A head, trailers, or the bytes between two parts of a body have at most ``max_head`` bytes.
    - A head arrives within ``head_timeout`` seconds after the connection was made or after its
      first byte. So does the rest of a body after the response to it.
    - A client reads a response at ``min_body_rate``, measured every ``body_idle`` seconds.
    """

    def __init__(self, *, settings: Settings, **options: Any) -> None:
        super().__init__(**options)
        self._settings = settings
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._active: RequestResponseCycle | None = None
        self._is_in_message = False
        self._is_refused = False
        self._head_size = 0
        self._parts = 0  # parts of messages that have been parsed
        self._unparsed = 0  # bytes that arrived since the last of them

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers, and end all requests of the connection."""
        self._stop_timer()
        self._stop_write_timer()
        super().connection_lost(exc)
        # uvicorn ends the last request only, which can be behind others.
        for cycle in filter(None, (self._active, *(cycle for cycle, _ in self.pipeline))):
            cycle.disconnected = not cycle.response_complete
            cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Parse bytes, and bound those that are not of a body."""
        if self._is_refused:
            return
        parts = self._parts
        super().data_received(data)
        self._unparsed = 0 if self._parts > parts else self._unparsed + len(data)
        if self._is_refused or self.transport.is_closing():
            return
        if self._unparsed > self._settings.max_head:
            self._refuse_head()
        elif not self._is_in_message and self._parts == parts:
            self._start_timer()  # also for empty lines, which begin no message

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """Wait for the rest of a head."""
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: self.transport.abort}  # type: ignore[dict-item]
        self._head_size = 0
        self._start_timer()

    def on_url(self, url: bytes) -> None:
        """Count the bytes of a URL."""
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count the bytes of a header or trailer."""
        self._count(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request."""
        self._stop_timer()
        self._parts += 1
        self._is_in_message = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass a part of a body on."""
        self._parts += 1
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a message."""
        self._stop_timer()
        self._parts += 1
        self._is_in_message = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for what is left of a body, if there is."""
        super().on_response_complete()
        if self._is_in_message:
            self._start_timer()

    def _count(self, *texts: bytes) -> None:
        self._head_size += sum(map(len, texts)) + 2 * len(texts)
        if self._head_size > self._settings.max_head:
            raise _HeadTooLargeError

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    # Refusals

    def send_400_response(self, msg: str) -> None:
        """Refuse a message that cannot be parsed."""
        if self._head_size > self._settings.max_head:
            self._refuse_head()
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "the request is not valid HTTP/1.1")

    def _refuse_head(self) -> None:
        self._refuse(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"the request's head has more than {self._settings.max_head:,} bytes, the limit: send "
            "shorter headers, and data in the body",
        )

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Send an error response, unless another one is being sent, and close the connection."""
        self._is_refused = True
        self._stop_timer()
        self._unset_keepalive_if_required()
        if self._is_answering or self._is_in_message:
            self.transport.abort()
            return
        response = problem(status, detail, {"Connection": "close"})
        head = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
        head += [name + b": " + value for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._timer = self.loop.call_later(_LINGER, self.transport.abort)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # Timers

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._settings.head_timeout, self._end_wait)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_wait(self) -> None:
        self._timer = None
        if self._is_answering:  # the next head waits for this response
            self._start_timer()
        elif self._is_in_message or not self._unparsed:
            self.transport.close()
        else:
            self._refuse(
                HTTPStatus.REQUEST_TIMEOUT,
                f"the request's head has not arrived within {self._settings.head_timeout:g} s",
            )

    def pause_writing(self) -> None:
        """Watch how fast the client reads."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """Stop watching."""
        self._stop_write_timer()
        super().resume_writing()

    def _watch_writing(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self._settings.body_idle, self._check_writing)

    def _check_writing(self) -> None:
        sent = self._unsent - self.transport.get_write_buffer_size()
        if sent >= self._settings.min_body_rate * self._settings.body_idle:
            self._watch_writing()
            return
        logger.warning(
            "a client has read %d bytes of a response in %g s: closing its connection",
            max(sent, 0),
            self._settings.body_idle,
        )
        self.transport.abort()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
