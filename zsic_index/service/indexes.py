"""Served indexes: opened, replaced after a rebuild, and dropped after removal."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cachetools import LRUCache

from zsic_index.errors import (
    IndexNotFoundError,
    InputError,
    StoreError,
    ZsicError,
)
from zsic_index.label_index import LabelIndex
from zsic_index.querying.compiled import CompiledQuery, compile_query
from zsic_index.querying.query import Query
from zsic_index.records import IndexInfo
from zsic_index.service.engine import Engine, Tower
from zsic_index.service.metrics import Metrics
from zsic_index.service.settings import Settings
from zsic_index.store import Store
from zsic_index.store.location import StoreLocation
from zsic_index.store.waiting import wait_until_readable

logger = logging.getLogger("zsic_index")

_COMPILED = 64
"""Maximum number of compiled queries to cache for each index."""

Cached = TypeVar("Cached")


@dataclass(frozen=True, slots=True)
class Version:
    """The version of an index, which changes with every rebuild and calibration.

    Attributes:
        index_id: id of the index in the store.
        generation: generation of the index.
        calibration: sha256 of the calibration, hexadecimal; None without one.
    """

    index_id: int
    generation: int
    calibration: str | None


class ServedIndex:
    """One generation of an index, with a cache of compiled queries.

    Args:
        index: pinned index.
        tower_of_index: vision tower of its encoder; None for an index without a model.
        settings: settings of the service.
    """

    def __init__(self, index: LabelIndex, tower_of_index: Tower | None, settings: Settings) -> None:
        self.index = index
        self.tower_of_index = tower_of_index
        self._settings = settings
        self._compiled: LRUCache[str, CompiledQuery] = LRUCache(_COMPILED)
        self._variants: LRUCache[str, ServedIndex] = LRUCache(settings.max_template_sets)
        self._lock = threading.Lock()

    @property
    def info(self) -> IndexInfo:
        """Description of the index in the store."""
        return self.index.info

    @property
    def tower(self) -> Tower:
        """Vision tower of the index.

        Raises:
            InputError: for an index without a model.
        """
        if self.tower_of_index is None:
            raise InputError(
                f"index {self.info.name!r} was imported without a model: send ready embeddings to "
                "/v1/score"
            )
        return self.tower_of_index

    @property
    def is_calibrated(self) -> bool:
        """True if the index has a calibration."""
        return self.index.find_calibration() is not None

    async def compile(self, query: Query, engine: Engine) -> CompiledQuery:
        """Return a compiled query, from the cache or compiled in another thread.

        Raises:
            InputError: if the index cannot answer the query.
        """
        if query.labels:
            # Not cached: such queries rarely repeat, and each holds a matrix.
            return await engine.aside(compile_query, query, self.index)
        key = repr(query)
        compiled = self._cached(self._compiled, key)
        if compiled is not None:
            return compiled
        return await engine.aside(
            self._get_or_make, self._compiled, key, lambda: compile_query(query, self.index)
        )

    async def under(self, templates: tuple[str, ...], engine: Engine) -> ServedIndex:
        """Return the variant with other templates, from the cache or encoded in another thread.

        The store is not written to: a variant is in memory only.

        Raises:
            InputError: if requests may have no templates, or more prompts than one may encode.
            ModelError: if the index has no model.
        """
        if not self._settings.max_template_sets:
            raise InputError(
                "templates of requests are not used here: leave them out, or start the service "
                "with --templates N"
            )
        prompts = self.info.rows * len(templates)
        if prompts > self._settings.max_template_prompts:
            raise InputError(
                f"{len(templates)} templates for {self.info.rows:,} names are {prompts:,} prompts; "
                f"the limit is {self._settings.max_template_prompts:,}: build an index with them"
            )
        key = repr(templates)
        variant = self._cached(self._variants, key)
        if variant is not None:
            return variant
        # One thread: a second request for the same templates waits and finds them encoded.
        return await engine.encode_labels(
            self._get_or_make, self._variants, key, lambda: self._with_templates(templates)
        )

    def _cached(self, cache: LRUCache[str, Cached], key: str) -> Cached | None:
        with self._lock:
            return cache.get(key)

    def _get_or_make(
        self, cache: LRUCache[str, Cached], key: str, make: Callable[[], Cached]
    ) -> Cached:
        """Return a cached value, or make it; of two that are made at a time the first is kept."""
        value = self._cached(cache, key)
        if value is not None:
            return value
        value = make()
        with self._lock:
            return cache.setdefault(key, value)

    def _with_templates(self, templates: tuple[str, ...]) -> ServedIndex:
        index = self.index.with_templates(templates, keep=False)
        return ServedIndex(index, self.tower_of_index, self._settings)


class Registry:
    """All served indexes.

    A request gets its index once, and is not affected when the index is replaced meanwhile.
    """

    def __init__(self, settings: Settings, engine: Engine, metrics: Metrics) -> None:
        self._settings = settings
        self._engine = engine
        self._metrics = metrics
        wait_until_readable(
            StoreLocation.parse(settings.store), settings.max_store_wait, logger.warning
        )
        self._store = Store.open(settings.store)
        self._served: dict[str, tuple[Version, ServedIndex]] = {}
        self._towers: dict[str, Tower] = {}
        self._unused_since: dict[str, float] = {}
        self.troubles: dict[str, str] = {}
        """Why indexes could not be opened at the last refresh, by name."""

    def get(self, name: str | None = None) -> ServedIndex:
        """Return an index by its name, or the only one.

        Raises:
            IndexNotFoundError: if no index of that name is served.
            InputError: for no name if several indexes are served.
        """
        served = self._served
        if name is None:
            if len(served) == 1:
                return next(iter(served.values()))[1]
            raise InputError(
                f"name an index, one of: {', '.join(served) or '(there are none yet)'}"
            )
        if name not in served:
            raise IndexNotFoundError(
                f"no index {name[:100]!r} is served; GET /v1/indexes lists those that are"
            )
        return served[name][1]

    def all(self) -> list[ServedIndex]:
        """Return all indexes, sorted by name."""
        return [served for _, (_, served) in sorted(self._served.items())]

    @property
    def towers(self) -> list[Tower]:
        """Vision towers of all indexes."""
        return list(self._towers.values())

    def refresh(self) -> None:
        """Open new and rebuilt indexes, and drop removed ones; not thread-safe.

        If an index cannot be opened, the reason is kept and its last version stays.

        Raises:
            StoreError: if the store cannot be read; then nothing changes.
        """
        present = self._present()
        served = {name: entry for name, entry in self._served.items() if name in present}
        for name, info in present.items():
            version = self._version(info)
            if name in served and served[name][0] == version:
                continue
            try:
                # The version was read before: if the index changes meanwhile, the next refresh
                # opens it again.
                served[name] = (version, self._open(name))
            except ZsicError as error:
                self._record_trouble(name, str(error))
            else:
                self.troubles.pop(name, None)
        self._replace(served)
        self._retire()

    def close(self) -> None:
        """End the threads of the vision towers."""
        for tower in self._towers.values():
            tower.batcher.close()
        self._store.close()

    def _record_trouble(self, name: str, trouble: str) -> None:
        """Keep the reason why an index cannot be opened, and log it if it is new."""
        if self.troubles.get(name) != trouble:
            logger.warning("index %s: %s", name, trouble)
        self.troubles[name] = trouble

    def _present(self) -> dict[str, IndexInfo]:
        stored = {info.name: info for info in self._store.indexes.all()}
        names = self._settings.names or stored
        return {name: stored[name] for name in names if name in stored}

    def _version(self, info: IndexInfo) -> Version:
        try:
            calibration = self._store.indexes.read_calibration(info)
        except StoreError:
            calibration = None  # rebuilt meanwhile: the next refresh sees the new generation
        digest = calibration and hashlib.sha256(calibration.encode()).hexdigest()
        return Version(info.index_id, info.generation, digest)

    def _open(self, name: str) -> ServedIndex:
        settings = self._settings
        index = LabelIndex.open(
            name,
            store=settings.store,
            device=settings.device,
            runtime=settings.runtime,
            decode=settings.decode,
        ).pin()
        return ServedIndex(index, self._tower_of(index), settings)

    def _tower_of(self, index: LabelIndex) -> Tower | None:
        if index.info.model_id is None:
            return None
        fingerprint = index.encoder.image_fingerprint
        if fingerprint not in self._towers:
            embedder = index.encoder.image_embedder(self._settings.image_limits)
            embedder.load()
            self._towers[fingerprint] = self._engine.tower(embedder)
        tower = self._towers[fingerprint]
        index.encoder.share(tower.embedder.source)
        return tower

    def _retire(self) -> None:
        """End towers that no index has used for longer than the deadline of a request."""
        used = [served.tower_of_index for _, served in self._served.values()]
        for fingerprint, tower in list(self._towers.items()):
            if tower in used:
                self._unused_since.pop(fingerprint, None)
                continue
            since = self._unused_since.setdefault(fingerprint, time.monotonic())
            if time.monotonic() - since > self._settings.deadline:
                del self._towers[fingerprint], self._unused_since[fingerprint]
                tower.batcher.close()

    def _replace(self, served: dict[str, tuple[Version, ServedIndex]]) -> None:
        gone = self._served.keys() - served.keys()
        self._served = served
        for name in gone:
            self._metrics.generation.remove(name)
            self._metrics.labels.remove(name)
        for name, (_, index) in served.items():
            self._metrics.generation.labels(name).set(index.info.generation)
            self._metrics.labels.labels(name).set(len(index.index))
