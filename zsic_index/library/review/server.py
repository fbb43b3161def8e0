"""A review over HTTP, for one browser on this machine."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from zsic_index.errors import ImageError, InputError, StoreError, ZsicError
from zsic_index.library.review.api import Answer, Api, NoRouteError
from zsic_index.library.review.guard import HEADERS, Guard
from zsic_index.library.review.session import BusyError, NotReviewedError, Review
from zsic_index.web import RefusedError

logger = logging.getLogger("zsic_index")

ADDRESS = "127.0.0.1"

MOST_BYTES = 1 << 16
"""Of a request's body."""

_IDLE_S = 60.0
"""How long a connection may say nothing."""

_READ_PAST_S = 1.0
"""How long the rest of a refused request is waited for."""

_MOST_FIELDS = 20
"""In the query of an address."""

_STATUS: tuple[tuple[type[ZsicError], HTTPStatus], ...] = (
    (NoRouteError, HTTPStatus.NOT_FOUND),
    (NotReviewedError, HTTPStatus.NOT_FOUND),
    (BusyError, HTTPStatus.CONFLICT),
    (ImageError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (StoreError, HTTPStatus.CONFLICT),
    (ZsicError, HTTPStatus.BAD_REQUEST),
)


class ReviewServer(ThreadingHTTPServer):
    """Serves one review; a thread for each connection."""

    daemon_threads = True

    def __init__(self, review: Review, port: int = 0) -> None:
        """Listen on this machine's own address.

        Args:
            review: what is served.
            port: a port, or 0 for any free one.

        Raises:
            InputError: when the port cannot be had.
        """
        self.api = Api(review)
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"port {port} cannot be listened on: {error}; --port 0 takes a free one"
            ) from error
        self.guard = Guard(self.server_port)

    @property
    def url(self) -> str:
        """The address to open, with the token in it."""
        return f"http://{ADDRESS}:{self.server_port}/?token={self.guard.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that has gone away."""
        logger.debug("connection from %s ended", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S

    def do_GET(self) -> None:
        """Answer what changes nothing."""
        self._answer(changes=False)

    def do_POST(self) -> None:
        """Answer what may change something."""
        self._answer(changes=True)

    def _answer(self, *, changes: bool) -> None:
        cookie = None
        self._is_read = False
        try:
            target = urlsplit(self.path)
            query = _query(target.query)
            token = query.pop("token", None) if target.path == "/" and not changes else None
            cookie = self.server.guard.admit(self.headers, token)
            if changes:
                answer = self.server.api.post(target.path, self._body())
            else:
                answer = self.server.api.get(target.path, query)
            status = HTTPStatus.OK
        except RefusedError as error:
            # What follows in the connection may be the rest of a body that was not read.
            self.close_connection = True
            self._read_past()
            answer, status = _said(error), error.status
        except ZsicError as error:
            answer = _said(error)
            status = next(status for kind, status in _STATUS if isinstance(error, kind))
        except Exception as error:
            logger.exception("a request to the review failed")
            answer = Answer({"error": f"unexpected {type(error).__name__}; see the terminal"})
            status = HTTPStatus.INTERNAL_SERVER_ERROR
        self._send(answer, status, cookie)

    def _body(self) -> dict[str, Any]:
        """Return the JSON object that was sent."""
        lengths = self.headers.get_all("Content-Length", [])
        if self.headers.get("Transfer-Encoding") or len(lengths) != 1:
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "send one Content-Length, and no chunks")
        if not re.fullmatch(r"\d{1,18}", lengths[0], re.ASCII):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "Content-Length is no number")
        length = int(lengths[0])
        if length > MOST_BYTES:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"{length:,} bytes; the limit is {MOST_BYTES:,}",
            )
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        try:
            self._is_read = True
            found = json.loads(self.rfile.read(length))
        except (ValueError, RecursionError) as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"not JSON: {error}") from error
        if not isinstance(found, dict):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "send a JSON object")
        return found

    def _read_past(self) -> None:
        """Read a refused body of moderate size: closed before that, a client never sees why."""
        length = self.headers.get("Content-Length", "")
        if self._is_read or not re.fullmatch(r"\d{1,7}", length, re.ASCII):
            return
        self.connection.settimeout(_READ_PAST_S)
        with contextlib.suppress(OSError):
            self.rfile.read(int(length))

    def _send(self, answer: Answer, status: HTTPStatus, cookie: str | None = None) -> None:
        content = answer.content
        if not isinstance(content, bytes):
            # In ASCII: names of files may hold bytes that are no text.
            content = json.dumps(content, allow_nan=False).encode()
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(content)))
        if cookie:
            self.send_header("Set-Cookie", cookie)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no proper request, with the headers that every answer has."""
        self.close_connection = True
        status = HTTPStatus(code)
        self._send(Answer({"error": message or status.phrase}), status)

    def version_string(self) -> str:
        """Return the server's name, without versions."""
        return "zsic-index"

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: the first address has the token in it."""


def _query(text: str) -> dict[str, str]:
    try:
        found = parse_qs(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
    return {name: values[-1] for name, values in found.items()}


def _said(error: Exception) -> Answer:
    return Answer({"error": " ".join(str(error).split())})
