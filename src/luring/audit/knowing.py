"""Rung 5: an adversary who knows everything, M, M∘P, the policy and its threshold, and has the gradients of all of it.

He attacks M alone as AutoAttack does (Croce and Hein 2020), and M together with the policy. The joint attack goes towards one wrong class
after the other: M shall answer it, and the policy shall let it out; for bare agreement that is M∘P answering it, too. How the two wishes are weighed is
the objective's: `both` adds them up, `behind` climbs the one that is further from its goal (the adaptive weight: Tramèr et al. 2020 and Bryniarski et al.
2021 say why one of two goals must not drown the other), and both exist by cross-entropy and, with `ratio`, by the difference of logits ratio.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from luring import answers
from luring.attacks import apgd_by
from luring.attacks.autopgd import Round
from luring.attacks.objectives import cross_entropy, difference_of_logits_towards, margin, others, wrong_classes
from luring.audit.defence import Defence, Policy
from luring.audit.tries import Crafted, Setting, Try, named
from luring.types import Labels, PerImage

TINY = 1e-12


def by_entropy(logits: Tensor, wanted: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG001
    """How far logits are for a class: minus the cross-entropy in a form that does not saturate."""
    return -cross_entropy(logits, wanted)


def by_ratio(logits: Tensor, wanted: Tensor, labels: Tensor) -> Tensor:
    """The same by the targeted difference of logits ratio; by the margin where there are fewer than four classes."""
    if logits.shape[1] < 4:
        return -margin(logits, wanted)
    return difference_of_logits_towards(logits, labels, wanted)


def added(one: Tensor, other: Tensor) -> Tensor:
    """Equal weights."""
    return one + other


Towards = Callable[[Tensor, Tensor, Tensor], Tensor]
Weighed = Callable[[Tensor, Tensor], Tensor]

OBJECTIVES: Mapping[str, tuple[Towards, Weighed]] = {
    "both": (by_entropy, added),
    "behind": (by_entropy, torch.minimum),
    "ratio-both": (by_ratio, added),
    "ratio-behind": (by_ratio, torch.minimum),
}
"""Of the joint attack, by name: how a wish of logits is measured, and how two wishes become one."""


@dataclass(frozen=True, eq=False)
class Joint:
    """A policy as two wishes: what M shall answer, and that the policy lets it out."""

    policy: Policy

    def passing(self, m: Tensor, other: Tensor, wanted: Tensor, labels: Tensor, towards: Towards) -> Tensor:
        """How far the policy is for letting the wanted class out; 0 and more where it does, if it has a gradient."""
        if not self.policy.smooth:
            return towards(other, wanted, labels)
        # In logarithms, so that a suspicion of a thousand times the threshold does not drown everything else.
        suspicion = self.policy.suspicion(m, other).clamp_min(TINY)
        return (math.log(max(self.policy.threshold, TINY)) - suspicion.log()).to(m.dtype)

    def objective(self, name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """The objective of that name, on the logits of both side by side."""
        towards, weighed = OBJECTIVES[name]

        def value(logits: Tensor, labels: Tensor, wanted: Tensor) -> Tensor:
            m, other = logits.chunk(2, 1)
            # Nothing is gained by passing the threshold by far.
            passing = self.passing(m, other, wanted, labels, towards)
            return weighed(towards(m, wanted, labels), passing.clamp_max(1.0) if self.policy.smooth else passing)

        return value

    def reached(self, logits: Tensor, labels: Labels, _: Tensor) -> PerImage:
        """Above 0 where the answer is wrong and let out: the least of both, for the best wrong class."""
        m, other = logits.chunk(2, 1)
        if self.policy.smooth:
            suspicion = self.policy.suspicion(m, other)
            room = (self.policy.threshold - suspicion) / max(self.policy.threshold, TINY)
            return torch.minimum(margin(m, labels), torch.where(room == 0, TINY, room).to(m.dtype))
        gaps = [others(_lead(part), labels) for part in (m, other)]
        return torch.minimum(*gaps).amax(1)


def _lead(logits: Tensor) -> Tensor:
    """By how much each class leads all others, [batch, classes]."""
    top = logits.topk(2, dim=1)
    rival = torch.where(
        torch.arange(logits.shape[1], device=logits.device) == top.indices[:, :1], top.values[:, 1:], top.values[:, :1]
    )
    return logits - rival


def m_alone(defence: Defence, setting: Setting) -> Iterator[Try]:
    """AutoAttack's set on the classifier that answers."""
    for name in ("apgd", "apgd-t", "fab", "square"):
        yield named(5, name, "M", defence.answer, setting)


def joint(defence: Defence, setting: Setting) -> Iterator[Try]:
    """The joint attack on each policy that can refuse."""
    for name, policy in defence.policies.items():
        if name != "target":
            yield against(defence, name, policy, setting)


def against(defence: Defence, name: str, policy: Policy, setting: Setting) -> Try:
    """The joint attack on one policy: every objective, every wrong class of the budget, each from a random start."""
    clean, budget = setting.clean, setting.budget
    settings = {
        "attack": "joint",
        "eps": setting.eps,
        "steps": budget.steps,
        "attack_seed": setting.seed,
        "policy": name,
        "objectives": list(budget.joint),
        "targets": budget.targets,
        **defence.weights(),
        "choice": clean.digest,
    }

    def made() -> Crafted:
        images: list[Tensor] = []
        generator = torch.Generator(next(defence.answer.parameters()).device).manual_seed(setting.seed)
        for x, y in zip(clean.images.split(128), clean.labels.split(128), strict=True):
            x = answers.prepare(x, defence.answer)
            images.append(crafted(defence, policy, x, y.to(x.device), setting, generator).cpu())
        return Crafted(torch.cat(images), clean)

    return Try(5, "joint", f"M and {name}", settings, made)


def crafted(
    defence: Defence,
    policy: Policy,
    x: Tensor,
    y: Tensor,
    setting: Setting,
    generator: torch.Generator,
    *,
    enough: bool = False,
) -> Tensor:
    """Examples of the joint attack; the images, labels and result on the networks' device. With `enough`, an image is done once it fools the policy."""
    attack, budget = Joint(policy), setting.budget
    m = answers.logits(defence.answer, x)
    rounds: list[Round] = [
        (attack.objective(objective), classes)
        for classes in wrong_classes(m, y, budget.targets)
        for objective in budget.joint
    ]
    return apgd_by(
        defence.pair,
        x,
        y,
        rounds,
        eps=setting.eps,
        steps=budget.steps,
        reached=attack.reached,
        enough=enough,
        generator=generator,
    )
