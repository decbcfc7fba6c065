"""A first look at a target: does it know these images? A wrong normalisation gives answers, too, only poor ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from torch import Tensor

from luring import answers
from luring.errors import InputError
from luring.targets.preprocessing import Preprocessing, overridden
from luring.targets.target import Target

Triple: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]

COMMON: Mapping[str, Triple] = MappingProxyType(
    {
        "none": ((0.0,), (1.0,)),
        "values from -1 to 1": ((0.5,), (0.5,)),
        "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "CLIP's": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        "CIFAR10's": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
        "MNIST's": ((0.1307,), (0.3081,)),
        "values from 0 to 255": ((0.0,), (1 / 255,)),
    }
)
"""Means and standard deviations that people train with."""

LOOKED_AT = 500
"""Images, at most."""
BETTER = 0.1
"""Of accuracy, that another normalisation must be better by before it is worth a question."""
SURER = 0.25
"""Likewise of confidence, which is a weaker sign."""


@dataclass(frozen=True)
class Looked:
    """What a target makes of some images.

    Attributes:
        n: images.
        accuracy: share of right answers; none without labels.
        confidence: mean of the highest probability.
        classes: how many it answers with.
    """

    n: int
    accuracy: float | None
    confidence: float
    classes: int

    def sentence(self) -> str:
        """As the command line says it."""
        right = (
            f"right on {self.accuracy:.1%} of"
            if self.accuracy is not None
            else f"{self.confidence:.1%} sure of its answers to"
        )
        return f"The target is {right} {self.n} validation images."


def poor(share: float, classes: int) -> bool:
    """Whether a share of right answers, or a mean probability, is about what chance gives: below twice that, or a fifth of the way to 1."""
    chance = 1 / classes
    return share < min(2 * chance, chance + 0.2 * (1 - chance))


def examine(target: Target, images: Tensor, labels: Tensor | None) -> Looked:
    """Measure a target on images that it should know.

    Args:
        target: to be protected.
        images: bytes, or floats in [0, 1], [n, channels, height, width]; the first 500 are looked at.
        labels: their truth, where it is known.

    Raises:
        InputError: it looks untrained, does not know these classes, or does better with another normalisation; the message asks which.
    """
    images = images[:LOOKED_AT]
    truth = labels[:LOOKED_AT] if labels is not None else None
    found = _look(target, images, truth)
    measured = found.accuracy if found.accuracy is not None else found.confidence
    if truth is not None and int(truth.max()) >= found.classes:
        raise InputError(
            f"the target answers with {found.classes} classes and the labels go up to {int(truth.max())}: give images of its classes."
        )
    name, triple, best = _better(target, images, truth)
    margin = BETTER if truth is not None else SURER

    def said(share: float) -> str:
        return f"right on {share:.1%} of" if truth is not None else f"{share:.1%} sure of its answers to"

    if best > measured + margin and not poor(best, found.classes):
        mean, std = (" ".join(f"{v:g}" for v in part) for part in triple)
        raise InputError(
            f"the target is {said(measured)} {found.n} validation images, and {said(best)} them with another normalisation ({name}): is its own "
            f"wrong? Give --mean {mean} --std {std}, or go on as it is with --anyway."
        )
    if poor(measured, found.classes):
        raise InputError(
            f"the target is {said(measured)} {found.n} validation images, where chance is {1 / found.classes:.1%}: is it trained, are these "
            "its images, its classes in their order, and its normalisation right? Give its weights with --weights, or go on with --anyway."
        )
    if truth is None and found.n >= LOOKED_AT // 10 and len(set(answers.labels(target.network, images).tolist())) == 1:
        raise InputError(
            f"the target gives all of {found.n} validation images the same answer: are these its images, and is its normalisation right? Go on "
            "with --anyway."
        )
    return found


def _look(target: Target, images: Tensor, labels: Tensor | None) -> Looked:
    logits = answers.logits(target.network, images).cpu()
    right = float((logits.argmax(1) == labels).float().mean()) if labels is not None else None
    return Looked(len(images), right, float(logits.float().softmax(1).amax(1).mean()), logits.shape[1])


def _better(target: Target, images: Tensor, labels: Tensor | None) -> tuple[str, Triple, float]:
    """The common normalisation that does best, and how well."""
    best: tuple[str, Triple, float] = ("", ((0.0,), (1.0,)), 0.0)
    own = target.preprocessing
    if own is None:
        return best
    for name, (mean, std) in COMMON.items():
        if labels is None and name == "values from 0 to 255":
            continue  # large values make any network sure
        if (other := _normalised(own, images.shape[1], mean, std)) is None:
            continue
        try:
            found = _look(target.seeing(other), images, labels)
        except InputError:  # not finite: not this one
            continue
        reached = found.accuracy if found.accuracy is not None else found.confidence
        if reached > best[2]:
            best = (name, (other.mean, other.std), reached)
    return best


def _normalised(
    own: Preprocessing, channels: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> Preprocessing | None:
    wanted = own.channels or channels
    if len(mean) not in (1, wanted):
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    other = overridden(own, mean=mean, std=std)
    return None if (other.mean, other.std) == (own.mean, own.std) else other
