"""The balls that adversarial examples stay in, each with its projection, its steepest direction and its random start."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

TINY = 1e-12
"""Added where a norm may be 0: a gradient that vanishes must leave the image where it is, not turn it into NaN."""


@dataclass(frozen=True)
class Ball:
    """The images within `eps` of `x` and in [0, 1].

    Attributes:
        project: the nearest image of the ball (l∞), or the image scaled back to the ball and clipped (l2).
        unit: the direction of norm 1 in which a linear function with this gradient rises fastest, per image.
        random: an image drawn uniformly from the ball, before clipping to [0, 1].
    """

    project: Callable[[Tensor], Tensor]
    unit: Callable[[Tensor], Tensor]
    random: Callable[[Generator | None], Tensor]


def linf(x: Tensor, eps: float) -> Ball:
    """The l∞ ball: no value differs by more than `eps`."""
    low, high = (x - eps).clamp_(0, 1), (x + eps).clamp_(0, 1)

    def random(generator: Generator | None) -> Tensor:
        noise = torch.empty_like(x).uniform_(-eps, eps, generator=generator)
        return torch.clamp(noise.add_(x), low, high)

    return Ball(project=lambda images: torch.clamp(images, low, high), unit=torch.sign, random=random)


def l2(x: Tensor, eps: float) -> Ball:
    """The l2 ball: the Euclidean norm of the difference, over all values of an image, is at most `eps`."""

    def length(difference: Tensor) -> Tensor:
        return difference.flatten(1).norm(dim=1).clamp_min_(TINY).view(-1, 1, 1, 1)

    def project(images: Tensor) -> Tensor:
        difference = images - x
        # Clipping moves every value towards x, which lies in [0, 1] itself: the length only shrinks.
        return (x + difference * (eps / length(difference)).clamp_max_(1)).clamp_(0, 1)

    def random(generator: Generator | None) -> Tensor:
        noise = torch.empty_like(x).normal_(generator=generator)
        share = torch.rand(len(x), 1, 1, 1, dtype=x.dtype, device=x.device, generator=generator)
        # The radius of a uniform point of a d-ball is the d-th root of a uniform number.
        return project(x + noise * (eps * share.pow_(1 / max(1, x[0].numel())) / length(noise)))

    return Ball(project=project, unit=lambda gradient: gradient / length(gradient), random=random)


BALLS = {"linf": linf, "l2": l2}
