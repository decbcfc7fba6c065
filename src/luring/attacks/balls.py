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
        eps: its radius.
        project: the nearest image of the ball (l∞), or the image scaled back to the ball and clipped (l2).
        unit: the direction of norm 1 in which a linear function with this gradient rises fastest, per image.
        pace: a momentum of mean absolute value 1 an image, made as long as one step: what NI looks ahead by.
        noise: drawn uniformly from the ball of a radius around 0.
        random: an image drawn uniformly from the ball, before clipping to [0, 1].
    """

    eps: float
    project: Callable[[Tensor], Tensor]
    unit: Callable[[Tensor], Tensor]
    pace: Callable[[Tensor], Tensor]
    noise: Callable[[float, Generator | None], Tensor]
    random: Callable[[Generator | None], Tensor]


def linf(x: Tensor, eps: float) -> Ball:
    """The l∞ ball: no value differs by more than `eps`."""
    low, high = (x - eps).clamp_(0, 1), (x + eps).clamp_(0, 1)

    def noise(radius: float, generator: Generator | None) -> Tensor:
        return torch.empty_like(x).uniform_(-radius, radius, generator=generator)

    return Ball(
        eps=eps,
        project=lambda images: torch.clamp(images, low, high),
        unit=torch.sign,
        pace=lambda momentum: momentum,
        noise=noise,
        random=lambda generator: torch.clamp(noise(eps, generator).add_(x), low, high),
    )


def l2(x: Tensor, eps: float) -> Ball:
    """The l2 ball: the Euclidean norm of the difference, over all values of an image, is at most `eps`."""

    def length(difference: Tensor) -> Tensor:
        return difference.flatten(1).norm(dim=1).clamp_min_(TINY).view(-1, 1, 1, 1)

    def project(images: Tensor) -> Tensor:
        difference = images - x
        # Clipping moves every value towards x, which lies in [0, 1] itself: the length only shrinks.
        return (x + difference * (eps / length(difference)).clamp_max_(1)).clamp_(0, 1)

    def unit(gradient: Tensor) -> Tensor:
        return gradient / length(gradient)

    def noise(radius: float, generator: Generator | None) -> Tensor:
        drawn = torch.empty_like(x).normal_(generator=generator)
        share = torch.rand(len(x), 1, 1, 1, dtype=x.dtype, device=x.device, generator=generator)
        # The radius of a uniform point of a d-ball is the d-th root of a uniform number.
        return drawn * (radius * share.pow_(1 / max(1, x[0].numel())) / length(drawn))

    return Ball(
        eps=eps,
        project=project,
        unit=unit,
        pace=unit,
        noise=noise,
        random=lambda generator: project(x + noise(eps, generator)),
    )


BALLS = {"linf": linf, "l2": l2}
