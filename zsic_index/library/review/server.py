"""HTTP server of a review, for one browser on this machine."""

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
from zsic_index.library.review.api import Api, ApiResponse, NoRouteError
from zsic_index.library.review.guard import HEADERS, Guard
from zsic_index.library.review.session import BusyError, NotReviewedError, Review
from zsic_index.web import RefusedError

logger = logging.getLogger("zsic_index")

ADDRESS = "127.0.0.1"

MAX_BODY_BYTES = 1 << 16

_IDLE_S = 60.0
"""Seconds after which an idle connection is closed."""

_DRAIN_S = 1.0
"""Seconds to wait for the rest of a refused request."""

_MAX_PARAMETERS = 20
"""Maximum number of parameters in an address."""

_STATUS: tuple[tuple[type[ZsicError], HTTPStatus], ...] = (
    (NoRouteError, HTTPStatus.NOT_FOUND),
    (NotReviewedError, HTTPStatus.NOT_FOUND),
    (BusyError, HTTPStatus.CONFLICT),
    (ImageError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (StoreError, HTTPStatus.CONFLICT),
    (ZsicError, HTTPStatus.BAD_REQUEST),
)


class ReviewServer(ThreadingHTTPServer):
    """HTTP server of one review, with a thread per connection."""

    daemon_threads = True

    def __init__(self, review: Review, port: int = 0) -> None:
        """Listen on the loopback address.

        Args:
            review: the review.
            port: port, or 0 for any free one.

        Raises:
            InputError: when the port cannot be listened on.
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
        """Address of the page, with the token."""
        return f"http://{ADDRESS}:{self.server_port}/?token={self.guard.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a closed connection for debugging only."""
        logger.debug("connection from %s ended", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S

    def do_GET(self) -> None:
        """Respond to a request that changes nothing."""
        self._respond(is_post=False)

    def do_POST(self) -> None:
        """Respond to a request that may change something."""
        self._respond(is_post=True)

    def _respond(self, *, is_post: bool) -> None:
        cookie = None
        self._is_read = False
        try:
            target = urlsplit(self.path)
            parameters = _parameters(target.query)
            token = parameters.pop("token", None) if target.path == "/" and not is_post else None
            cookie = self.server.guard.admit(self.headers, token)
            if is_post:
                response = self.server.api.post(target.path, self._body())
            else:
                response = self.server.api.get(target.path, parameters)
            status = HTTPStatus.OK
        except RefusedError as error:
            # The connection may go on with the rest of a body that was not read.
            self.close_connection = True
            self._drain()
            response, status = _error_response(error), error.status
        except ZsicError as error:
            response = _error_response(error)
            status = next(status for kind, status in _STATUS if isinstance(error, kind))
        except Exception as error:
            logger.exception("a request to the review failed")
            response = ApiResponse(
                {"error": f"unexpected {type(error).__name__}; see the terminal"}
            )
            status = HTTPStatus.INTERNAL_SERVER_ERROR
        self._send(response, status, cookie)

    def _body(self) -> dict[str, Any]:
        """Return the JSON object in the request's body."""
        lengths = self.headers.get_all("Content-Length", [])
        if self.headers.get("Transfer-Encoding") or len(lengths) != 1:
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "send one Content-Length, and no chunks")
        if not re.fullmatch(r"\d{1,18}", lengths[0], re.ASCII):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "Content-Length is not a number")
        length = int(lengths[0])
        if length > MAX_BODY_BYTES:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"{length:,} bytes; the limit is {MAX_BODY_BYTES:,}",
            )
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        try:
            self._is_read = True
            body = json.loads(self.rfile.read(length))
        except (ValueError, RecursionError) as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"not JSON: {error}") from error
        if not isinstance(body, dict):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "send a JSON object")
        return body

    def _drain(self) -> None:
        """Read a refused body of moderate size: otherwise the client cannot read the reason."""
        length = self.headers.get("Content-Length", "")
        if self._is_read or not re.fullmatch(r"\d{1,7}", length, re.ASCII):
            return
        self.connection.settimeout(_DRAIN_S)
        with contextlib.suppress(OSError):
            self.rfile.read(int(length))

    def _send(self, response: ApiResponse, status: HTTPStatus, cookie: str | None = None) -> None:
        content = response.content
        if not isinstance(content, bytes):
            # ASCII: file names may contain bytes that are not UTF-8.
            content = json.dumps(content, allow_nan=False).encode()
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", response.media_type)
        self.send_header("Content-Length", str(len(content)))
        if cookie:
            self.send_header("Set-Cookie", cookie)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse a malformed request, with the headers of every response."""
        self.close_connection = True
        status = HTTPStatus(code)
        self._send(ApiResponse({"error": message or status.phrase}), status)

    def version_string(self) -> str:
        """Return the server's name, without a version."""
        return "zsic-index"

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the first address contains the token."""


def _parameters(query: str) -> dict[str, str]:
    try:
        parameters = parse_qs(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error
    return {name: values[-1] for name, values in parameters.items()}


def _error_response(error: Exception) -> ApiResponse:
    return ApiResponse({"error": " ".join(str(error).split())})
