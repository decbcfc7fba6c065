"""Configured attacks: a name and settings that can be printed, hashed and stored in a row, and called as (model, x, y)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import torch

from luring.attacks.asked import Queried
from luring.attacks.registry import ATTACKS
from luring.errors import InputError
from luring.types import Classifier, Images, Labels

Setting: TypeAlias = float | int | bool | str

DEFAULTS: Mapping[str, Setting] = MappingProxyType({"step": 0.01, "steps": 100, "radius": 1.0, "budget": 1000})
"""What a preset sets where neither the caller nor the attack's function says anything: the luring paper's settings for CIFAR10."""


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
        known = ATTACKS[self.name]
        drawn = {"generator": torch.Generator(x.device).manual_seed(self.seed)} if known.draws else {}
        made = known.function(model, x, y, **dict(self.settings), **drawn)
        return made.images if isinstance(made, Queried) else made

    def describe(self) -> dict[str, Any]:
        """Name, settings and seed as a row holds them."""
        return {"attack": self.name, **dict(self.settings), "attack_seed": self.seed}

    def but(self, seed: int | None = None, /, **settings: Setting) -> "Attack":
        """The same attack with other settings; none of them moves another (a step stays as long as it is where `eps` changes)."""
        merged: dict[str, Any] = {**dict(self.settings), **settings}
        return preset(self.name, seed=self.seed if seed is None else seed, **merged)


def preset(name: str, *, eps: float, seed: int = 0, **settings: Setting) -> Attack:
    """A configured attack, with its function's numbers, else `DEFAULTS`, for what is not given.

    Args:
        name: a key of `ATTACKS`.
        eps: radius of the ball.
        seed: of its draws.
        settings: keywords of the attack's function.

    Raises:
        InputError: no such attack, or it has no such setting.
    """
    if name not in ATTACKS:
        raise InputError(f"there is no attack '{name}': give one of {', '.join(ATTACKS)}.")
    known = ATTACKS[name]
    for setting in settings:
        if setting not in known.settings:
            raise InputError(f"the attack '{name}' has no setting '{setting}': it has {', '.join(known.settings)}.")
    chosen = {setting: value for setting, value in DEFAULTS.items() if setting in known.settings} | known.numbers
    if known.step_of_eps is not None:
        chosen["step"] = known.step_of_eps * eps
    return Attack(name, tuple(sorted({**chosen, **settings, "eps": eps}.items())), seed)


def table() -> str:
    """The attacks as a Markdown table, drawn from the registry and the presets' defaults."""
    lines = ["| preset | attack | source | norm | knows | passes | settings |", "|---|---|---|---|---|---|---|"]
    for name, known in ATTACKS.items():
        numbers = dict(preset(name, eps=0.0).settings) | (
            {"step": f"{known.step_of_eps:g} eps"} if known.step_of_eps else {}
        )
        settings = ", ".join(
            f"{key} {value if isinstance(value, str) else f'{value:g}'}"
            for key, value in numbers.items()
            if key != "eps"
        )
        lines.append(
            f"| `{name}` | {known.does} | {known.source} | {known.norms} | {known.knows} | {known.passes} | {settings or 'none'} |"
        )
    return "\n".join(lines)
