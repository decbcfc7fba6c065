"""Attacks that ask for scores: a function from images to logits or probabilities, of which nothing else is known, and a budget."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from luring.attacks import checks
from luring.attacks.asked import AT_ONCE, Queried, begin
from luring.attacks.forms import working
from luring.frozen import frozen
from luring.types import Classifier, Images, Labels

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After how many ten-thousandths of the budget Square halves the share of the image that it changes at a time."""

REDRAWS = 10
"""How often Square draws the colours of a window again that would change nothing."""


def square(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    eps: float,
    budget: int,
    share: float = 0.8,
    targeted: bool = False,
    generator: Generator | None = None,
) -> Queried:
    """Square attack, l∞ (Andriushchenko et al. 2020, Algorithms 1 and 2): random squares of ±`eps`, kept where the margin grows.

    Args:
        model: images to scores (logits or probabilities); any function, an HTTP client too.
        x: clean images, [batch, channels, height, width], of any floating-point type, values in [0, 1].
        y: true labels, [batch], int64; with `targeted`, the labels wanted.
        eps: radius of the l∞ ball around `x`, in units of `x`.
        budget: most queries an image; one each for the stripes it begins with and for every square.
        share: of the image that the first square covers; halved nine times while the budget is used up.
        targeted: until the model answers `y` instead of until it does not.
        generator: source of what it draws; PyTorch's own where it is missing.

    Returns:
        Examples in [0, 1] within `eps` of `x`, with the queries that each took.

    Raises:
        InputError: as for `fgsm`.
    """
    checks.number("share", share, most=1.0)
    asked, x, low, high = begin(model, x, y, eps, budget, targeted=targeted)
    batch, channels, height, width = x.shape

    def signs(*shape: int) -> Tensor:
        drawn = torch.randint(0, 2, shape, generator=generator, device=x.device)
        return drawn.to(x.dtype) * 2 - 1

    with torch.no_grad(), frozen(model):
        if batch:
            stripes = x + eps * signs(batch, channels, 1, width)
            asked.try_(torch.clamp(stripes, low, high), torch.arange(batch, device=x.device))
        for done in range(1, budget):
            which = asked.in_play(1)
            if not len(which):
                break
            halved = sum(done * 10000 // budget > limit for limit in HALVINGS)
            side = min(max(round(math.sqrt(share / 2**halved * height * width)), 1), height, width)
            top, left = (
                torch.randint(0, size - side + 1, (len(which), 1), generator=generator, device=x.device)
                for size in (height, width)
            )
            rows, columns = (torch.arange(size, device=x.device) for size in (height, width))
            window = ((rows >= top) & (rows < top + side))[:, None, :, None]
            window = window & ((columns >= left) & (columns < left + side))[:, None, None, :]
            old = asked.images[which]
            new, left = old.clone(), torch.arange(len(which), device=x.device)
            for _ in range(REDRAWS):
                own, drawn = which[left], signs(len(which), channels, 1, 1)
                colours = torch.clamp(x[own] + eps * drawn[left], low[own], high[own])
                new[left] = torch.where(window[left], colours, old[left])
                left = left[(new[left] == old[left]).flatten(1).all(1)]
                if not len(left):
                    break
            asked.try_(new, which)
    return asked.result()


def spsa(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    eps: float,
    budget: int,
    step: float = 0.01,
    samples: int = 128,
    delta: float = 0.01,
    targeted: bool = False,
    generator: Generator | None = None,
) -> Queried:
    """SPSA, l∞ (Uesato et al. 2018, Algorithm 1): the gradient of the margin from random signs, followed by Adam.

    Args:
        model: as for `square`.
        x: as for `square`.
        y: as for `square`.
        eps: as for `square`.
        budget: most queries an image; a step takes 2 · `samples` + 1, the last to see whether it fooled the model.
        step: learning rate of Adam, in units of `x`.
        samples: pairs of queries a step.
        delta: how far from the image the pairs are, in units of `x`.
        targeted: as for `square`.
        generator: as for `square`.

    Returns:
        As for `square`.

    Raises:
        InputError: as for `square`.
    """

    def signs(like: Tensor) -> Tensor:
        return torch.randint(0, 2, like.shape, generator=generator, device=like.device).to(like.dtype) * 2 - 1

    # Adam's own numbers (Kingma and Ba 2015), as in the paper.
    first = torch.zeros_like(working(x))
    second = first.clone()
    steps = 0

    def move(gradient: Tensor, which: Tensor) -> Tensor:
        nonlocal steps
        steps += 1
        first[which] = 0.9 * first[which] + 0.1 * gradient
        second[which] = 0.999 * second[which] + 0.001 * gradient.square()
        return step * (first[which] / (1 - 0.9**steps)) / ((second[which] / (1 - 0.999**steps)).sqrt() + 1e-8)

    checks.number("step", step)
    return _estimated(
        model, x, y, signs, move, eps=eps, budget=budget, samples=samples, delta=delta, name="delta", targeted=targeted
    )


def nes(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    eps: float,
    budget: int,
    step: float = 0.01,
    samples: int = 50,
    sigma: float = 0.001,
    targeted: bool = False,
    generator: Generator | None = None,
) -> Queried:
    """NES, l∞ (Ilyas et al. 2018): the gradient of the margin from pairs of Gaussian draws, followed by its sign.

    Args:
        model: as for `square`.
        x: as for `square`.
        y: as for `square`.
        eps: as for `square`.
        budget: most queries an image; a step takes 2 · `samples` + 1, the last to see whether it fooled the model.
        step: length of a step, in units of `x`.
        samples: pairs of queries a step.
        sigma: standard deviation of the draws, in units of `x`.
        targeted: as for `square`.
        generator: as for `square`.

    Returns:
        As for `square`.

    Raises:
        InputError: as for `square`.
    """

    def normal(like: Tensor) -> Tensor:
        return torch.empty_like(like).normal_(generator=generator)

    def move(gradient: Tensor, which: Tensor) -> Tensor:  # noqa: ARG001
        return step * gradient.sign()

    checks.number("step", step)
    return _estimated(
        model, x, y, normal, move, eps=eps, budget=budget, samples=samples, delta=sigma, name="sigma", targeted=targeted
    )


def _estimated(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    draw: Callable[[Tensor], Tensor],
    move: Callable[[Tensor, Tensor], Tensor],
    *,
    eps: float,
    budget: int,
    samples: int,
    delta: float,
    name: str,
    targeted: bool,
) -> Queried:
    """Climb the margin by central differences along what `draw` draws, moving as `move` says."""
    checks.count("samples", samples)
    checks.positive(name, delta)
    asked, x, low, high = begin(model, x, y, eps, budget, targeted=targeted)
    cost = 2 * samples + 1
    at = x.clone()
    with torch.no_grad(), frozen(model):
        while len(which := asked.in_play(cost)):
            here = at[which]
            gradient = torch.zeros_like(here)
            for _ in range(samples):
                along = draw(here)
                rise = asked.margins(here + delta * along, which) - asked.margins(here - delta * along, which)
                gradient += (rise / (2 * delta * samples)).view(-1, 1, 1, 1) * along
            at[which] = torch.clamp(here + move(gradient, which), low[which], high[which])
            asked.try_(at[which], which)
    return asked.result()


def zoo(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    eps: float,
    budget: int,
    step: float = 0.01,
    coordinates: int = 128,
    delta: float = 1e-4,
    targeted: bool = False,
    generator: Generator | None = None,
) -> Queried:
    """ZOO-Adam (Chen et al. 2017, Algorithms 1 and 2) within an l∞ ball: Adam on a few values of the image at a time.

    The paper's penalty on the distance, and its search for that penalty's weight, are replaced by the projection on the ball.

    Args:
        model: as for `square`.
        x: as for `square`.
        y: as for `square`.
        eps: as for `square`.
        budget: most queries an image; a step takes 2 · `coordinates` + 1, the last to see whether it fooled the model.
        step: learning rate of Adam, in units of `x`; each value counts its own steps.
        coordinates: values changed a step, drawn for each image; all of them, where it has fewer.
        delta: how far to either side a value is tried, in units of `x`.
        targeted: as for `square`.
        generator: as for `square`.

    Returns:
        As for `square`.

    Raises:
        InputError: as for `square`.
    """
    checks.count("coordinates", coordinates)
    checks.positive("delta", delta)
    checks.number("step", step)
    asked, x, low, high = begin(model, x, y, eps, budget, targeted=targeted)
    values = math.prod(x.shape[1:])
    many = min(coordinates, values)
    at, first, second, times = x.flatten(1).clone(), *(torch.zeros_like(x).flatten(1) for _ in range(3))
    with torch.no_grad(), frozen(model):
        while len(which := asked.in_play(2 * many + 1)):
            drawn = torch.rand(len(which), values, generator=generator, device=x.device).argsort(1)[:, :many]
            slopes: list[Tensor] = []
            for part in drawn.split(max(1, AT_ONCE // (2 * len(which))), 1):
                whose = which.repeat_interleave(part.shape[1])
                change = torch.zeros_like(at[whose]).scatter_(1, part.reshape(-1, 1), delta)
                both = torch.cat([at[whose] + change, at[whose] - change]).view(-1, *x.shape[1:])
                plus, minus = asked.margins(both, whose.repeat(2)).chunk(2)
                slopes.append(((plus - minus) / (2 * delta)).view_as(part))
            slope, rows = torch.cat(slopes, 1), which[:, None]
            times[rows, drawn] += 1
            first[rows, drawn] = 0.9 * first[rows, drawn] + 0.1 * slope
            second[rows, drawn] = 0.999 * second[rows, drawn] + 0.001 * slope.square()
            count = times[rows, drawn]
            rise = first[rows, drawn] / (1 - 0.9**count)
            at[rows, drawn] += step * rise / ((second[rows, drawn] / (1 - 0.999**count)).sqrt() + 1e-8)
            at[which] = torch.clamp(at[which], low[which].flatten(1), high[which].flatten(1))
            asked.try_(at[which].view(-1, *x.shape[1:]), which)
    return asked.result()
