"""The guard: from what M and M∘P answer to an image, whether M's label is let out.

Its interface is that of the detectors of Alibi Detect and ART: `fit`, `infer_threshold`, `score`, `predict`, `save`, `load`.
"""

import hashlib
import json
import logging
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from luring import answers
from luring.atomic import write_json
from luring.errors import InputError
from luring.types import Classifier, Logits, PerImage
from luring.weights import digest, write_tensors

log = logging.getLogger("luring")

POLICIES = ("target", "agreement", "confidence", "score")
"""`target`: M's label always goes out. `agreement`: only where M and M∘P answer the same (the paper's second scheme). `confidence`: only where M
is sure (Hendrycks and Gimpel 2017), which needs no lure: the rival to beat. `score`: only where a score of both logit vectors is low enough.
The last two have a threshold, which is set for a wanted false-alarm rate."""

CHOSEN = ("confidence", "score")
"""Policies with a threshold."""

REFERENCE = "guard.safetensors"
FORMAT = 1
"""Of `guard.json`: raised when an older Luring could not read it."""

TYPICAL_MARGIN = 6.0
"""Logits that M's first class of a typical clean image is given above the second, before its doubt is measured: it is sure, and has
not saturated."""
ROUNDING = 1e-4
"""Of a logit in float32, relative and with room: the same image in another batch, or its convolutions in another layout."""
LEAST = torch.tensor([1e-3, 1.0], dtype=torch.float64)
"""The least scales of doubt and distance; those of any pair of networks that differ are higher."""
FEW = 10
"""Fewer clean images than this expected above the threshold make a rough threshold."""


@dataclass(frozen=True)
class Reference:
    """What clean images look like to the score, for `classes` classes; float64.

    Attributes:
        temperature: that M's logits are divided by, [].
        line: from M's logits and a 1 to M∘P's, by least squares, [classes + 1, classes].
        precision: inverse covariance of what the line leaves (Ledoit and Wolf 2004), [classes, classes].
        scale: the 99 % quantiles of the score's two parts, doubt and distance, [2].
    """

    temperature: Tensor
    line: Tensor
    precision: Tensor
    scale: Tensor


def reference(m: Logits, mop: Logits) -> Reference:
    """Learn from the logits of M and M∘P for the same clean images, [n, classes] each.

    Raises:
        InputError: fewer images than twice the unknowns of a line.
    """
    least = 2 * (m.shape[1] + 1)
    if len(m) < least:
        raise InputError(
            f"{len(m)} clean images are too few for a score of {m.shape[1]} classes: give {least} or more."
        )
    from sklearn.covariance import ledoit_wolf  # takes a second

    m, mop = m.detach().cpu().double(), mop.detach().cpu().double()
    temperature = (m.topk(2, dim=1).values.diff(dim=1).neg().median() / TYPICAL_MARGIN).clamp_min(1e-6)
    # The driver that also solves what is not of full rank: logits may be shifted by any number.
    # Contiguous, as they come back from a file: a product's last bit depends on it.
    line = torch.linalg.lstsq(_with_one(m), mop, driver="gelsd").solution.contiguous()
    covariance = torch.from_numpy(ledoit_wolf((mop - _with_one(m) @ line).numpy())[0])
    # What the line leaves may be nothing but rounding (a lure that gives one image for all, whose logits even cancel to 0): nothing shall then hang on it.
    rounding = ROUNDING**2 * torch.maximum(m.square().mean(), mop.square().mean())
    ridge = torch.maximum(1e-9 * covariance.diagonal().mean(), rounding).clamp_min(1e-18)
    precision = torch.linalg.inv(covariance + ridge * torch.eye(len(covariance), dtype=torch.float64)).contiguous()
    raw = Reference(temperature, line, precision, torch.ones(2, dtype=torch.float64))
    return Reference(temperature, line, precision, _parts(m, mop, raw).quantile(0.99, dim=0).maximum(LEAST))


def doubt(m: Logits) -> PerImage:
    """How unsure a classifier is: minus the logarithm of its highest probability; float64, 0 or more."""
    return -m.double().log_softmax(1).amax(1)


def score(m: Logits, mop: Logits, known: Reference) -> PerImage:
    """How unlike a clean image's the two answers are: higher is more suspicious; float64, 0 or more.

    The sum of two parts, each divided by its 99 % quantile on clean images: M's `doubt`, at the temperature, and how far M∘P's logits lie
    from where M's let expect them (squared Mahalanobis distance).
    """
    return (_parts(m.double(), mop.double(), known) / known.scale).sum(1)


def scored(policy: str, m: Logits, mop: Logits, known: Reference | None = None) -> PerImage:
    """What a policy goes by: the score; M's doubt; 1 or 0 where M and M∘P disagree or not; 0 for the policy `target`; float64.

    Raises:
        InputError: the policy is `score`, and nothing is known of clean images.
    """
    if policy == "target":
        return torch.zeros_like(m[:, 0], dtype=torch.float64)
    if policy == "agreement":
        return (m.argmax(1) != mop.argmax(1)).double()
    if policy == "confidence":
        return doubt(m)
    if known is None:
        raise InputError("the detector has not learned what clean images look like: call fit with some first.")
    return score(m, mop, known)


def _parts(m: Tensor, mop: Tensor, known: Reference) -> Tensor:
    """[n, 2]."""
    left = torch.addmm(mop - known.line[-1], m, known.line[:-1], alpha=-1)
    distance = ((left @ known.precision) * left).sum(1).clamp_min(0)
    return torch.stack([doubt(m / known.temperature), distance], 1)


def _with_one(logits: Tensor) -> Tensor:
    return torch.cat([logits, torch.ones_like(logits[:, :1])], 1)


def threshold(scores: PerImage, fpr: float) -> float:
    """The lowest threshold that a further clean image is above with a probability of at most `fpr` (split conformal prediction).

    It is one of the scores: the k-th smallest of n, k = ⌈(n + 1)(1 − fpr)⌉.

    Args:
        scores: of clean images that nothing was learned from, [n].
        fpr: wanted false-alarm rate, between 0 and 1.

    Raises:
        InputError: `fpr` out of range, or too few images for it.
    """
    if not 0 < fpr < 1:
        raise InputError(f"the false-alarm rate is {fpr:g}: give a number between 0 and 1.")
    n = len(scores)
    # Rounded first: (n + 1)(1 − fpr) of 100.00000000000001 is not above 100.
    k = math.ceil(round((n + 1) * (1 - fpr), 9))
    if k > n:
        raise InputError(
            f"{n} clean images cannot show a false-alarm rate of {fpr:g}: give at least {math.ceil(1 / fpr) - 1}, or a higher rate."
        )
    return float(scores.double().sort().values[k - 1])


def chosen(scores: PerImage, fpr: float) -> float:
    """`threshold`, with a warning where it rests on few images."""
    found = threshold(scores, fpr)
    if len(scores) * fpr < FEW:
        log.warning(
            f"the threshold for a false-alarm rate of {fpr:g} rests on the {len(scores) * fpr:.0f} highest of {len(scores)} clean images: "
            f"it is rough; {math.ceil(FEW / fpr)} images would do."
        )
    return found


class Detector:
    """Decides from M and M∘P whether an image is let through.

    Images are [n, channels, height, width], bytes or floats in [0, 1].

    Its answers are for the operator alone: whoever queries the decoy must learn neither M's label nor the decision.
    """

    def __init__(
        self,
        target: Classifier,
        decoy: Classifier,
        *,
        policy: str = "score",
        batch: int = 500,
        show: bool = False,
    ) -> None:
        """A detector that knows nothing yet.

        Args:
            target: M, images to logits.
            decoy: M∘P, images to logits of the same classes.
            policy: one of `POLICIES`.
            batch: images at a time.
            show: show progress where many images are asked about.

        Raises:
            InputError: no such policy.
        """
        if policy not in POLICIES:
            raise InputError(f"there is no policy '{policy}': give one of {', '.join(POLICIES)}.")
        self.target, self.decoy, self.policy, self.batch, self.show = target, decoy, policy, batch, show
        self.reference: Reference | None = None
        self.threshold: float | None = None if policy in CHOSEN else 0.5
        self.fpr: float | None = None
        self.disagreement: float | None = None

    def fit(self, images: Tensor) -> "Detector":
        """Learn from clean images what their answers look like; only the policy `score` has anything to learn."""
        if self.policy == "score":
            self.reference = reference(*self._logits(images))
            self.threshold = self.fpr = self.disagreement = None
        return self

    def score(self, images: Tensor) -> PerImage:
        """How suspicious each image is: the score; M's doubt; 1 or 0 where M and M∘P disagree or not; 0 for the policy `target`.

        Raises:
            InputError: the policy is `score`, and `fit` was not called.
        """
        return scored(self.policy, *self._logits(images), self.reference)

    def infer_threshold(self, images: Tensor, fpr: float = 0.01) -> float:
        """Set the threshold from clean images that `fit` has not seen, so that a share of at most `fpr` of such is above it.

        Raises:
            InputError: the policy has no threshold to choose, or `threshold` refuses.
        """
        if self.policy not in CHOSEN:
            raise InputError(
                f"the policy '{self.policy}' has no threshold: its false-alarm rate is what it is; take the policy 'score' to choose one."
            )
        m, mop = self._logits(images)
        self.threshold, self.fpr = chosen(scored(self.policy, m, mop, self.reference), fpr), fpr
        self.disagreement = float((m.argmax(1) != mop.argmax(1)).double().mean())
        return self.threshold

    def predict(self, images: Tensor) -> dict[str, dict[str, Any]]:
        """The decision on each image.

        Returns:
            `data`: `label` (M's, [n]), `is_adversarial` (bool, [n]), `instance_score` ([n]), `threshold`; `meta`: `name`, `policy`, `fpr`.

        Raises:
            InputError: no threshold yet.
        """
        if self.threshold is None:
            raise InputError("the detector has no threshold yet: call fit and infer_threshold with clean images first.")
        m, mop = self._logits(images)
        scores = scored(self.policy, m, mop, self.reference)
        data = {"label": m.argmax(1).cpu(), "is_adversarial": scores > self.threshold, "instance_score": scores}
        meta = {"name": "luring.guard.Detector", "policy": self.policy, "fpr": self.fpr}
        return {"data": {**data, "threshold": self.threshold}, "meta": meta}

    def save(self, folder: Path) -> None:
        """Write `guard.json`, and `guard.safetensors` where something was learned; the JSON comes last."""
        if self.threshold is None:
            raise InputError("the detector has no threshold yet: call fit and infer_threshold before it is saved.")
        learned = None
        if self.reference is not None:
            write_tensors(folder / REFERENCE, asdict(self.reference))
            learned = hashlib.sha256((folder / REFERENCE).read_bytes()).hexdigest()
        digests = {"target": _digest(self.target), "decoy": _digest(self.decoy), "reference": learned}
        config = {"policy": self.policy, "threshold": self.threshold, "fpr": self.fpr}
        config = {"format": FORMAT, **config, "disagreement": self.disagreement, "digests": digests}
        write_json(folder / "guard.json", config)

    @classmethod
    def load(cls, folder: Path, target: Classifier, decoy: Classifier) -> "Detector":
        """Read what `save` wrote, for the same networks.

        Raises:
            InputError: no guard, a damaged or newer one, or one of other weights.
        """
        try:
            config = json.loads((folder / "guard.json").read_text())
            if config["format"] > FORMAT:
                raise InputError(
                    f"{folder} has a guard of a newer Luring (format {config['format']}, this one reads {FORMAT}): upgrade Luring."
                )
            digests: dict[str, Any] = dict(config["digests"])
            if (digests["target"], digests["decoy"]) != (_digest(target), _digest(decoy)):
                raise InputError(f"{folder}/guard.json was calibrated for networks of other weights: calibrate again.")
            found = cls(target, decoy, policy=config["policy"])
            found.threshold, found.fpr = float(config["threshold"]), config["fpr"]
            found.disagreement = config.get("disagreement")
            if found.policy == "score":
                learned = (folder / REFERENCE).read_bytes()
                if hashlib.sha256(learned).hexdigest() != digests["reference"]:
                    raise InputError(
                        f"{folder / REFERENCE} is not the one that guard.json was written with: calibrate again."
                    )
                tensors = load_tensors(learned)
                found.reference = Reference(**{field.name: tensors[field.name] for field in fields(Reference)})
        except FileNotFoundError as error:
            raise InputError(f"{error.filename} is missing: run 'luring calibrate' on the bundle first.") from error
        except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the guard in {folder} is damaged ({error}): calibrate again.") from error
        return found

    def _logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        m, mop = (
            answers.logits(model, images, batch=self.batch, told=f"asking {name}" if self.show else None).cpu()
            for name, model in (("M", self.target), ("M∘P", self.decoy))
        )
        if m.shape != mop.shape:
            raise InputError(f"M answers {m.shape[1]} classes and M∘P {mop.shape[1]}: give a decoy of this target.")
        return m, mop


def _digest(model: Classifier) -> str | None:
    return digest(model) if isinstance(model, nn.Module) else None
