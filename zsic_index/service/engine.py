"""From an image's bytes to its answer: decoders, vision towers and scans, each in its threads."""

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

_SCAN = 64
"""Embeddings of one scan, unless said otherwise."""


@dataclass(slots=True, eq=False)
class _Scan(Job):
    """An embedding that an answer is wanted for.

    Attributes:
        embedding: (D,) float32, unit norm.
        answer: what answers; jobs with the same one are answered together.
    """

    embedding: Float32
    answer: CompiledQuery


@dataclass(slots=True, eq=False)
class _Pass(Job):
    """An image on its way through the vision tower.

    Attributes:
        prepared: the tower's input.
        answer: what answers; None where the embedding is what is wanted.
    """

    prepared: EmbeddedImage | PreparedImage
    answer: CompiledQuery | None


class Tower:
    """One encoder's vision tower, shared by all indexes that it is for.

    Args:
        embedder: turns images into embeddings.
        scans: where embeddings go on to.
    """

    def __init__(
        self,
        embedder: ImageEmbedder,
        scans: Batcher[_Scan],
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self.embedder = embedder
        self._scans = scans
        self._seconds = metrics.stage_seconds.labels("tower")
        self.batcher: Batcher[_Pass] = Batcher(
            "vision tower",
            self._embed,
            size=settings.max_batch or embedder.batch_size(),
            wait=settings.max_wait,
            observe=metrics.batch_size.labels("tower").observe,
        )

    def _embed(self, jobs: list[_Pass]) -> None:
        with self._seconds.time():
            found = self.embedder.embed_prepared([job.prepared for job in jobs])
        on = []
        for job, one in zip(jobs, found, strict=True):
            if isinstance(one, ImageError):
                job.finish(one)
            elif job.answer is None:
                job.finish(one.embedding)
            else:
                on.append(_Scan(one.embedding, job.answer, future=job.future))
        self._scans.put(on)


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
        self.scans: Batcher[_Scan] = Batcher(
            "scan",
            self._scan,
            size=settings.max_batch or _SCAN,
            wait=0.0,
            observe=metrics.batch_size.labels("scan").observe,
        )
        metrics.waiting.labels("scan").set_function(lambda: self.scans.waiting)

    def tower(self, embedder: ImageEmbedder) -> Tower:
        """Return a tower whose embeddings are scanned here."""
        return Tower(embedder, self.scans, self._settings, self._metrics)

    async def embed(self, tower: Tower, content: Callable[[], bytes], name: str) -> Float32:
        """Return an image's (D,) float32 unit-norm embedding.

        Args:
            tower: the encoder's.
            content: gives the bytes of its file; called in another thread.
            name: what to call it in messages.

        Raises:
            ImageError: when it is refused.
        """
        found: Float32 = await self._passed(tower, content, name, None)
        return found

    async def classify(
        self, tower: Tower, content: Callable[[], bytes], name: str, answer: CompiledQuery
    ) -> Decision:
        """Return what ``answer`` makes of an image; see ``embed``."""
        found: Decision = await self._passed(tower, content, name, answer)
        return found

    async def score(self, embeddings: Float32, answer: CompiledQuery) -> list[Decision]:
        """Return what ``answer`` makes of each of (B, D) float32 unit-norm embeddings."""
        jobs = [_Scan(row, answer) for row in embeddings]
        self.scans.put(jobs)
        found: list[Decision] = await asyncio.gather(*map(_result, jobs))
        return found

    async def aside(self, do: Callable[..., Result], *arguments: Any) -> Result:
        """Do what takes a moment, such as reading the store, in a thread."""
        return await _in(self._side, do, *arguments)

    async def encode_prompts(self, do: Callable[..., Result], *arguments: Any) -> Result:
        """Do something with the text tower that takes about as long as a request may."""
        return await _in(self._prompts, do, *arguments)

    async def encode_labels(self, do: Callable[..., Result], *arguments: Any) -> Result:
        """Do something with the text tower that may take minutes; nothing else waits for it."""
        return await _in(self._labels, do, *arguments)

    def close(self) -> None:
        """End all threads but the towers'."""
        self.scans.close()
        for pool in (self._decoders, self._side, self._prompts, self._labels):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _passed(
        self, tower: Tower, content: Callable[[], bytes], name: str, answer: CompiledQuery | None
    ) -> Any:
        loop = asyncio.get_running_loop()
        with tower.batcher.announced():
            prepared = await loop.run_in_executor(
                self._decoders, self._prepare, tower.embedder, content, name
            )
            job = _Pass(prepared, answer)
            tower.batcher.put([job])
        return await _result(job)

    def _prepare(
        self, embedder: ImageEmbedder, content: Callable[[], bytes], name: str
    ) -> EmbeddedImage | PreparedImage:
        with self._seconds.time():
            return embedder.prepare(content(), name)

    def _scan(self, jobs: list[_Scan]) -> None:
        alike: dict[int, list[_Scan]] = {}
        for job in jobs:
            alike.setdefault(id(job.answer), []).append(job)
        for group in alike.values():
            started = time.perf_counter()
            try:
                found = group[0].answer(np.stack([job.embedding for job in group]))
            except Exception as error:
                # What one query cannot be answered with is not the others' affair.
                for job in group:
                    job.finish(error)
                continue
            self._scan_seconds.observe(time.perf_counter() - started)
            for job, decision in zip(group, found, strict=True):
                job.finish(decision)


async def _in(pool: ThreadPoolExecutor, do: Callable[..., Result], *arguments: Any) -> Result:
    return await asyncio.get_running_loop().run_in_executor(pool, partial(do, *arguments))


async def _result(job: Job) -> Any:
    """Wait for a job; when the waiting is cancelled, so is the job."""
    future: Future[Any] = job.future
    return await asyncio.wrap_future(future)
