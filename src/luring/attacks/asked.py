"""The model behind a counter: what every attack by queries asks through, and the result that it gives."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from luring.answers import check_logits
from luring.attacks import checks, watched
from luring.attacks.balls import linf
from luring.attacks.forms import like, representable, working
from luring.attacks.objectives import margin
from luring.types import Classifier

AT_ONCE = 512
"""Images shown to the model in one call, where an attack has more than one question an image."""


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
        self.model, self.x, self.y, self.budget, self.targeted = model, x, y, budget, targeted
        self.images = working(x).clamp_(0, 1)
        self.reached = self.images.new_full((len(x),), -torch.inf)
        self.queries = torch.zeros(len(x), dtype=torch.int64, device=x.device)

    def playing(self, cost: int) -> Tensor:
        """Whether each image is not fooled yet and can be asked about `cost` times more, [batch]."""
        return (self.reached <= 0) & (self.queries + cost <= self.budget)

    def in_play(self, cost: int) -> Tensor:
        """Which images these are."""
        return self.playing(cost).nonzero().squeeze(1)

    def margins(self, images: Tensor, which: Tensor) -> Tensor:
        """Margins of examples for the images `which`, one query each: above 0 where the model is fooled."""
        given = representable(images, self.x, which).to(self.x.dtype)
        logits = check_logits(self.model(given), len(images)).to(images)
        checks.labels(self.y, logits.shape[1])
        self.queries.index_add_(0, which, torch.ones_like(which))
        found = margin(logits, self.y[which])
        return -found if self.targeted else found

    def keep(self, images: Tensor, found: Tensor, which: Tensor) -> None:
        """Keep the examples with these margins that are better than any before. An image may stand in `which` more than once."""
        place = highest(found, which, self.reached)
        which, images, found = which[place], images[place], found[place]
        self.images[which], self.reached[which] = representable(images, self.x, which), found
        if len(which):
            watched.step(self.images[which])

    def try_(self, images: Tensor, which: Tensor) -> None:
        """Ask about examples and keep those that are better than any before."""
        self.keep(images, self.margins(images, which), which)

    def result(self) -> Queried:
        """What was found."""
        return Queried(like(self.images, self.x), self.reached > 0, self.queries)


def highest(values: Tensor, which: Tensor, reached: Tensor) -> Tensor:
    """Places in `values` of what each image should keep: the highest of its own, where that is above what it has reached.

    Args:
        values: found, [count].
        which: the image that each belongs to, [count]; an image may stand there more than once.
        reached: by each image so far, [batch].
    """
    best = reached.scatter_reduce(0, which, values, "amax")
    wins = ((values == best[which]) & (values > reached[which])).nonzero().squeeze(1)
    place = torch.full_like(reached, -1, dtype=torch.int64).scatter_reduce_(0, which[wins], wins, "amax")
    return place[place >= 0]


def begin(
    model: Classifier, x: Tensor, y: Tensor, eps: float, budget: int, *, targeted: bool
) -> tuple[Asked, Tensor, Tensor, Tensor]:
    """A counter for checked images, the images to work on, and the lowest and the highest image of their l∞ balls."""
    checks.pictures(x, y)
    checks.number("eps", eps)
    checks.count("budget", budget)
    asked, x = Asked(model, x, y, budget, targeted=targeted), working(x)
    low, high = (linf(x, eps).project(torch.full_like(x, far)) for far in (-math.inf, math.inf))
    return asked, x, low, high
