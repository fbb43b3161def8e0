"""Minimum speed of request bodies."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.types import Message, Receive

from zsic_index.service.settings import Settings
from zsic_index.web import RefusedError


def paced(receive: Receive, settings: Settings) -> Receive:
    """Return an ASGI receive function for a body that must not arrive too slowly.

    It raises a RefusedError with status 408 when nothing arrives for ``settings.body_idle``
    seconds, or when fewer than ``settings.min_body_rate`` bytes per second have arrived after the
    first ``settings.body_grace`` seconds.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    size = 0

    async def receive_in_time() -> Message:
        nonlocal size
        idle_end = loop.time() + settings.body_idle
        rate_end = started + settings.body_grace + size / settings.min_body_rate
        try:
            async with asyncio.timeout_at(min(idle_end, rate_end)):
                message = await receive()
        except TimeoutError:
            if idle_end < rate_end:
                reason = f"nothing of the body has arrived for {settings.body_idle:g} s"
            else:
                reason = (
                    f"{size:,} bytes of the body have arrived in {loop.time() - started:.1f} s: "
                    f"send at least {settings.min_body_rate:,} bytes per second after the first "
                    f"{settings.body_grace:g} s"
                )
            raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, reason) from None
        size += len(message.get("body", b""))
        return message

    return receive_in_time
