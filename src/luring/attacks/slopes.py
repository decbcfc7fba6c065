"""The gradient an attack climbs: of one look at the images or of several, at the images, ahead of them or around them."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from luring.answers import check_logits
from luring.attacks import checks
from luring.attacks.balls import TINY, Ball
from luring.attacks.objectives import OBJECTIVES
from luring.attacks.transforms import See
from luring.types import Classifier

Estimator: TypeAlias = Callable[["Slope", Tensor, Generator | None], Tensor]
"""From a slope, the images and a source of randomness to the gradient that a step follows."""

Estimate: TypeAlias = Callable[[Ball, float], Estimator]
"""Begins an estimator for one crafting, given its ball and the length of a step."""

FARTHEST = 60.0
"""Greatest ratio, as a logarithm, between two gradients of an image that are added up: e⁶⁰ is far beyond float32's digits."""


class Slope:
    """The gradient of an attack's objective with respect to images, averaged over looks.

    Called several times in one step, it gives gradients that can be added up: those of cross-entropy itself, times a positive
    number for each image, which is chosen at the first call of the step so that nothing vanishes where the softmax saturates.
    """

    def __init__(
        self,
        model: Classifier,
        y: Tensor,
        *,
        loss: str,
        sees: Sequence[See],
        targeted: bool,
        generator: Generator | None,
    ) -> None:
        self.model, self.y, self.sees, self.targeted, self.generator = model, y, sees, targeted, generator
        self.objective, self.log_weight = OBJECTIVES[loss]
        self.unit: Tensor | None = None

    def next_step(self) -> None:
        """Forget the unit: the next call chooses it."""
        self.unit = None

    def __call__(self, images: Tensor) -> Tensor:
        """The gradient at images, [batch, channels, height, width], in this step's unit."""
        total: Tensor | None = None
        for see in self.sees:
            leaf = images.detach().requires_grad_()
            logits = check_logits(self.model(see(leaf, self.generator)), len(leaf))
            checks.labels(self.y, logits.shape[1])
            value = self.objective(logits, self.y)
            if self.unit is None:
                self.unit, weighted = self.log_weight(value).detach(), value
            else:
                weighted = value * self._ratio(self.log_weight(value).detach(), self.unit)
            (gradient,) = torch.autograd.grad(-weighted.sum() if self.targeted else weighted.sum(), leaf)
            total = gradient if total is None else total.add_(gradient)
        assert total is not None
        return total if len(self.sees) == 1 else total.div_(len(self.sees))

    def carried(self, gradient: Tensor, unit: Tensor) -> Tensor:
        """A gradient of an earlier step, measured in that step's unit, in this one's."""
        return gradient if self.unit is None else gradient * self._ratio(unit, self.unit).view(-1, 1, 1, 1)

    @staticmethod
    def _ratio(mine: Tensor, unit: Tensor) -> Tensor:
        return (mine - unit).clamp_(-FARTHEST, FARTHEST).exp_()


def at(ball: Ball, step: float) -> Estimator:  # noqa: ARG001
    """The gradient at the images themselves."""
    return lambda slope, images, generator: slope(images)  # noqa: ARG005


def variance(samples: int = 20, beta: float = 1.5) -> Estimate:
    """Variance tuning (Wang and He 2021, Algorithm 1): add what the last step's surroundings had more than its own gradient.

    Args:
        samples: neighbours a step, each one pass.
        beta: radius of the neighbourhood, in units of the attack's eps.

    Raises:
        InputError: a setting out of range.
    """
    checks.count("samples", samples)
    checks.number("beta", beta)

    def begin(ball: Ball, step: float) -> Estimator:  # noqa: ARG001
        last: tuple[Tensor, Tensor] | None = None

        def estimator(slope: Slope, images: Tensor, generator: Generator | None) -> Tensor:
            nonlocal last
            own = slope(images)
            tuned = own if last is None else own + slope.carried(*last)
            around = torch.zeros_like(own)
            for _ in range(samples):
                around.add_(slope(images + ball.noise(beta * ball.eps, generator)))
            assert slope.unit is not None
            last = around.div_(samples).sub_(own), slope.unit
            return tuned

        return estimator

    return begin


def flat(samples: int = 20, zeta: float = 3.0, delta: float = 0.5) -> Estimate:
    """Penalised gradient norm (PGN, Ge et al. 2023, Algorithm 1): towards places whose surroundings are as bad for the model.

    The mean, over neighbours, of the gradient there and of the gradient one step down from there.

    Args:
        samples: neighbours a step, each two passes.
        zeta: radius of the neighbourhood, in units of the attack's eps.
        delta: weight of the second gradient, in [0, 1].

    Raises:
        InputError: a setting out of range.
    """
    checks.count("samples", samples)
    checks.number("zeta", zeta)
    checks.number("delta", delta, most=1.0)

    def begin(ball: Ball, step: float) -> Estimator:
        def estimator(slope: Slope, images: Tensor, generator: Generator | None) -> Tensor:
            mean: Tensor | None = None
            for _ in range(samples):
                near = images + ball.noise(zeta * ball.eps, generator)
                here = slope(near)
                below = slope(near - step * ball.pace(normalised(here)))
                both = here.mul_(1 - delta).add_(below, alpha=delta)
                mean = both if mean is None else mean.add_(both)
            assert mean is not None
            return mean.div_(samples)

        return estimator

    return begin


def normalised(gradient: Tensor) -> Tensor:
    """The gradient divided by its mean absolute value, per image; zeros stay zeros.

    Raises:
        InputError: the gradient is not finite.
    """
    scale = gradient.abs().mean((1, 2, 3), keepdim=True)
    checks.finite(scale)
    return gradient / scale.clamp_min(TINY)
