"""What is counted and measured, for Prometheus."""

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
        own = CollectorRegistry()
        ProcessCollector(registry=own)
        PlatformCollector(registry=own)
        self.registry = own
        self.requests = Counter(
            "zsic_requests", "Requests answered.", ("path", "status"), registry=own
        )
        self.seconds = Histogram(
            "zsic_request_seconds",
            "From a request's first byte to its answer's last.",
            ("path",),
            buckets=_SECONDS,
            registry=own,
        )
        self.in_progress = Gauge("zsic_requests_in_progress", "Requests let in.", registry=own)
        self.pending_bytes = Gauge(
            "zsic_pending_bytes", "Bytes that bodies of requests may take.", registry=own
        )
        self.images = Counter(
            "zsic_images", "Images sent, by what became of them.", ("outcome",), registry=own
        )
        self.batch_size = Histogram(
            "zsic_batch_size",
            "Images of one pass through the vision tower, or embeddings of one scan.",
            ("stage",),
            buckets=_SIZES,
            registry=own,
        )
        self.waiting = Gauge(
            "zsic_waiting", "Images or embeddings queued for a stage.", ("stage",), registry=own
        )
        self.stage_seconds = Histogram(
            "zsic_stage_seconds",
            "Decoding of an image, pass of a batch through the vision tower, scan of a batch.",
            ("stage",),
            buckets=_SECONDS,
            registry=own,
        )
        self.generation = Gauge(
            "zsic_index_generation", "The generation that is served.", ("index",), registry=own
        )
        self.labels = Gauge("zsic_index_labels", "Labels of an index.", ("index",), registry=own)
