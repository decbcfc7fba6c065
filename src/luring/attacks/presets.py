"""Configured attacks: a name and settings that can be printed, hashed and stored in a row, and called as (model, x, y)."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor

from luring.attacks import gradient
from luring.errors import InputError
from luring.types import Classifier, Images, Labels

Setting: TypeAlias = float | int | bool | str

ATTACKS: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {
        "fgsm": gradient.fgsm,
        "bim": gradient.bim,
        "pgd": gradient.pgd,
        "mim": gradient.mim,
        "miml2": gradient.miml2,
        "dim": gradient.dim,
        "mim-ti": gradient.mim_ti,
        "dim-ti": gradient.dim_ti,
    }
)
"""The function of each preset's name."""

DEFAULTS: Mapping[str, Setting] = MappingProxyType(
    {"step": 0.01, "steps": 100, "decay": 1.0, "probability": 0.5, "kernel": 5, "radius": 1.0}
)
"""What a preset sets where nothing else is said, if its attack has such a setting: the luring paper's settings for CIFAR10."""


@dataclass(frozen=True)
class Attack:
    """An attack with its settings: `attack(model, x, y)` crafts.

    Attributes:
        name: a key of `ATTACKS`.
        settings: pairs of a setting's name and value, in alphabetical order.
        seed: of everything it draws; the same seed and batch give the same examples.
    """

    name: str
    settings: tuple[tuple[str, Setting], ...] = field(default=())
    seed: int = 0

    def __call__(self, model: Classifier, x: Images, y: Labels) -> Images:
        """Examples for a model from clean images and labels; see the function of the same name."""
        function = ATTACKS[self.name]
        drawn: dict[str, Any] = {}
        if "generator" in inspect.signature(function).parameters:
            drawn["generator"] = torch.Generator(x.device).manual_seed(self.seed)
        return function(model, x, y, **dict(self.settings), **drawn)

    def describe(self) -> dict[str, Any]:
        """Name, settings and seed as a row holds them."""
        return {"attack": self.name, **dict(self.settings), "attack_seed": self.seed}

    def but(self, seed: int | None = None, /, **settings: Setting) -> "Attack":
        """The same attack with other settings."""
        merged: dict[str, Any] = {**dict(self.settings), **settings}
        return preset(self.name, seed=self.seed if seed is None else seed, **merged)


def preset(name: str, *, eps: float, seed: int = 0, **settings: Setting) -> Attack:
    """A configured attack, with `DEFAULTS` for what is not given.

    Args:
        name: `fgsm`, `bim`, `pgd`, `mim`, `miml2`, `dim`, `mim-ti` or `dim-ti`.
        eps: radius of the l∞ ball.
        seed: of its draws.
        settings: keywords of the attack's function.

    Raises:
        InputError: no such attack, or it has no such setting.
    """
    if name not in ATTACKS:
        raise InputError(f"there is no attack '{name}': give one of {', '.join(ATTACKS)}.")
    keywords = inspect.signature(ATTACKS[name]).parameters
    known = [keyword for keyword in keywords if keyword not in ("model", "x", "y", "generator", "see", "smooth")]
    for setting in settings:
        if setting not in known:
            raise InputError(f"the attack '{name}' has no setting '{setting}': it has {', '.join(known)}.")
    chosen = {setting: value for setting, value in DEFAULTS.items() if setting in known}
    return Attack(name, tuple(sorted({**chosen, **settings, "eps": eps}.items())), seed)
