"""The decision server: M's label, and whether it should be believed. It is for the operator alone."""

from typing import Any

import numpy as np
import torch
from prometheus_client import Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp

from luring import bundle, guard, layout
from luring.guard import Detector
from luring.serve.app import Served, application
from luring.serve.batching import Answers
from luring.serve.dense import for_few
from luring.serve.metrics import Metrics
from luring.serve.settings import Mode, Settings

FEW = 16
"""Images up to which M is asked for x and P(x) at once: reading its weights is most of the work. Of more, the layers' outputs would leave the cache."""

REJECTED = -1
"""The label of a rejected image, by V2; by `/predict` it is null."""

OUTPUTS: dict[Mode, dict[str, tuple[str, list[int]]]] = {
    "shadow": {"label": ("INT64", [])},
    "flag": {"label": ("INT64", []), "score": ("FP64", []), "flagged": ("BOOL", [])},
    "reject": {"label": ("INT64", []), "flagged": ("BOOL", [])},
}
"""What leaves: in `shadow` M's label as if there were no guard (the log has the rest), in `reject` no label of what is flagged."""


class DecisionMetrics(Metrics):
    """And what only the decision server may know."""

    def __init__(self, threshold: float, disagreement: float, fpr: float | None) -> None:
        """The guard's threshold, and what was measured on clean images: how often M and M∘P disagree, and the false-alarm rate wanted."""
        super().__init__()
        self.disagreement = disagreement
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
                "Share of clean images that M and M∘P answer differently.",
                disagreement,
            ),
            ("luring_false_alarm_rate_wanted", "False-alarm rate that the threshold was set for.", fpr),
        ):
            if value is not None:
                Gauge(name, text, registry=self.registry, multiprocess_mode="max").set(value)

    def page(self) -> bytes:
        """With the rates since the start, taken from the sums of all workers."""
        counted = self.everyone()
        images, disagreements = (
            sum(
                sample.value
                for metric in counted.collect()
                for sample in metric.samples
                if sample.name == f"luring_{name}_total"
            )
            for name in ("images", "disagreements")
        )
        page = generate_latest(counted).decode()
        if images:
            rate = disagreements / images
            page += _gauge("luring_disagreement_rate", "Share of all images that M and M∘P answered differently.", rate)
            drift = rate - self.disagreement
            page += _gauge("luring_disagreement_drift", "That share minus the calibrated one.", drift)
        return page.encode()


def _gauge(name: str, text: str, value: float) -> str:
    """Of this page alone: no worker's file holds it."""
    return f"# HELP {name} {text}\n# TYPE {name} gauge\n{name} {value}\n"


def served(loaded: bundle.Bundle, detector: Detector, mode: Mode) -> Served:
    """M and M∘P with the detector's decision."""
    classes = tuple(map(str, loaded.config["classes"]))
    channels, height, width = map(int, loaded.config["shape"])
    threshold = detector.threshold
    assert threshold is not None, "a detector that was loaded has a threshold"
    calibrated = detector.disagreement
    if calibrated is None:  # a guard that was not calibrated on images, or by an older Luring
        calibrated = float(loaded.config["metrics"]["disagreement"])
    metrics = DecisionMetrics(threshold, calibrated, detector.fpr)

    for part in (loaded.target, loaded.decoy):
        layout.channels_last(part, (channels, height, width))
        for_few(part)
    apart = "stack" in loaded.config["digests"]

    def network(images: np.ndarray) -> Answers:
        x = torch.from_numpy(images)
        with torch.inference_mode():
            if apart or len(x) > FEW:
                logits = torch.cat([loaded.target(x), loaded.decoy(x)])
            else:  # M's weights are gone through once
                logits = loaded.target(torch.cat([x, loaded.lure(x)]))
            logits = logits.double()
            m, mop = logits.chunk(2)
            label, answered = logits.argmax(1).chunk(2)
            scores = guard.scored(detector.policy, m, mop, detector.reference)
            flagged = scores > threshold
            shown = label.masked_fill(flagged, REJECTED) if mode == "reject" else label
            disagree = label != answered
        found = {"label": shown, "score": scores, "flagged": flagged, "disagree": disagree}
        return {name: values.numpy() for name, values in found.items()}

    def prediction(found: Answers, place: int) -> dict[str, Any]:
        label = int(found["label"][place])
        rejected = label == REJECTED
        said = {"label": None if rejected else label, "class": None if rejected else classes[label]}
        for name in OUTPUTS[mode]:
            if name != "label":
                said[name] = found[name][place].item()
        return said

    def seen(found: Answers) -> dict[str, Any]:
        metrics.images.inc(len(found["label"]))
        metrics.disagreements.inc(int(found["disagree"].sum()))
        metrics.flagged.inc(int(found["flagged"].sum()))
        for score in found["score"]:
            metrics.score.observe(score / threshold if threshold else score)
        return {"flagged": np.flatnonzero(found["flagged"]).tolist(), "scores": found["score"].round(4).tolist()}

    return Served(
        network=network,
        shape=(channels, height, width),
        scaling=loaded.scaling,
        classes=classes,
        outputs=OUTPUTS[mode],
        prediction=prediction,
        metrics=metrics,
        seen=seen,
    )


def app(settings: Settings) -> ASGIApp:
    """The server of a calibrated bundle."""
    loaded = bundle.load(settings.bundle, target=settings.target, lure=settings.lure, weights=settings.weights)
    found = served(loaded, Detector.load(settings.bundle, loaded.target, loaded.decoy), settings.mode)
    found.network(np.zeros((settings.batch, *found.shape), np.float32))
    return application(settings, found)
