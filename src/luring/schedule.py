"""How long and how fast to train."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import torch

from luring.errors import InputError

Precision: TypeAlias = Literal["float32", "bfloat16"]

LATER = {"accumulate": 1, "ema": None, "patience": None}
"""Settings that came after the first results were stored, with what they do nothing at: `describe` tells them only where they do something."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train, by Adam.

    Attributes:
        steps: number of batches.
        batch: images a step, of all processes together.
        lr: highest learning rate.
        shape: `cosine`: up over the first tenth of the steps, then down to 0 along a cosine; `steps`: a fifth of it after 70 % of
            the steps and a fifth of that after 90 %, as the paper's MNIST lures; `constant`.
        beta2: decay of Adam's mean squared gradient. At high rates a shorter memory than Adam's own 0.999 keeps the luring loss, whose gradient
            grows thirtyfold in the first steps, from jumping.
        precision: of the convolutions; weights and losses stay float32.
        validations: how many times the validation images are looked at, evenly spread; the best state is kept.
        accumulate: parts that a process takes its share of a batch in, one after the other; their gradients add up to that of the whole.
        ema: decay of a moving average of the weights, from 0 to 1; the average is then what is validated and kept.
        patience: validations without a higher score after which the training ends; `None` goes through all steps.
    """

    steps: int
    batch: int = 64
    lr: float = 1e-3
    shape: Literal["cosine", "steps", "constant"] = "cosine"
    beta2: float = 0.999
    precision: Precision = "float32"
    validations: int = 40
    accumulate: int = 1
    ema: float | None = None
    patience: int | None = None

    def check(self, images: int, processes: int = 1) -> None:
        """Raise `InputError` where this many images and processes leave nothing to train, or a setting is out of range."""
        if min(self.steps, self.batch, images) < 1:
            raise InputError(
                f"there is nothing to train with {images} images, batches of {self.batch} and {self.steps} steps: "
                "all three must be above 0."
            )
        parts = processes * self.accumulate
        if self.accumulate < 1 or min(self.batch, images) < parts:
            raise InputError(
                f"a batch of {min(self.batch, images)} images cannot be taken in {self.accumulate} part(s) by each of {processes} process(es): "
                "give a larger batch, or fewer parts."
            )
        if self.ema is not None and not 0 < self.ema < 1:
            raise InputError(
                f"the decay of the weights' average is {self.ema:g}: give one above 0 and below 1, 0.999 say."
            )
        if self.patience is not None and self.patience < 1:
            raise InputError(f"patience is {self.patience}: give 1 validation or more, or leave it out.")

    def describe(self) -> dict[str, Any]:
        """The settings as rows and states hold them."""
        return {name: value for name, value in asdict(self).items() if name not in LATER or value != LATER[name]}

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if self.shape == "constant":
            return self.lr
        if self.shape == "steps":
            return self.lr * 0.2 ** ((step >= 0.7 * self.steps) + (step >= 0.9 * self.steps))
        warm = max(1, self.steps // 10)
        if step < warm:
            return self.lr * (step + 1) / warm
        return self.lr * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm))) / 2

    def validates(self, step: int) -> bool:
        """Whether the validation images are looked at after this many steps."""
        every = max(1, self.steps // self.validations)
        return step % every == 0 or step == self.steps


def emulated(device: torch.device) -> bool:
    """Whether bfloat16 is computed by way of float32 there: it is on processors without AVX-512 or AMX, and is then slower than float32."""
    known = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return device.type == "cpu" and not known
