"""A running service: its parts, started and stopped together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from zsic_index import prompts
from zsic_index.errors import IndexNotFoundError, InputError, ZsicError
from zsic_index.querying.compiled import CompiledQuery
from zsic_index.service.engine import Engine
from zsic_index.service.fetching import Fetcher, FetchLimits
from zsic_index.service.indexes import Registry, ServedIndex
from zsic_index.service.inputs import SentImage
from zsic_index.service.metrics import Metrics
from zsic_index.service.readiness import Readiness
from zsic_index.service.schemas import QueryRequest
from zsic_index.service.settings import Settings

logger = logging.getLogger("zsic_index")

_FETCH_SECONDS = 10.0


class Service:
    """The parts of a running service."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.engine = Engine(settings, metrics)
        self.registry = Registry(settings, self.engine, metrics)
        self.readiness = Readiness(self.registry, self.engine, settings.deadline)
        self._fetcher = (
            Fetcher(FetchLimits(settings.max_image_bytes, _FETCH_SECONDS))
            if settings.allow_urls
            else None
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the indexes, load their encoders, and reload rebuilt ones until the context ends.

        Raises:
            StoreError: if the store cannot be read.
            IndexNotFoundError: if an index named in the settings cannot be opened.
        """
        following: asyncio.Task[None] | None = None
        try:
            await asyncio.to_thread(self.registry.refresh)
            self._check_named()
            following = asyncio.create_task(self._follow())
            yield
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            if self._fetcher is not None:
                await self._fetcher.close()
            await asyncio.to_thread(self.registry.close)
            await asyncio.to_thread(self.engine.close)

    @property
    def is_alive(self) -> bool:
        """True while the threads for scans and vision towers run."""
        return self.engine.scans.is_alive and all(
            tower.batcher.is_alive for tower in self.registry.towers
        )

    async def compile(self, request: QueryRequest) -> tuple[ServedIndex, CompiledQuery]:
        """Return the index of a request, with the request's templates, and its query compiled.

        Raises:
            IndexNotFoundError: if the index is not served.
            TemplateError: for templates that are neither templates nor names of template sets.
            InputError: if the index cannot answer the query, or if other templates are combined
                with a calibration, which is for the index's own.
        """
        query = request.query()
        if len(query.labels) > self.settings.max_labels:
            # Probabilities depend on all labels, so that several requests are no way out.
            raise InputError(
                f"{len(query.labels):,} labels; an answer can be limited to "
                f"{self.settings.max_labels:,}: build an index of these"
            )
        served = self.registry.get(request.index)
        if request.templates:
            if query.calibrated or query.sets or query.thresholds:
                raise InputError(
                    "what was fitted is for the index's own templates: leave others out"
                )
            served = await served.under(
                prompts.resolve_without_files(request.templates), self.engine
            )
        return served, await served.compile(query, self.engine)

    async def content_of(self, image: SentImage) -> Callable[[], bytes]:
        """Return a function that returns an image's bytes; an image with a URL is fetched first.

        Raises:
            ImageError: if it cannot be fetched.
        """
        if image.url is None or self._fetcher is None:
            return image.content
        content = await self._fetcher.fetch(image.url)
        return lambda: content

    def _check_named(self) -> None:
        unknown = "there is none of that name; 'zsic-index list' lists the existing ones"
        for name in self.settings.names:
            try:
                self.registry.get(name)
            except IndexNotFoundError:
                reason = self.registry.troubles.get(name, unknown)
                raise IndexNotFoundError(f"index {name!r} cannot be served: {reason}") from None

    async def _follow(self) -> None:
        """Reload rebuilt indexes at regular intervals."""
        trouble = ""
        while True:
            await asyncio.sleep(self.settings.reload_every)
            try:
                await asyncio.to_thread(self.registry.refresh)
                trouble = ""
            except ZsicError as error:
                if str(error) != trouble:  # log it once
                    logger.warning("%s: going on with what is open", error)
                trouble = str(error)
            except Exception:
                logger.exception("looking for new indexes")
