"""The decoy server: an ordinary classifier to whoever asks. Its process never loads the decision."""

from typing import Any

import numpy as np
import torch
from starlette.types import ASGIApp

from luring import bundle, layout
from luring.serve.app import Served, application
from luring.serve.batching import Answers
from luring.serve.dense import for_few
from luring.serve.metrics import Metrics
from luring.serve.settings import Settings


def served(loaded: bundle.Bundle) -> Served:
    """M∘P: logits, and what follows from them."""
    classes = tuple(map(str, loaded.config["classes"]))
    channels, height, width = map(int, loaded.config["shape"])
    layout.channels_last(loaded.decoy, (channels, height, width))
    for_few(loaded.decoy)

    def network(images: np.ndarray) -> Answers:
        with torch.inference_mode():
            return {"logits": loaded.decoy(torch.from_numpy(images)).float().numpy()}

    def prediction(found: Answers, place: int) -> dict[str, Any]:
        logits = found["logits"][place].astype(np.float64)
        likely = np.exp(logits - logits.max())
        label = int(logits.argmax())
        return {"label": label, "class": classes[label], "probabilities": (likely / likely.sum()).tolist()}

    return Served(
        network=network,
        shape=(channels, height, width),
        scaling=loaded.scaling,
        classes=classes,
        outputs={"logits": ("FP32", [len(classes)])},
        prediction=prediction,
        metrics=Metrics(),
        seen=lambda _found: {},
    )


def app(settings: Settings) -> ASGIApp:
    """The server of a bundle."""
    found = served(bundle.load(settings.bundle, target=settings.target, lure=settings.lure, weights=settings.weights))
    found.network(np.zeros((settings.batch, *found.shape), np.float32))
    return application(settings, found)
