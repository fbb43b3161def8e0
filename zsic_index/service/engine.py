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
from zsic_index.service.batching import Batcher, Job
from zsic_index.service.metrics import Metrics
from zsic_index.service.settings import Settings

Result = TypeVar("Result")

_SCAN_SIZE = 64
"""Default number of embeddings per scan."""


@dataclass(slots=True, eq=False)
class _ScanJob(Job):
    """An embedding to classify.

    Attributes:
        embedding: (D,) float32 unit-norm image embedding.
        query: query to answer; jobs with the same one share a scan.
    """

    embedding: Float32
    query: CompiledQuery


@dataclass(slots=True, eq=False)
class _TowerJob(Job):
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
        scans: next stage, for jobs with a query.
        settings: sizes of batches.
        metrics: metrics to update.
    """

    def __init__(
        self,
        embedder: ImageEmbedder,
        scans: Batcher[_ScanJob],
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self.embedder = embedder
        self._scans = scans
        self._seconds = metrics.stage_seconds.labels("tower")
        self.batcher: Batcher[_TowerJob] = Batcher(
            "vision tower",
            self._embed,
            size=settings.max_batch or embedder.batch_size(),
            wait=settings.max_wait,
            observe=metrics.batch_size.labels("tower").observe,
        )

    def _embed(self, jobs: list[_TowerJob]) -> None:
        with self._seconds.time():
            results = self.embedder.embed_prepared([job.prepared for job in jobs])
        scans = []
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, ImageError):
                job.finish(result)
            elif job.query is None:
                job.finish(result.embedding)
            else:
                scans.append(_ScanJob(result.embedding, job.query, future=job.future))
        self._scans.put(scans)


class Engine:
    """The threads of a service."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._decoders = ThreadPoolExecutor(settings.decoders, "zsic-decode")
        self._side = ThreadPoolExecutor(2, "zsic-side")
        self._prompts = ThreadPoolExecutor(1, "zsic-prompts")
        self._labels = ThreadPoolExecutor(1, "zsic-labels")
        self._seconds = metrics.stage_seconds.labels("decode")
        self._scan_seconds = metrics.stage_seconds.labels("scan")
        self.scans: Batcher[_ScanJob] = Batcher(
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
        jobs = [_ScanJob(embedding, query) for embedding in embeddings]
        self.scans.put(jobs)
        decisions: list[Decision] = await asyncio.gather(*map(_result, jobs))
        return decisions

    async def aside(self, do: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function that takes a moment, such as one that reads the store, in a thread."""
        return await _in(self._side, do, *arguments)

    async def encode_prompts(self, do: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function that encodes prompts of a request in the thread for these."""
        return await _in(self._prompts, do, *arguments)

    async def encode_labels(self, do: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function that encodes labels, which may take minutes, in the thread for these."""
        return await _in(self._labels, do, *arguments)

    def close(self) -> None:
        """End all threads except those of towers."""
        self.scans.close()
        for pool in (self._decoders, self._side, self._prompts, self._labels):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _run(
        self, tower: Tower, content: Callable[[], bytes], name: str, query: CompiledQuery | None
    ) -> Any:
        loop = asyncio.get_running_loop()
        with tower.batcher.announced():
            prepared = await loop.run_in_executor(
                self._decoders, self._prepare, tower.embedder, content, name
            )
            job = _TowerJob(prepared, query)
            tower.batcher.put([job])
        return await _result(job)

    def _prepare(
        self, embedder: ImageEmbedder, content: Callable[[], bytes], name: str
    ) -> EmbeddedImage | PreparedImage:
        with self._seconds.time():
            return embedder.prepare(content(), name)

    def _scan(self, jobs: list[_ScanJob]) -> None:
        by_query: dict[int, list[_ScanJob]] = {}
        for job in jobs:
            by_query.setdefault(id(job.query), []).append(job)
        for group in by_query.values():
            started = time.perf_counter()
            try:
                decisions = group[0].query(np.stack([job.embedding for job in group]))
            except Exception as error:
                # One failing query must not fail the rest of the batch.
                for job in group:
                    job.finish(error)
                continue
            self._scan_seconds.observe(time.perf_counter() - started)
            for job, decision in zip(group, decisions, strict=True):
                job.finish(decision)


async def _in(pool: ThreadPoolExecutor, do: Callable[..., Result], *arguments: Any) -> Result:
    return await asyncio.get_running_loop().run_in_executor(pool, partial(do, *arguments))


async def _result(job: Job) -> Any:
    """Wait for a job; cancelling this coroutine cancels the job."""
    future: Future[Any] = job.future
    return await asyncio.wrap_future(future)
