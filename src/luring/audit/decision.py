"""Rung 6: an adversary who sees the decision, the label that is let out or the refusal, and searches by that alone."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from luring import answers
from luring.attacks import hop_skip_jump, square
from luring.audit.defence import KEPT, Defence, Policy
from luring.audit.tries import Crafted, Setting, Try

REFUSED = -0.5
"""What Square takes a refusal for, between a right answer, -1, and a wrong one that is let out, 1: something has moved."""


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
        images, fooled = clean.images.clone(), torch.zeros(len(clean.labels), dtype=torch.bool)
        queries = torch.zeros(len(clean.labels), dtype=torch.int64)
        generator = torch.Generator(next(defence.answer.parameters()).device).manual_seed(setting.seed)
        # What a refusal means depends on the true class: an attack for the images of each.
        for label in clean.labels.unique().tolist():
            which = clean.labels == label
            x = answers.prepare(clean.images[which], defence.answer)
            y = torch.full((len(x),), label, device=x.device)
            shown = decided(defence, policy, label)
            if attack == "square":
                found = square(shown, x, y, eps=setting.eps, budget=setting.budget.queries, generator=generator)
            else:
                start = _starts(x, label, own, defence, policy)
                found = hop_skip_jump(
                    shown, x, y, eps=setting.eps, budget=setting.budget.queries, start=start, generator=generator
                )
            images[which], fooled[which], queries[which] = found.images.cpu(), found.fooled.cpu(), found.queries.cpu()
        return Crafted(images, clean, fooled, queries)

    return Try(6, attack, f"decision by {name}", settings, made)


def decided(defence: Defence, policy: Policy, label: int) -> Callable[[Tensor], Tensor]:
    """What an adversary sees of images of one true class, as scores: 1 for another class that is let out, else less than the true one's 0."""

    def shown(images: Tensor) -> Tensor:
        m, other = defence.logits(images)
        labels = torch.full((len(images),), label, device=m.device)
        fates = policy.fates(m, other, labels)
        seen = torch.where(fates == KEPT, -1.0, REFUSED)
        scores = torch.full_like(m, -2.0)
        answered = m.argmax(1)
        wrong = torch.where(answered == label, (answered + 1) % m.shape[1], answered)
        passed = (answered != label) & (policy.suspicion(m, other) <= policy.threshold)
        scores.scatter_(1, wrong[:, None], torch.where(passed, 1.0, seen).to(m)[:, None])
        scores[:, label] = 0.0
        return scores

    return shown


def _starts(x: Tensor, label: int, own: tuple[Tensor, Tensor], defence: Defence, policy: Policy) -> Tensor | None:
    """For each image the nearest (l2) of the adversary's own of another class for which another is let out; None, for noise, where none is."""
    images, labels = own
    held = answers.prepare(images, defence.answer)
    m, other = defence.logits(held)
    passed = (m.argmax(1) != label) & (policy.suspicion(m, other) <= policy.threshold)
    usable = held[passed & (labels.to(m.device) != label)]
    if not len(usable):
        return None
    distance = torch.cdist(x.flatten(1), usable.flatten(1))
    return usable[distance.argmin(1)]
