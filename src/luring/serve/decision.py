"""The decision server: M's label, and whether it should be believed. It is for the operator alone."""

from typing import Any

import numpy as np
import torch
from starlette.types import ASGIApp

from luring import bundle, guard
from luring.guard import Detector
from luring.serve.app import Served, application
from luring.serve.batching import Answers
from luring.serve.metrics import DecisionMetrics
from luring.serve.settings import Mode, Settings

REJECTED = -1
"""The label of a rejected image, by V2; by `/predict` it is null."""

OUTPUTS: dict[Mode, dict[str, tuple[str, list[int]]]] = {
    "shadow": {"label": ("INT64", [])},
    "flag": {"label": ("INT64", []), "score": ("FP64", []), "flagged": ("BOOL", [])},
    "reject": {"label": ("INT64", []), "flagged": ("BOOL", [])},
}
"""What leaves: in `shadow` M's label as if there were no guard (the log has the rest), in `reject` no label of what is flagged."""


def served(loaded: bundle.Bundle, detector: Detector, mode: Mode) -> Served:
    """M and M∘P with the detector's decision."""
    classes = tuple(map(str, loaded.config["classes"]))
    channels, height, width = map(int, loaded.config["shape"])
    threshold = detector.threshold
    assert threshold is not None, "a detector that was loaded has a threshold"
    metrics = DecisionMetrics(threshold, float(loaded.config["metrics"]["disagreement"]), detector.fpr)

    def network(images: np.ndarray) -> Answers:
        x = torch.from_numpy(images)
        with torch.inference_mode():
            m, mop = loaded.target(x), loaded.decoy(x)
            scores = guard.scored(detector.policy, m, mop, detector.reference)
        flagged, label = scores > threshold, m.argmax(1)
        shown = label.where(~flagged, torch.tensor(REJECTED)) if mode == "reject" else label
        found = {"label": shown, "score": scores, "flagged": flagged, "disagree": label != mop.argmax(1)}
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
        classes=classes,
        outputs=OUTPUTS[mode],
        prediction=prediction,
        metrics=metrics,
        seen=seen,
    )


def app(settings: Settings) -> ASGIApp:
    """The server of a calibrated bundle."""
    loaded = bundle.load(settings.bundle, target=settings.target, lure=settings.lure)
    found = served(loaded, Detector.load(settings.bundle, loaded.target, loaded.decoy), settings.mode)
    found.network(np.zeros((settings.batch, *found.shape), np.float32))
    return application(settings, found)
