"""Rung 8: is the audit to be believed? What every honest attack does, checked; most published breaks of defences began where one of these failed.

After Carlini et al. 2019, 'On Evaluating Adversarial Robustness', and Athalye, Carlini and Wagner 2018.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from luring import answers
from luring.attacks import apgd
from luring.attacks.objectives import margin
from luring.audit.defence import FOOLED, Defence
from luring.audit.knowing import crafted
from luring.audit.tries import Setting
from luring.frozen import frozen

SLACK = 0.02
"""Of the images, and one image more: how far a share may lie on the wrong side."""

FACTORS = (0.25, 0.5, 1.0, 2.0)
"""Radii that an attack is run at, in the audit's own."""

LONGER = (1, 2, 4)
"""Numbers of steps that an attack is run with, in a quarter of the audit's own."""

ALL = 0.98
"""Share of the images that an attack without a bound must fool."""

FAR = 4
"""Times the audit's own steps that it may take: it has a long way to go, and towards one wrong class after the other."""

DIRECTIONS = 8
"""Random directions that a gradient is compared along."""

TURNED = 0.1
"""Share of the directions along which the gradient may be off: a step there crosses a fold of the network."""


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        name: of the check.
        on: what it looked at.
        passed: whether it is as it must be.
        figures: what it was decided by.
    """

    name: str
    on: str
    passed: bool
    figures: Mapping[str, Any] = field(default_factory=dict[str, Any])


def rising(name: str, on: str, at: Sequence[float], shares: Sequence[float], n: int) -> Check:
    """A larger radius, or more steps, never help the defender: no share fooled is below an earlier one by more than the slack."""
    drop = max((before - after for place, after in enumerate(shares) for before in shares[:place]), default=0.0)
    return Check(name, on, drop <= SLACK + 1 / n, {"at": list(at), "fooled": list(shares), "n": n})


def nothing_left(on: str, share: float, n: int) -> Check:
    """With a radius of 1 every image can become every other: nothing is left of the defence."""
    return Check("bound", on, share >= ALL, {"fooled": share, "n": n})


def ahead(on: str, white: float, black: float, n: int, *, by: tuple[str, str]) -> Check:
    """Who has the gradient is not behind one who has only queries, or only examples from elsewhere."""
    return Check("order", on, white >= black - SLACK - 1 / n, {"white": white, "black": black, "n": n, "by": list(by)})


def inside(excess: float) -> Check:
    """Every example of the audit lies in [0, 1] and in its ball, but for rounding."""
    return Check("ball", "every example", excess <= 1e-6, {"excess": excess})


def same_twice(on: str, model: nn.Module, images: Tensor) -> Check:
    """The same image has the same answer: what draws at random must be attacked as a mean, which no rung does."""
    first, second = (answers.logits(model, images) for _ in range(2))
    off = float((first - second).abs().max()) / max(float(first.abs().max()), 1e-12)
    return Check("repeat", on, off <= 1e-5, {"difference": off, "n": len(images)})


def gradients(on: str, model: nn.Module, images: Tensor, labels: Tensor, *, eps: float, seed: int) -> Check:
    """The margin's gradient is finite, not zero, and says what finite differences say, in float64, at random points of the balls.

    An image whose gradient vanishes, or points elsewhere than the answers, is one that a gradient attack cannot move. Not at the images
    themselves: on their even backgrounds the values that a pooling layer chooses from are equal, and its gradient is only one of several.
    """
    model = deepcopy(model).double()
    generator = torch.Generator(images.device).manual_seed(seed)
    x = images.double()
    x = (x + eps * (2 * torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device) - 1)).abs()
    x = 1 - (1 - x).abs()
    with torch.enable_grad(), frozen(model):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(margin(model(leaf), labels).sum(), leaf)
    finite = bool(gradient.isfinite().all())
    size = gradient.flatten(1).abs().amax(1)
    moving = float((size > 1e-12).double().mean())
    off = torch.zeros(0, dtype=torch.float64)
    if finite:
        step = 1e-5
        apart: list[Tensor] = []
        with torch.no_grad(), frozen(model):
            for _ in range(DIRECTIONS):
                along = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
                along /= along.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
                ends = [margin(model(x + sign * step * along), labels) for sign in (1, -1)]
                slope = (ends[0] - ends[1]) / (2 * step)
                told = (gradient * along).flatten(1).sum(1)
                apart.append((slope - told).abs() / (slope.abs() + told.abs()).clamp_min(1e-9))
        off = torch.cat(apart)
    wrong = float((off > 0.1).double().mean()) if len(off) else 1.0
    passed = finite and moving >= 1 - SLACK - 1 / len(x) and wrong <= TURNED
    return Check("gradient", on, passed, {"finite": finite, "moving": moving, "off": wrong, "n": len(x)})


def measured(defence: Defence, setting: Setting) -> list[Check]:
    """The checks that attack a defence anew: on its surface, on the classifier that answers, and on each policy.

    Args:
        defence: audited.
        setting: of the audit, with the images that the checks run on.
    """
    x = answers.prepare(setting.clean.images, defence.answer)
    y = setting.clean.labels.to(x.device)
    found: list[Check] = []
    parts = {defence.shown: defence.surface} | ({"M": defence.answer} if defence.shown != "M" else {})
    for on, model in parts.items():
        found.append(same_twice(on, model, x))
        found.append(gradients(on, model, x, y, eps=setting.eps, seed=setting.seed))

        def fooled(eps: float, steps: int, model: nn.Module = model) -> float:
            generator = torch.Generator(x.device).manual_seed(setting.seed)
            made = apgd(model, x, y, eps=eps, steps=steps, generator=generator)
            return float((answers.labels(model, made) != y).double().mean())

        found += _swept(on, fooled, setting)
    for name in defence.policies:
        if name == "target":
            continue

        def passed(eps: float, steps: int, name: str = name) -> float:
            policy = defence.policies[name]
            generator = torch.Generator(x.device).manual_seed(setting.seed)
            again = replace(setting, eps=eps, budget=replace(setting.budget, steps=steps))
            made = crafted(defence, policy, x, y, again, generator, enough=True)
            return float((policy.fates(*defence.logits(made), y) == FOOLED).double().mean())

        found += _swept(f"M and {name}", passed, setting)
    return found


def _swept(on: str, fooled: Any, setting: Setting) -> list[Check]:
    """One attack at several radii, with several numbers of steps, and without a bound."""
    n, steps, eps = len(setting.clean.labels), setting.budget.steps, setting.eps
    radii = [min(1.0, eps * factor) for factor in FACTORS]
    counts = [max(1, steps * longer // LONGER[-1]) for longer in LONGER]
    at_own = fooled(eps, steps)
    by_radius = [at_own if radius == eps else fooled(radius, steps) for radius in radii]
    by_steps = [at_own if count == steps else fooled(eps, count) for count in counts]
    return [
        rising("radius", on, radii, by_radius, n),
        rising("steps", on, [float(count) for count in counts], by_steps, n),
        nothing_left(on, fooled(1.0, FAR * steps), n),
    ]


SIDE = 17
"""Points along each side of a loss surface."""


def surfaces(defence: Defence, setting: Setting) -> list[dict[str, Any]]:
    """The margin of the surface, and of M, around images: along the sign of the surface's gradient, and along random signs, each to 1.5 eps.

    Returns:
        An image each: `index`, `label`, `reach`, `margins`: for each model [SIDE, SIDE], from row −reach to reach along the gradient.
    """
    found: list[dict[str, Any]] = []
    generator = torch.Generator().manual_seed(setting.seed)
    reach = 1.5 * setting.eps
    at = torch.linspace(-reach, reach, SIDE)
    for place in range(min(setting.budget.surfaces, len(setting.clean.labels))):
        x = answers.prepare(setting.clean.images[place : place + 1], defence.surface)
        y = setting.clean.labels[place : place + 1].to(x.device)
        with torch.enable_grad(), frozen(defence.surface):
            leaf = x.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(margin(defence.surface(leaf), y).sum(), leaf)
        drawn = (torch.randint(0, 2, x.shape, generator=generator) * 2 - 1).to(x)
        first, second = (at.to(x).repeat_interleave(SIDE), at.to(x).repeat(SIDE))
        grid = (x + first.view(-1, 1, 1, 1) * gradient.sign() + second.view(-1, 1, 1, 1) * drawn).clamp(0, 1)
        labels = y.expand(len(grid))
        models = {defence.shown: defence.surface} | ({"M": defence.answer} if defence.shown != "M" else {})
        margins = {
            on: [
                [round(float(v), 4) for v in row]
                for row in margin(answers.logits(model, grid), labels).view(SIDE, SIDE)
            ]
            for on, model in models.items()
        }
        found.append(
            {
                "index": int(setting.clean.index[place]),
                "label": int(setting.clean.labels[place]),
                "reach": reach,
                "margins": margins,
            }
        )
    return found
