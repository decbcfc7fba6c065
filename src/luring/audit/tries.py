"""One attack of the ladder, described before it is run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from luring import answers
from luring.attacks import ATTACKS, Queried, preset
from luring.attacks.chunks import BATCH
from luring.audit.budget import Budget
from luring.transfer import Clean, craft
from luring.weights import digest

QUERIED = ("square", "spsa", "nes", "zoo", "parsimonious", "hop-skip-jump", "boundary")
"""Presets that ask for scores or labels."""


@dataclass(frozen=True, eq=False)
class Crafted:
    """Examples, and what finding them took.

    Attributes:
        images: [n, channels, height, width], on the CPU.
        clean: what they were made of.
        fooled: of an attack by queries, whether what it asked was fooled, [n].
        queries: of an attack by queries, how many each image took, [n].
    """

    images: Tensor
    clean: Clean
    fooled: Tensor | None = None
    queries: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Try:
    """An attack on a defence.

    Attributes:
        rung: of the ladder.
        attack: its name.
        on: what it is crafted on.
        settings: all that its result depends on.
        craft: does it.
    """

    rung: int
    attack: str
    on: str
    settings: Mapping[str, Any]
    craft: Callable[[], Crafted]


@dataclass(frozen=True, eq=False)
class Setting:
    """What every rung is told.

    Attributes:
        clean: test images to attack.
        eps: radius of the l∞ ball.
        budget: how much is spent.
        seed: of everything that is drawn.
    """

    clean: Clean
    eps: float
    budget: Budget
    seed: int

    @property
    def few(self) -> Clean:
        """The images that attacks by queries are run on."""
        return self.clean.first(self.budget.few)


def named(rung: int, name: str, on: str, model: nn.Module, setting: Setting) -> Try:
    """A preset crafted on a model, with the budget's steps, samples and queries."""
    known = ATTACKS[name].settings
    chosen: dict[str, float | int] = {}
    if "steps" in known:
        chosen["steps"] = setting.budget.steps
    if "step" in known and "steps" in known:
        # Twice the radius in all: from a corner of the ball to the opposite one.
        chosen["step"] = 2 * setting.eps / setting.budget.steps
    if "samples" in known and name not in QUERIED:
        chosen["samples"] = setting.budget.samples
    if "targets" in known:
        chosen["targets"] = setting.budget.targets
    if "budget" in known:
        chosen["budget"] = setting.budget.queries
    if name == "spsa":
        chosen["samples"] = min(32, max(1, setting.budget.queries // 10))
    attack = preset(name, eps=setting.eps, seed=setting.seed, **chosen)
    clean = setting.few if name in QUERIED else setting.clean
    settings = {**attack.describe(), "weights": digest(model), "choice": clean.digest}

    def made() -> Crafted:
        if name not in QUERIED:
            return Crafted(craft(attack, model, clean, batch=BATCH), clean)
        device = next(model.parameters()).device
        x, y = answers.prepare(clean.images, model), clean.labels.to(device)
        generator = torch.Generator(device).manual_seed(setting.seed)
        found = ATTACKS[name].function(model, x, y, **dict(attack.settings), generator=generator)
        assert isinstance(found, Queried), "an attack by queries says how many it took"
        return asked(found, clean)

    return Try(rung, name, on, settings, made)


def asked(found: Queried, clean: Clean) -> Crafted:
    """What an attack by queries found, on the CPU."""
    return Crafted(found.images.cpu(), clean, found.fooled.cpu(), found.queries.cpu())
