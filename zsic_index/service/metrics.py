"""Metrics for Prometheus."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one service, in a registry of its own."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.registry = registry
        self.requests = Counter(
            "zsic_requests", "Requests answered.", ("path", "status"), registry=registry
        )
        self.seconds = Histogram(
            "zsic_request_seconds",
            "From the first byte of a request to the last of its response.",
            ("path",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_progress = Gauge(
            "zsic_requests_in_progress", "Requests in progress.", registry=registry
        )
        self.pending_bytes = Gauge(
            "zsic_pending_bytes", "Bytes of request bodies in memory.", registry=registry
        )
        self.images = Counter(
            "zsic_images", "Images of requests, by outcome.", ("outcome",), registry=registry
        )
        self.batch_size = Histogram(
            "zsic_batch_size",
            "Images per pass through the vision tower, or embeddings per scan.",
            ("stage",),
            buckets=_SIZES,
            registry=registry,
        )
        self.waiting = Gauge(
            "zsic_waiting",
            "Images or embeddings queued for a stage.",
            ("stage",),
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "zsic_stage_seconds",
            "Decoding of an image, or vision tower or scan of a batch.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.generation = Gauge(
            "zsic_index_generation",
            "Generation of the index that is served.",
            ("index",),
            registry=registry,
        )
        self.labels = Gauge(
            "zsic_index_labels", "Number of labels of an index.", ("index",), registry=registry
        )
