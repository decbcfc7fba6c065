"""Numbers for Prometheus. Where several workers serve one port, the sums of all are shown, whichever is asked."""

import os

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client is told of the folder that workers share."""


def restarts(registry: CollectorRegistry) -> Counter:
    """Counted by the supervisor; on a page from the start."""
    return Counter("luring_worker_restarts", "Workers that died and were replaced.", registry=registry)


class Metrics:
    """What both servers count."""

    def __init__(self) -> None:
        """All at 0."""
        self.registry = CollectorRegistry()
        self.requests = Counter("luring_requests", "Requests answered.", ["path", "status"], registry=self.registry)
        self.seconds = Histogram(
            "luring_request_seconds",
            "Seconds from a request's first byte to its answer.",
            ["path"],
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
            registry=self.registry,
        )
        self.batch = Histogram(
            "luring_batch_images",
            "Images the network was asked about at once.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
            registry=self.registry,
        )
        restarts(self.registry)

    def everyone(self) -> CollectorRegistry:
        """The numbers of all workers."""
        if SHARED not in os.environ:
            return self.registry
        found = CollectorRegistry()
        MultiProcessCollector(found)
        return found

    def page(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.everyone())
