"""Transfer: craft on the decoy, project, show to the target, tune as the adversary would, measure."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from luring import answers, attacks, metrics
from luring.answers import Ask
from luring.attacks import Attack
from luring.attacks.balls import linf
from luring.attacks.chunks import BATCH, BatchSize
from luring.errors import InputError
from luring.types import Classifier


@dataclass(frozen=True)
class Clean:
    """Images that every model concerned classifies correctly, to be attacked.

    Attributes:
        images: float in [0, 1], [n, channels, height, width].
        labels: the truth, [n].
        index: where they stand in the test set, [n].
    """

    images: Tensor
    labels: Tensor
    index: Tensor

    def first(self, n: int) -> "Clean":
        """The first `n` of them."""
        return Clean(self.images[:n], self.labels[:n], self.index[:n])

    @property
    def digest(self) -> str:
        """A short name for which images these are."""
        return hashlib.sha256(self.index.numpy().tobytes()).hexdigest()[:12]


def choose(
    models: Sequence[Classifier],
    images: Tensor,
    labels: Tensor,
    *,
    n: int = 1000,
    seed: int = 0,
    ask: Ask = answers.logits,
) -> Clean:
    """Draw images that all models classify correctly.

    Args:
        models: M and every M∘P that is to be compared.
        images: test images, [count, channels, height, width], bytes or floats in [0, 1].
        labels: their truth, [count].
        n: how many; all there are, where there are fewer.
        seed: of the draw.
        ask: how the models are asked.

    Raises:
        InputError: not a single image is classified correctly by all.
    """
    right = torch.ones(len(labels), dtype=torch.bool)
    for model in models:
        right &= ask(model, images).argmax(1).cpu() == labels
    found = right.nonzero().squeeze(1)
    if not len(found):
        raise InputError(
            "no test image is classified correctly by all models: look whether the target is trained and its images are normalised."
        )
    drawn = found[torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[:n]]
    return Clean(answers.prepare(images[drawn], None), labels[drawn], drawn)


def craft(
    attack: Attack,
    model: Classifier,
    clean: Clean,
    *,
    batch: BatchSize = BATCH,
    state: Path | None = None,
    show: bool = False,
) -> Tensor:
    """Examples for a model, projected once more on the l∞ ball of the attack's eps and on [0, 1].

    Args:
        attack: a preset; each batch has draws of its own.
        model: M∘P.
        clean: images to attack.
        batch: images at a time, or `auto`.
        state: a file for finished batches, as for `attacks.craft`.
        show: show progress.

    Returns:
        Images like `clean.images`, on the CPU.
    """
    made = attacks.craft(attack, model, clean.images, clean.labels, batch=batch, state=state, show=show)
    return linf(clean.images, float(dict(attack.settings)["eps"])).project(made)


@dataclass(frozen=True)
class Transferred:
    """What M and M∘P answer to examples crafted on M∘P.

    Attributes:
        m: M's labels, [n].
        mop: M∘P's labels, [n].
        truth: the true labels, [n].
    """

    m: Tensor
    mop: Tensor
    truth: Tensor

    def measures(self) -> dict[str, float]:
        """`ac_mop`, `ac_m`, `dac`, `dr`, `adq`, as the rows name them."""
        triple = (self.m, self.mop, self.truth)
        return {
            "ac_mop": metrics.accuracy(self.mop, self.truth),
            "ac_m": metrics.accuracy(self.m, self.truth),
            "dac": metrics.detection_adversarial_accuracy(*triple),
            "dr": metrics.detection_rate(*triple),
            "adq": metrics.adequation_rate(*triple),
        }

    def encoded(self) -> dict[str, str]:
        """The three vectors as the rows hold them: base64 of bytes, or of little-endian pairs of bytes from 257 classes on."""
        wide = max(int(v.max()) for v in (self.m, self.mop, self.truth)) > 255
        kind = "<u2" if wide else "u1"
        vectors = {"y": self.truth, "m": self.m, "mop": self.mop}
        return {name: base64.b64encode(v.numpy().astype(kind).tobytes()).decode() for name, v in vectors.items()}


def transfer(target: Classifier, decoy: Classifier, examples: Tensor, truth: Tensor) -> Transferred:
    """Show examples to M and M∘P."""
    return Transferred(answers.labels(target, examples).cpu(), answers.labels(decoy, examples).cpu(), truth)


def tune(
    attack: Attack,
    over: Mapping[str, Sequence[float | int]],
    target: Classifier,
    decoy: Classifier,
    clean: Clean,
    *,
    batch: BatchSize = BATCH,
    show: bool = False,
) -> tuple[Attack, list[dict[str, Any]]]:
    """The adversary's search: every combination of the settings in `over`, the best transfer kept.

    Best is the lowest AC_M, ties by DAC, then the first tried. Nothing of the defender's is chosen here.

    Args:
        attack: with the settings that are not searched.
        over: values to try, by setting; empty where there is nothing to search.
        target: M.
        decoy: M∘P, which the attack is crafted on.
        clean: images for the search.
        batch: images at a time.
        show: show progress.

    Returns:
        The attack with the settings found, and all that was tried, as a row's `tried` holds it.
    """
    if not over:
        return attack, []
    tried: list[dict[str, Any]] = []
    for values in product(*over.values()):
        settings = dict(zip(over, values, strict=True))
        found = transfer(
            target, decoy, craft(attack.but(**settings), decoy, clean, batch=batch, show=show), clean.labels
        ).measures()
        tried.append(
            {"settings": settings, "n": len(clean.labels), **{name: found[name] for name in ("ac_mop", "ac_m", "dac")}}
        )
    best = min(tried, key=lambda trial: (trial["ac_m"], trial["dac"]))
    return attack.but(**best["settings"]), tried


def l0_quartiles(clean: Tensor, examples: Tensor) -> list[float]:
    """Minimum, quartiles and maximum of the number of values changed, as a row's `l0` holds them."""
    changed = metrics.l0_distortion(clean, examples).double()
    return torch.quantile(changed, torch.linspace(0, 1, 5, dtype=torch.float64)).tolist()
