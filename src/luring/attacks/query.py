"""Attacks that only ask: a function from images to scores, of which nothing else is known, within a budget of queries."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from luring.answers import check_logits
from luring.attacks import checks
from luring.attacks.balls import linf
from luring.attacks.objectives import margin
from luring.frozen import frozen
from luring.types import Classifier, Images, Labels

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After how many ten-thousandths of the budget Square halves the share of the image that it changes at a time."""

REDRAWS = 10
"""How often Square draws the colours of a window again that would change nothing."""


@dataclass(frozen=True, eq=False)
class Queried:
    """What an attack by queries found.

    Attributes:
        images: for each image the example that fooled the model, else the one with the highest margin that was asked about; the image itself
            where the budget allowed none.
        fooled: whether the model answered it wrongly (with `targeted`, as wanted), [batch].
        queries: how many images the model was shown for it, [batch], int64.
    """

    images: Tensor
    fooled: Tensor
    queries: Tensor


class Asked:
    """The model behind a counter: margins of images, and the best of each found so far."""

    def __init__(self, model: Classifier, x: Tensor, y: Tensor, budget: int, *, targeted: bool) -> None:
        self.model, self.y, self.budget, self.targeted = model, y, budget, targeted
        self.images, self.reached = x.clamp(0, 1), x.new_full((len(x),), -torch.inf)
        self.queries = torch.zeros(len(x), dtype=torch.int64, device=x.device)

    def in_play(self, cost: int) -> Tensor:
        """Which images are not fooled yet and can be asked about `cost` times more."""
        return ((self.reached <= 0) & (self.queries + cost <= self.budget)).nonzero().squeeze(1)

    def margins(self, images: Tensor, which: Tensor) -> Tensor:
        """Margins of examples for the images `which`, one query each: above 0 where the model is fooled."""
        logits = check_logits(self.model(images), len(images)).to(images)
        checks.labels(self.y, logits.shape[1])
        self.queries.index_add_(0, which, torch.ones_like(which))
        found = margin(logits, self.y[which])
        return -found if self.targeted else found

    def try_(self, images: Tensor, which: Tensor) -> Tensor:
        """Ask about examples and keep those that are better than any before; which they were."""
        found = self.margins(images, which)
        better = found > self.reached[which]
        self.images[which[better]], self.reached[which[better]] = images[better], found[better]
        return better

    def result(self) -> Queried:
        """What was found."""
        return Queried(self.images, self.reached > 0, self.queries)


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
        x: clean images, [batch, channels, height, width], float32 or float64, values in [0, 1].
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
    asked, low, high = _begin(model, x, y, eps, budget, targeted=targeted)
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
            new, same = old.clone(), torch.ones(len(which), dtype=torch.bool, device=x.device)
            for _ in range(REDRAWS):
                colours = torch.clamp(x[which] + eps * signs(len(which), channels, 1, 1), low[which], high[which])
                new = torch.where(same.view(-1, 1, 1, 1) & window, colours, new)
                same = (new == old).flatten(1).all(1)
                if not bool(same.any()):
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
    first, second = torch.zeros_like(x), torch.zeros_like(x)
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
    asked, low, high = _begin(model, x, y, eps, budget, targeted=targeted)
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


def _begin(
    model: Classifier, x: Tensor, y: Tensor, eps: float, budget: int, *, targeted: bool
) -> tuple[Asked, Tensor, Tensor]:
    checks.pictures(x, y)
    checks.number("eps", eps)
    checks.count("budget", budget)
    low, high = (linf(x, eps).project(torch.full_like(x, far)) for far in (-math.inf, math.inf))
    return Asked(model, x, y, budget, targeted=targeted), low, high
