"""Rung 6: an adversary who sees the decision, the label that is let out or the refusal, and searches by that alone."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from luring import answers
from luring.attacks import Queried, hop_skip_jump, square
from luring.audit import tries
from luring.audit.defence import Both, Defence, Policy
from luring.audit.tries import Crafted, Setting, Try

REFUSED = -1
"""Stands for the label that is let out where none is: `hop_skip_jump` takes it for no success."""


def searches(defence: Defence, own: tuple[Tensor, Tensor], setting: Setting) -> Iterator[Try]:
    """Square and HopSkipJump on the decision of each policy.

    Args:
        defence: asked.
        own: images that the adversary has, with their labels: a walk along the boundary begins at one of another class.
        setting: of the audit.
    """
    for name, policy in defence.policies.items():
        for attack in ("square", "hop-skip-jump"):
            yield search(attack, defence, name, policy, own, setting)


def search(
    attack: str, defence: Defence, name: str, policy: Policy, own: tuple[Tensor, Tensor], setting: Setting
) -> Try:
    """One of the two on one policy, an answer a query."""
    clean = setting.few
    settings = {
        "attack": attack,
        "eps": setting.eps,
        "budget": setting.budget.queries,
        "attack_seed": setting.seed,
        "policy": name,
        **defence.weights(),
        "choice": clean.digest,
        "start": len(own[0]),
    }

    def made() -> Crafted:
        device = next(defence.answer.parameters()).device
        # Who lets every answer out need not ask the other network.
        guard = replace(defence, other=None) if name == "target" else defence
        asked: dict[str, Any] = {
            "eps": setting.eps,
            "budget": setting.budget.queries,
            "generator": torch.Generator(device).manual_seed(setting.seed),
        }
        x, y = answers.prepare(clean.images, defence.answer), clean.labels.to(device)
        if attack == "square":
            return tries.asked(square(shown(guard.often(x), policy), x, y, **asked), clean)
        images, fooled, queries = x.clone(), torch.zeros_like(y, dtype=torch.bool), torch.zeros_like(y)
        told = passing(guard.often(x), policy)
        held = answers.prepare(own[0], defence.answer)
        begun, known = starts(x, y, held, told(held), own[1].to(device))
        # Where he has no image to begin at, a walk begins at noise.
        for which, start in ((known, begun[known]), (~known, None)):
            if bool(which.any()):
                found = hop_skip_jump(told, x[which], y[which], start=start, **asked)
                images[which], fooled[which], queries[which] = found.images, found.fooled, found.queries
        return tries.asked(Queried(images, fooled, queries), clean)

    return Try(6, attack, f"decision by {name}", settings, made)


def shown(logits: Both, policy: Policy) -> Callable[[Tensor], Tensor]:
    """What an adversary sees, as scores: 1 for the class that is let out and 0 for all others; 0 for all where none is.

    So the margin of a wrong class that is let out is 1, of the right one −1, and of a refusal 0: it fools nobody, but something has moved.
    """

    def scores(images: Tensor) -> Tensor:
        m, other = logits(images)
        passed = policy.suspicion(m, other) <= policy.threshold
        return F.one_hot(m.argmax(1), m.shape[1]).to(m) * passed[:, None]

    return scores


def passing(logits: Both, policy: Policy) -> Callable[[Tensor], Tensor]:
    """The same as labels: the one that is let out, and `REFUSED` where none is."""

    def labels(images: Tensor) -> Tensor:
        m, other = logits(images)
        return torch.where(policy.suspicion(m, other) <= policy.threshold, m.argmax(1), REFUSED)

    return labels


def starts(x: Tensor, y: Tensor, held: Tensor, seen: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """For each image the nearest (l2) of the adversary's own that are of another class and for which another is let out; and whether there is one."""
    useless = (seen == REFUSED) | (seen == y[:, None]) | (truth == y[:, None])
    distance = torch.cdist(x.flatten(1), held.flatten(1)).masked_fill(useless, torch.inf)
    return held[distance.argmin(1)], ~useless.all(1)
