"""Running the application under uvicorn until it is told to end."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from zsic_index.errors import InputError

_BACKLOG = 2_048


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; what comes before the service is ready waits in it.

    Args:
        host: an address of this machine, or a name of one.
        port: 0 for any that is free.

    Raises:
        InputError: when it cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host} port {port}: {error.strerror or error}: use another --host "
            "or --port"
        ) from error


def run(
    app: FastAPI,
    listening: socket.socket,
    *,
    drain: float,
    root_path: str,
    proxies: str,
    ready: Callable[[], None],
) -> None:
    """Answer until SIGTERM or SIGINT: then take no more, and end when all is answered.

    Args:
        app: the application; it is started first, and its errors are raised.
        listening: the socket.
        drain: seconds that requests have to be answered in the end.
        root_path: where a proxy in front has the application.
        proxies: addresses whose X-Forwarded headers are believed, with commas between.
        ready: called when requests can be answered.
    """
    config = uvicorn.Config(
        app,
        lifespan="off",  # it is run here, where its errors are not swallowed
        root_path=root_path,
        forwarded_allow_ips=proxies,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(drain) + 1,
    )

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            # What is there now stays: looking through a model's and its libraries' objects for
            # garbage would stop all threads for a third of a second now and then.
            gc.collect()
            gc.freeze()
            ready()
            await _Server(config).serve(sockets=[listening])

    with listening, asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(serve())


class _Server(uvicorn.Server):
    """Ends with the exit code 0 on a signal, and with the application stopped."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {
            one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
