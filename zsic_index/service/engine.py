"""The stages of a classification: decoding, vision tower and scan, each in its own threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from zsic_index.embedding_arrays import Float32
from zsic_index.embeddings.images import EmbeddedImage, ImageEmbedder, PreparedImage
from zsic_index.errors import ImageError
from zsic_index.querying.compiled import CompiledQuery
from zsic_index.records import Decision
from zsic_index.service.batching import Batcher, BatchItem
from zsic_index.service.metrics import Metrics
from zsic_index.service.settings import Settings

Result = TypeVar("Result")

_SCAN_SIZE = 64
"""Default number of embeddings per scan."""


@dataclass(slots=True, eq=False)
class _ScanItem(BatchItem):
    """An embedding to classify.

    Attributes:
        embedding: (D,) float32 unit-norm image embedding.
        query: query to answer; items with the same one share a scan.
    """

    embedding: Float32
    query: CompiledQuery


@dataclass(slots=True, eq=False)
class _TowerItem(BatchItem):
    """A decoded image to embed.

    Attributes:
        prepared: input of the vision tower.
        query: query to answer with the embedding; None to return the embedding.
    """

    prepared: EmbeddedImage | PreparedImage
    query: CompiledQuery | None


class Tower:
    """The vision tower of one encoder, shared by the indexes of the encoder.

    Args:
        embedder: embedder of the encoder.
        scans: next stage, for items with a query.
        settings: sizes of batches.
        metrics: metrics to update.
    """

    def __init__(
        self,
        embedder: ImageEmbedder,
        scans: Batcher[_ScanItem],
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self.embedder = embedder
        self._scans = scans
        self._seconds = metrics.stage_seconds.labels("tower")
        self.batcher: Batcher[_TowerItem] = Batcher(
            "vision tower",
            self._embed,
            size=settings.max_batch or embedder.batch_size(),
            wait=settings.max_wait,
            observe=metrics.batch_size.labels("tower").observe,
        )

    def _embed(self, items: list[_TowerItem]) -> None:
        with self._seconds.time():
            results = self.embedder.embed_prepared([item.prepared for item in items])
        scans = []
        for item, result in zip(items, results, strict=True):
            if isinstance(result, ImageError):
                item.finish(result)
            elif item.query is None:
                item.finish(result.embedding)
            else:
                scans.append(_ScanItem(result.embedding, item.query, future=item.future))
        self._scans.put(scans)


class Engine:
    """The threads of a service."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._decoders = ThreadPoolExecutor(settings.decoders, "zsic-decode")
        self._side = ThreadPoolExecutor(2, "zsic-side")
        self._parsers = ThreadPoolExecutor(2, "zsic-parse")
        self._prompts = ThreadPoolExecutor(1, "zsic-prompts")
        self._labels = ThreadPoolExecutor(1, "zsic-labels")
        self._seconds = metrics.stage_seconds.labels("decode")
        self._scan_seconds = metrics.stage_seconds.labels("scan")
        self.scans: Batcher[_ScanItem] = Batcher(
            "scan",
            self._scan,
            size=settings.max_batch or _SCAN_SIZE,
            wait=0.0,
            observe=metrics.batch_size.labels("scan").observe,
        )
        metrics.waiting.labels("scan").set_function(lambda: self.scans.waiting)

    def tower(self, embedder: ImageEmbedder) -> Tower:
        """Return a tower that hands its embeddings to this engine's scans."""
        return Tower(embedder, self.scans, self._settings, self._metrics)

    async def embed(self, tower: Tower, content: Callable[[], bytes], name: str) -> Float32:
        """Return an image's (D,) float32 unit-norm embedding.

        Args:
            tower: tower of the encoder.
            content: returns the bytes of the file; called in another thread.
            name: name of the image in messages.

        Raises:
            ImageError: if the image is refused.
        """
        embedding: Float32 = await self._run(tower, content, name, None)
        return embedding

    async def classify(
        self, tower: Tower, content: Callable[[], bytes], name: str, query: CompiledQuery
    ) -> Decision:
        """Return the decision of a query about an image; see ``embed``."""
        decision: Decision = await self._run(tower, content, name, query)
        return decision

    async def score(self, embeddings: Float32, query: CompiledQuery) -> list[Decision]:
        """Return the decisions of a query about (B, D) float32 unit-norm embeddings."""
        items = [_ScanItem(embedding, query) for embedding in embeddings]
        self.scans.put(items)
        decisions: list[Decision] = await asyncio.gather(*map(_result, items))
        return decisions

    async def aside(self, do: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function that takes a moment, such as one that reads the store, in a thread."""
        return await _in(self._side, do, *arguments)

    async def parse(self, do: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function that parses a large body in one of the threads for these."""
        return await _in(self._parsers, do, *arguments)

    async def encode_prompts(self, do: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function that encodes prompts of a request in the thread for these."""
        return await _in(self._prompts, do, *arguments)

    async def encode_labels(self, do: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function that encodes labels, which may take minutes, in the thread for these."""
        return await _in(self._labels, do, *arguments)

    def close(self) -> None:
        """End all threads except those of towers."""
        self.scans.close()
        for pool in (self._decoders, self._side, self._parsers, self._prompts, self._labels):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _run(
        self, tower: Tower, content: Callable[[], bytes], name: str, query: CompiledQuery | None
    ) -> Any:
        loop = asyncio.get_running_loop()
        with tower.batcher.announced():
            prepared = await loop.run_in_executor(
                self._decoders, self._prepare, tower.embedder, content, name
            )
            item = _TowerItem(prepared, query)
            tower.batcher.put([item])
        return await _result(item)

    def _prepare(
        self, embedder: ImageEmbedder, content: Callable[[], bytes], name: str
    ) -> EmbeddedImage | PreparedImage:
        with self._seconds.time():
            return embedder.prepare(content(), name)

    def _scan(self, items: list[_ScanItem]) -> None:
        by_query: dict[int, list[_ScanItem]] = {}
        for item in items:
            by_query.setdefault(id(item.query), []).append(item)
        for group in by_query.values():
            started = time.perf_counter()
            try:
                decisions = group[0].query(np.stack([item.embedding for item in group]))
            except Exception as error:
                # One failing query must not fail the rest of the batch.
                for item in group:
                    item.finish(error)
                continue
            self._scan_seconds.observe(time.perf_counter() - started)
            for item, decision in zip(group, decisions, strict=True):
                item.finish(decision)


async def _in(pool: ThreadPoolExecutor, do: Callable[..., Result], *arguments: Any) -> Result:
    return await asyncio.get_running_loop().run_in_executor(pool, partial(do, *arguments))


async def _result(item: BatchItem) -> Any:
    """Wait for an item; cancelling this coroutine cancels the item."""
    future: Future[Any] = item.future
    return await asyncio.wrap_future(future)
