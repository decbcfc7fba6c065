"""Numbers for Prometheus. Where several workers serve one port, the sums of all are shown, whichever is asked."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client is told of the folder that workers share."""


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

    def page(self) -> bytes:
        """In Prometheus' text format."""
        if SHARED not in os.environ:
            return generate_latest(self.registry)
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)
        return generate_latest(everyone)


class DecisionMetrics(Metrics):
    """And what only the decision server may know.

    Drift is the rate of `luring_disagreements_total` to `luring_images_total` beside `luring_disagreement_calibrated`.
    """

    def __init__(self, threshold: float, disagreement: float, fpr: float | None) -> None:
        """The guard's threshold, and what was measured on clean images: how often M and M∘P disagree, and the false-alarm rate wanted."""
        super().__init__()
        self.images = Counter("luring_images", "Images decided on.", registry=self.registry)
        self.disagreements = Counter(
            "luring_disagreements", "Images that M and M∘P answer differently.", registry=self.registry
        )
        self.flagged = Counter("luring_flagged", "Images above the threshold.", registry=self.registry)
        self.score = Histogram(
            "luring_score",
            "The guard's score as a share of its threshold.",
            buckets=(0.05, 0.1, 0.2, 0.5, 0.8, 1, 1.25, 2, 5, 10, 100),
            registry=self.registry,
        )
        for name, text, value in (
            ("luring_threshold", "The guard's threshold.", threshold),
            (
                "luring_disagreement_calibrated",
                "Share of clean test images that M and M∘P answer differently.",
                disagreement,
            ),
            ("luring_false_alarm_rate_wanted", "False-alarm rate that the threshold was set for.", fpr),
        ):
            if value is not None:
                Gauge(name, text, registry=self.registry, multiprocess_mode="max").set(value)
