"""Rung 7: an adversary who wants no wrong answer but none at all: the smallest perturbation that has a clean image rejected."""

from typing import Any

import torch
from torch import Tensor

from luring import answers
from luring.attacks import apgd_by
from luring.attacks.autopgd import Round
from luring.attacks.objectives import cross_entropy
from luring.audit.defence import KEPT, Defence, Policy
from luring.audit.tries import Setting

HALVINGS = 5
"""How often the radius is halved, from the audit's own downwards."""

BISECTIONS = 6
"""How often the way back to the clean image is halved."""

QUARTILES = (0.25, 0.5, 0.75)


def smallest(defence: Defence, policy: Policy, setting: Setting) -> dict[str, Any]:
    """How far, in l∞, clean images have to be moved to be rejected: at most so far, for a better attack may need less.

    Args:
        defence: whose networks are known.
        policy: that can refuse.
        setting: of the audit; images that are rejected or answered wrongly as they are do not count.

    Returns:
        `n`, the images that count; `rejected`, the share of them that is rejected within the audit's radius; `distances`, the quartiles of the
        smallest radius found, null where less than that share was ever rejected.
    """
    clean, device = setting.clean, next(defence.answer.parameters()).device
    y = clean.labels.to(device)
    x = answers.prepare(clean.images, defence.answer)
    counts = policy.fates(*defence.logits(x), y) == KEPT
    x, y = x[counts], y[counts]
    far = x.new_full((len(x),), torch.inf)
    generator = torch.Generator(device).manual_seed(setting.seed)
    for halved in range(HALVINGS + 1):
        # Smaller and smaller balls, for the images that are not known to be rejected nearer.
        left = (far > setting.eps / 2**halved).nonzero().squeeze(1)
        if not len(left):
            break
        found = _reject(defence, policy, x[left], y[left], setting.eps / 2**halved, setting.budget.steps, generator)
        near = _back(defence, policy, x[left], found)
        far[left] = torch.minimum(far[left], near)
    if not len(far):
        return {"n": 0, "rejected": float("nan"), "distances": [float("nan")] * len(QUARTILES)}
    # One of the distances, not a mean of two: a mean with infinity is none.
    at = torch.tensor(QUARTILES, dtype=torch.float64, device=device)
    distances = torch.quantile(far.double(), at, interpolation="higher").tolist()
    return {"n": len(x), "rejected": float(torch.isfinite(far).double().mean()), "distances": distances}


def _reject(
    defence: Defence, policy: Policy, x: Tensor, y: Tensor, eps: float, steps: int, generator: torch.Generator
) -> Tensor:
    """Images within `eps`, rejected where one was found."""

    def suspicion(logits: Tensor, _: Tensor, __: Tensor) -> Tensor:
        return policy.suspicion(*logits.chunk(2, 1)).clamp_min(1e-12).log().to(logits.dtype)

    # One of the two shall answer otherwise, and the other one not.
    def other_wrong(logits: Tensor, labels: Tensor, _: Tensor) -> Tensor:
        m, other = (cross_entropy(part, labels) for part in logits.chunk(2, 1))
        return torch.minimum(other, -m)

    def answer_wrong(logits: Tensor, labels: Tensor, _: Tensor) -> Tensor:
        m, other = (cross_entropy(part, labels) for part in logits.chunk(2, 1))
        return torch.minimum(m, -other)

    def reached(logits: Tensor, _: Tensor, __: Tensor) -> Tensor:
        return policy.suspicion(*logits.chunk(2, 1)) - policy.threshold

    rounds: list[Round] = [(suspicion, y)] if policy.smooth else [(other_wrong, y), (answer_wrong, y)]
    # A suspicion climbed on leads to a way back that crosses the threshold nearer; of a bare disagreement there is no more.
    enough = not policy.smooth
    return apgd_by(
        defence.pair, x, y, rounds, eps=eps, steps=steps, reached=reached, enough=enough, generator=generator
    )


def _back(defence: Defence, policy: Policy, x: Tensor, found: Tensor) -> Tensor:
    """How far the nearest rejected image on the way back to the clean one is, [n]; infinite where what was found is not rejected."""

    def rejected(images: Tensor) -> Tensor:
        m, other = defence.logits(images)
        return policy.suspicion(m, other) > policy.threshold

    nearest = x.new_full((len(x),), torch.inf)
    able = rejected(found).nonzero().squeeze(1)
    if not len(able):
        return nearest
    x, found = x[able], found[able]
    low, high = x.new_zeros(len(x)), x.new_ones(len(x))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        there = rejected(x + middle.view(-1, 1, 1, 1) * (found - x))
        high, low = torch.where(there, middle, high), torch.where(there, low, middle)
    nearest[able] = (found - x).flatten(1).abs().amax(1) * high
    return nearest
