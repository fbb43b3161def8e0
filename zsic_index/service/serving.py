"""The server process: the application under uvicorn, until a signal ends it."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from zsic_index.errors import InputError
from zsic_index.service.connections import LimitedProtocol
from zsic_index.service.settings import Settings

_BACKLOG = 2_048


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; requests wait in its backlog until the service is ready.

    Args:
        host: IP address of this machine, or a name of one.
        port: port number; 0 for any free one.

    Raises:
        InputError: if the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host} port {port}: {error.strerror or error}: use another --host "
            "or --port"
        ) from error


def configuration(
    app: ASGIApp, settings: Settings, *, drain: float, root_path: str, proxies: str
) -> uvicorn.Config:
    """Return uvicorn's configuration of a service; see ``run``."""
    return uvicorn.Config(
        app,
        http=partial(LimitedProtocol, settings=settings),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",  # run by the caller, where its exceptions are not swallowed
        root_path=root_path,
        forwarded_allow_ips=proxies,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(drain) + 1,
    )


def run(
    app: FastAPI,
    listening: socket.socket,
    settings: Settings,
    *,
    drain: float,
    root_path: str,
    proxies: str,
    ready: Callable[[], None],
) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in progress.

    Args:
        app: application to start; its exceptions are raised.
        listening: listening socket.
        settings: limits on connections.
        drain: seconds to finish requests after the signal.
        root_path: path below which a proxy serves the application.
        proxies: comma-separated IP addresses whose X-Forwarded headers are trusted.
        ready: called when the service is ready for requests.
    """
    config = configuration(app, settings, drain=drain, root_path=root_path, proxies=proxies)

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            # A full garbage collection over a model's and its libraries' objects would stop all
            # threads for 300 ms: exclude them.
            gc.collect()
            gc.freeze()
            ready()
            await _Server(config).serve(sockets=[listening])

    with listening, asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(serve())


class _Server(uvicorn.Server):
    """A uvicorn server that does not raise the signal again, so that the exit code is 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        signals = (signal.SIGINT, signal.SIGTERM)
        handlers = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
