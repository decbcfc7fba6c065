"""Rung 6: an adversary who sees the decision, the label that is let out or the refusal, and searches by that alone."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from luring import answers
from luring.attacks import hop_skip_jump, square
from luring.audit.defence import Defence, Policy
from luring.audit.tries import Crafted, Setting, Try

REFUSED = -1
"""Stands for the label of an image of the adversary's own that is refused."""


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
        asked: dict[str, Any] = {
            "eps": setting.eps,
            "budget": setting.budget.queries,
            "generator": torch.Generator(device).manual_seed(setting.seed),
        }
        if attack == "square":
            x, y = answers.prepare(clean.images, defence.answer), clean.labels.to(device)
            found = square(shown(defence, policy), x, y, **asked)
            return Crafted(found.images.cpu(), clean, found.fooled.cpu(), found.queries.cpu())
        images, fooled = clean.images.clone(), torch.zeros(len(clean.labels), dtype=torch.bool)
        queries = torch.zeros(len(clean.labels), dtype=torch.int64)
        held = answers.prepare(own[0], defence.answer)
        seen, truth = passing(defence, policy, REFUSED)(held), own[1].to(device)
        # A label alone cannot say 'refused' without the true class: a walk for the images of each.
        for label in clean.labels.unique().tolist():
            which = clean.labels == label
            x = answers.prepare(clean.images[which], defence.answer)
            start = _starts(x, held[(seen != REFUSED) & (seen != label) & (truth != label)])
            y = torch.full((len(x),), label, device=device)
            found = hop_skip_jump(passing(defence, policy, label), x, y, start=start, **asked)
            images[which], fooled[which], queries[which] = found.images.cpu(), found.fooled.cpu(), found.queries.cpu()
        return Crafted(images, clean, fooled, queries)

    return Try(6, attack, f"decision by {name}", settings, made)


def shown(defence: Defence, policy: Policy) -> Callable[[Tensor], Tensor]:
    """What an adversary sees, as scores: 1 for the class that is let out and 0 for all others; 0 for all where none is.

    So the margin of a wrong class that is let out is 1, of the right one −1, and of a refusal 0: it fools nobody, but something has moved.
    """

    def scores(images: Tensor) -> Tensor:
        m, other = defence.logits(images)
        passed = policy.suspicion(m, other) <= policy.threshold
        return F.one_hot(m.argmax(1), m.shape[1]).to(m) * passed[:, None]

    return scores


def passing(defence: Defence, policy: Policy, refused: int) -> Callable[[Tensor], Tensor]:
    """The same as labels: the one that is let out, and `refused` where none is: for a walk the true class, so that a refusal fools nobody."""

    def labels(images: Tensor) -> Tensor:
        m, other = defence.logits(images)
        return torch.where(policy.suspicion(m, other) <= policy.threshold, m.argmax(1), refused)

    return labels


def _starts(x: Tensor, usable: Tensor) -> Tensor | None:
    """For each image the nearest (l2) of the adversary's own that are of another class and for which another is let out; None, for noise, where none is."""
    if not len(usable):
        return None
    distance = torch.cdist(x.flatten(1), usable.flatten(1))
    return usable[distance.argmin(1)]
