"""Readiness check: classify a small image with every index."""

from __future__ import annotations

import asyncio
import io
import time
from http import HTTPStatus

import numpy as np
from PIL import Image

from zsic_index.embedding_arrays import Float32
from zsic_index.querying.query import Query
from zsic_index.service.engine import Engine
from zsic_index.service.indexes import Registry, ServedIndex
from zsic_index.service.problems import detail_of
from zsic_index.web import RefusedError

_FRESH_SECONDS = 1.0
"""Seconds for which the last result is reused."""

_MAX_SECONDS = 5.0
"""Maximum duration of a check in seconds."""

_QUERY = Query(top_k=1)


class Readiness:
    """A readiness check of all indexes, shared by concurrent requests."""

    def __init__(self, registry: Registry, engine: Engine, deadline: float) -> None:
        self._registry = registry
        self._engine = engine
        self._max_seconds = min(_MAX_SECONDS, deadline)
        self._lock = asyncio.Lock()
        self._checked_at = -_FRESH_SECONDS
        self._trouble: str | None = None
        self._probe = _probe_image()

    async def check(self) -> None:
        """Check all indexes, unless they were just checked.

        Raises:
            RefusedError: 503 with the reason, if one cannot classify an image.
        """
        async with self._lock:
            if time.monotonic() - self._checked_at >= _FRESH_SECONDS:
                self._trouble = await self._find_trouble()
                self._checked_at = time.monotonic()
        if self._trouble is not None:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, self._trouble)

    async def _find_trouble(self) -> str | None:
        served = self._registry.all()
        if not served:
            troubles = [f"index {n!r}: {why}" for n, why in self._registry.troubles.items()]
            return "; ".join(troubles) or "no index is served yet: build one"
        for index in served:
            try:
                async with asyncio.timeout(self._max_seconds):
                    await self._classify(index)
            except TimeoutError:
                return f"index {index.info.name!r} has not answered within {self._max_seconds:g} s"
            except Exception as error:
                return f"index {index.info.name!r} does not answer: {detail_of(error)}"
        return None

    async def _classify(self, served: ServedIndex) -> None:
        compiled = await served.compile(_QUERY, self._engine)
        if served.tower_of_index is None:
            await self._engine.score(_unit(served.info.dim), compiled)
        else:
            await self._engine.classify(served.tower, lambda: self._probe, "probe", compiled)


def _probe_image() -> bytes:
    """Return a small PNG with colour gradients."""
    across = np.linspace(0, 255, 64, dtype=np.uint8)
    pixels = np.stack(np.broadcast_arrays(across, across[:, None], 128), axis=-1)
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _unit(dim: int) -> Float32:
    """Return (1, D) float32: one unit-norm embedding."""
    return np.full((1, dim), dim**-0.5, dtype=np.float32)
