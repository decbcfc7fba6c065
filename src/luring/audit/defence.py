"""What is attacked: a classifier that answers, beside it another one perhaps, and policies that refuse to let an answer out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from luring import answers
from luring.answers import Ask
from luring.attacks.quick import quick
from luring.audit.trapdoor import resemblance
from luring.frozen import frozen
from luring.guard import CHOSEN, Detector, Reference, chosen, reference, scored
from luring.types import Images, Labels, Logits, PerImage
from luring.weights import digest

KEPT, DETECTED, FOOLED = 0, 1, 2
"""What became of an image: answered rightly and let out; not let out; answered wrongly and let out, the adversary's success."""


@dataclass(frozen=True, eq=False)
class Policy:
    """When an answer is not let out.

    Attributes:
        suspicion: from the logits of the classifier that answers and of the other to a number an image.
        threshold: above it the answer is not let out.
        smooth: whether the suspicion has a gradient; that of bare agreement, 0 or 1, has none.
    """

    suspicion: Callable[[Tensor, Tensor], Tensor]
    threshold: float
    smooth: bool = True

    def fates(self, m: Logits, other: Logits, labels: Labels) -> Labels:
        """`KEPT`, `DETECTED` or `FOOLED`, [n], from the logits of both and the truth."""
        wrong = m.argmax(1) != labels
        rejected = self.suspicion(m, other) > self.threshold
        return torch.where(rejected, DETECTED, torch.where(wrong, FOOLED, KEPT))


class Pair(nn.Module):
    """Two classifiers side by side: logits of both, [batch, 2 · classes]. Of one alone, its own twice."""

    def __init__(self, answer: nn.Module, other: nn.Module | None) -> None:
        super().__init__()
        self.answer, self.other = answer, other

    def forward(self, images: Tensor) -> Tensor:
        """Logits of both."""
        m = self.answer(images)
        return torch.cat([m, m if self.other is None else self.other(images)], 1)


@dataclass(frozen=True, eq=False)
class Defence:
    """A classifier with its guard.

    Attributes:
        name: as the rows' `architecture`.
        answer: the classifier whose label is given out.
        other: what it is compared with, if anything.
        surface: what adversaries who know nothing of the guard attack.
        shown: what the surface is called: M∘P, M, the twin.
        policies: by name.
    """

    name: str
    answer: nn.Module
    other: nn.Module | None
    surface: nn.Module
    shown: str
    policies: Mapping[str, Policy]

    @property
    def pair(self) -> Pair:
        """Both classifiers as one model."""
        return Pair(self.answer, self.other).eval()

    def logits(self, images: Images) -> tuple[Tensor, Tensor]:
        """Of both, [n, classes] each, on their device."""
        m, other = answers.logits(self.pair, images, batch=250).chunk(2, 1)
        return m, other

    def often(self, like: Images) -> "Both":
        """`logits`, for who asks many times about images of one form."""
        fast = _faster(self.pair, like)
        return lambda images: answers.logits(fast, images).chunk(2, 1)  # pyright: ignore[reportReturnType]

    def fates(self, images: Images, labels: Labels) -> dict[str, Tensor]:
        """What becomes of images under each policy, [n] each, on the CPU."""
        return self.decided(*self.logits(images), labels)

    def decided(self, m: Logits, other: Logits, labels: Labels) -> dict[str, Tensor]:
        """The same from the logits of both."""
        return {name: policy.fates(m, other, labels.to(m.device)).cpu() for name, policy in self.policies.items()}

    def weights(self) -> dict[str, Any]:
        """Digests of its networks, and its thresholds, as a row's settings hold them."""
        of = {"answer": self.answer, "other": self.other, "surface": self.surface}
        found: dict[str, Any] = {name: digest(part) for name, part in of.items() if part is not None}
        return {**found, "thresholds": {name: policy.threshold for name, policy in self.policies.items()}}


def by_guard(detector: Detector, device: torch.device | str) -> Policy:
    """The policy of a detector that has a threshold."""
    assert detector.threshold is not None, "a detector without a threshold decides nothing"
    return _by(detector.policy, detector.reference, detector.threshold, device)


def _by(policy: str, known: Reference | None, limit: float, device: torch.device | str) -> Policy:
    return Policy(partial(scored, policy, known=known and _moved(known, device)), limit, policy != "agreement")


def _faster(model: nn.Module, like: Tensor) -> Callable[[Tensor], Tensor]:
    """`luring.attacks.quick` of a model, for images wherever they lie."""
    with frozen(model):
        fast = quick(model, answers.prepare(like[:1], model))
    return lambda images: fast(answers.prepare(images, model))


Both: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From images to the logits of both classifiers of a defence."""


def remembering(*, show: bool = False) -> Ask:
    """`answers.remembering` of networks made quick."""
    return answers.remembering(show=show, through=_faster)


def calibrated(
    answer: nn.Module,
    other: nn.Module,
    names: tuple[str, ...],
    learned: Tensor,
    held_out: Tensor,
    fpr: float,
    ask: Ask = answers.logits,
) -> dict[str, Policy]:
    """Policies of `luring.guard`, `kl` and `signature`, fixed on clean images.

    Args:
        answer: the classifier that answers.
        other: the other.
        names: of `luring.guard.POLICIES`, or of `SUSPICIONS`.
        learned: clean images that the score is learned from.
        held_out: clean images that thresholds are set on.
        fpr: wanted false-alarm rate.
        ask: how the networks are asked.

    Raises:
        InputError: too few images for `fpr`.
    """
    device = next(answer.parameters()).device

    def both(images: Tensor) -> tuple[Tensor, Tensor]:
        return ask(answer, images).cpu(), ask(other, images).cpu()

    found: dict[str, Policy] = {}
    for name in names:
        if name in SUSPICIONS:
            found[name] = Policy(SUSPICIONS[name], chosen(SUSPICIONS[name](*both(held_out)), fpr))
        elif name not in CHOSEN:
            found[name] = _by(name, None, 0.5, device)
        else:
            known = reference(*both(learned)) if name == "score" else None
            found[name] = _by(name, known, chosen(scored(name, *both(held_out), known), fpr), device)
    return found


def divergence(m: Logits, other: Logits) -> PerImage:
    """Kullback and Leibler's divergence of the second softmax from the first: what Vacanti and Van Looveren (2020) reject by; float64."""
    first, second = (logits.double().log_softmax(1) for logits in (m, other))
    return (first.exp() * (first - second)).sum(1).clamp_min(0)


SUSPICIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"kl": divergence, "signature": resemblance}
"""Policies of rivals, which `luring.guard` has not."""


def _moved(known: Reference, device: torch.device | str) -> Reference:
    return replace(known, **{name: tensor.to(device) for name, tensor in vars(known).items()})
