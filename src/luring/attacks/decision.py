"""Attacks that ask for labels alone: they begin at an image that fools the model and walk along its boundary towards the clean one."""

import math
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from luring.answers import check_logits
from luring.attacks import checks, watched
from luring.attacks.asked import AT_ONCE, Queried, highest
from luring.attacks.balls import BALLS, TINY
from luring.attacks.forms import like, representable, working
from luring.errors import InputError
from luring.frozen import frozen
from luring.types import Classifier, Images, Labels

Rows: TypeAlias = Tensor
"""Places in the batch, [count], int64."""

STARTS = 100
"""Images of noise that an attack tries to begin at."""

HALVINGS = 30
"""How often HopSkipJump halves a step that does not fool the model, before it stays where it is."""


def hop_skip_jump(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    eps: float,
    budget: int,
    norm: str = "linf",
    samples: int = 100,
    targeted: bool = False,
    start: Tensor | None = None,
    generator: Generator | None = None,
) -> Queried:
    """HopSkipJump, l∞ or l2 (Chen, Jordan and Wainwright 2020, Algorithm 2): boundary, gradient there from signs, step, boundary.

    An image is finished as soon as it fools the model within `eps`.

    Args:
        model: images to labels, [batch], or to scores, [batch, classes], of which the highest is the label; any function. A label below 0 is a
            refusal to answer, and fools nobody.
        x: clean images, [batch, channels, height, width], values in [0, 1].
        y: true labels, [batch], int64; with `targeted`, the labels wanted.
        eps: radius of the ball around `x` that is to be reached, in units of `x`.
        budget: most queries an image.
        norm: `linf` or `l2`: the distance that is made small.
        samples: queries for the first gradient; √t times as many for the t-th.
        targeted: towards `y` instead of away from it.
        start: images that fool the model already, one each; uniform noise where it is missing, up to 100 tries an image.
        generator: source of what it draws; PyTorch's own where it is missing.

    Returns:
        For each image the nearest example found, brought into the ball where it lies outside, and whether the model was fooled within it.

    Raises:
        InputError: as for `fgsm`; `targeted` without `start`.
    """
    checks.count("samples", samples)
    walk = _Walk(model, x, y, eps, budget, norm, targeted=targeted)
    values = math.prod(x.shape[1:])
    # The paper's θ: how near to the boundary the binary search comes.
    near = 1 / (values * math.sqrt(values)) if norm == "l2" else 1 / values**2
    with torch.no_grad(), frozen(model):
        walk.begin(start, generator)
        walk.bisect(walk.playing(), near)
        turn = 0
        while len(which := walk.playing()):
            turn += 1
            delta = 0.1 if turn == 1 else near * walk.far[which] * (math.sqrt(values) if norm == "l2" else values)
            rise = _rise(
                walk,
                which,
                torch.as_tensor(delta).to(walk.x).expand(len(which)),
                int(samples * math.sqrt(turn)),
                generator,
            )
            rise = rise.sign() if norm == "linf" else rise / _length(rise)
            length = walk.far[which] / math.sqrt(turn)
            for _ in range(HALVINGS):
                able = walk.left(which) > 0
                which, rise, length = which[able], rise[able], length[able]
                tried = (walk.at[which] + length.view(-1, 1, 1, 1) * rise).clamp_(0, 1)
                fooled = walk.fooled(tried, which)
                walk.move(tried[fooled], which[fooled])
                walk.bisect(which[fooled], near)
                which, rise, length = which[~fooled], rise[~fooled], length[~fooled] / 2
                if not len(which):
                    break
    return walk.result()


def _rise(walk: "_Walk", which: Rows, delta: Tensor, samples: int, generator: Generator | None) -> Tensor:
    """The direction in which the model is fooled more often, from queries around images of the boundary (Equations 9 and 16)."""
    here, delta = walk.at[which], delta.view(-1, 1, 1, 1)
    count = walk.left(which).clamp_max(samples)
    signed, drawn, signs = torch.zeros_like(here), torch.zeros_like(here), torch.zeros_like(delta).flatten()
    group = max(1, AT_ONCE // len(which))
    for first in range(0, int(count.max()), group):
        turn = first + torch.arange(group, device=which.device).repeat(len(which))
        row = torch.arange(len(which), device=which.device).repeat_interleave(group)
        row = row[turn < count[row]]
        base = here[row]
        along = torch.empty_like(base)
        along = along.normal_(generator=generator) if walk.norm == "l2" else along.uniform_(-1, 1, generator=generator)
        around = (base + delta[row] * along / _length(along)).clamp_(0, 1)
        along = (around - base) / delta[row]
        sign = walk.fooled(around, which[row]).to(here) * 2 - 1
        signed.index_add_(0, row, along * sign.view(-1, 1, 1, 1))
        drawn.index_add_(0, row, along)
        signs.index_add_(0, row, sign)
    share = count.clamp_min(1).to(here)
    mean = signs / share
    # Where all signs agree, their mean would cancel everything.
    mean = torch.where(mean.abs() == 1, 0, mean)
    return (signed - mean.view(-1, 1, 1, 1) * drawn) / share.view(-1, 1, 1, 1)


def boundary(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    eps: float,
    budget: int,
    norm: str = "l2",
    spherical: float = 0.01,
    source: float = 0.01,
    targeted: bool = False,
    start: Tensor | None = None,
    generator: Generator | None = None,
) -> Queried:
    """Boundary attack (Brendel, Rauber and Bethge 2018): steps around the clean image, drawn at random, each a little nearer to it.

    It makes the l2 distance small, whatever `norm`. Both lengths follow the image: ten steps around it that fool the model more than half the time
    make both longer, less than a fifth of the time shorter, and so does what became of thirty steps the second, at a quarter and a tenth.

    Args:
        model: as for `hop_skip_jump`.
        x: as for `hop_skip_jump`.
        y: as for `hop_skip_jump`.
        eps: as for `hop_skip_jump`.
        budget: most queries an image.
        norm: `linf` or `l2`: of the ball that is to be reached.
        spherical: length of the first step around the clean image, as a share of the distance to it.
        source: the same, of the first step towards it.
        targeted: as for `hop_skip_jump`.
        start: as for `hop_skip_jump`.
        generator: as for `hop_skip_jump`.

    Returns:
        As for `hop_skip_jump`.

    Raises:
        InputError: as for `hop_skip_jump`.
    """
    checks.positive("spherical", spherical)
    checks.positive("source", source)
    walk = _Walk(model, x, y, eps, budget, norm, targeted=targeted)
    x = walk.x
    around, towards = x.new_full((len(x),), spherical), x.new_full((len(x),), source)
    checked, crossed = _Share(x, 10), _Share(x, 30)
    turn = 0
    with torch.no_grad(), frozen(model):
        walk.begin(start, generator)
        walk.bisect(walk.playing(), 1e-3, straight=True)
        while len(which := walk.playing()):
            gap = x[which] - walk.at[which]
            far = _length(gap)
            drawn = torch.empty_like(gap).normal_(generator=generator)
            drawn -= (drawn * gap).sum((1, 2, 3), keepdim=True) / far.square() * gap
            wide = around[which].view(-1, 1, 1, 1)
            drawn *= wide * far / _length(drawn)
            on_sphere = (x[which] + (drawn - gap) / (1 + wide.square()).sqrt()).clamp_(0, 1)
            back = x[which] - on_sphere
            shorter = (towards[which].view(-1, 1, 1, 1) * far + _length(back) - far).clamp_min_(0)
            nearer = (on_sphere + shorter * back / _length(back)).clamp_(0, 1)
            fooled = walk.fooled(nearer, which)
            better = fooled & (_length(x[which] - nearer).flatten() < far.flatten())
            walk.move(nearer[better], which[better])
            full, share = crossed.add(which, fooled)
            towards[full] *= _factor(share, 0.1, 0.25)
            if turn % 10 == 0:
                able = walk.left(which) > 0
                full, share = checked.add(which[able], walk.fooled(on_sphere[able], which[able]))
                factor = _factor(share, 0.2, 0.5)
                around[full] *= factor
                towards[full] *= factor
            turn += 1
    return walk.result()


def _factor(share: Tensor, low: float, high: float) -> Tensor:
    """By how much a length changes, given how often it succeeded."""
    return torch.where(share > high, 1.5, torch.where(share < low, 1 / 1.5, 1.0)).to(share)


class _Share:
    """How often something succeeded, an image at a time, over as many times as there are places."""

    def __init__(self, x: Tensor, places: int) -> None:
        self.places, self.times, self.good = places, x.new_zeros(len(x)), x.new_zeros(len(x))

    def add(self, which: Rows, good: Tensor) -> tuple[Rows, Tensor]:
        """Count once more; the images whose places are full, and their shares. These begin anew."""
        self.times[which] += 1
        self.good[which] += good.to(self.good)
        full = which[self.times[which] == self.places]
        share = self.good[full] / self.places
        self.times[full], self.good[full] = 0, 0
        return full, share


def _length(images: Tensor) -> Tensor:
    return images.flatten(1).norm(dim=1).clamp_min(TINY).view(-1, 1, 1, 1)


class _Walk:
    """Where each image's walk stands: an image `at` that fools the model, how `far` it is, and the nearest so far."""

    def __init__(
        self, model: Classifier, x: Tensor, y: Tensor, eps: float, budget: int, norm: str, *, targeted: bool
    ) -> None:
        checks.pictures(x, y)
        checks.number("eps", eps)
        checks.count("budget", budget)
        checks.choice("norm", norm, BALLS)
        self.given, x = x, working(x).clamp_(0, 1)
        self.model: Callable[[Tensor], object] = model
        self.x, self.y, self.eps, self.budget, self.norm = x, y, eps, budget, norm
        self.targeted = targeted
        self.queries = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.at, self.far = x.clone(), x.new_full((len(x),), torch.inf)
        self.best, self.nearest = x.clone(), x.new_full((len(x),), torch.inf)

    def left(self, which: Rows) -> Tensor:
        """Queries left, [count]."""
        return self.budget - self.queries[which]

    def playing(self) -> Rows:
        """The images that began, are not within `eps` and have queries left."""
        return (self.far.isfinite() & (self.nearest > self.eps) & (self.queries < self.budget)).nonzero().squeeze(1)

    def fooled(self, images: Tensor, which: Rows) -> Tensor:
        """Ask about images, one query each: whether they fool the model. The nearest that do are kept."""
        if not len(which):
            return torch.zeros(0, dtype=torch.bool, device=images.device)
        images = representable(images, self.given, which)
        answer = self.model(images.to(self.given.dtype))
        if isinstance(answer, Tensor) and answer.shape == which.shape and not answer.is_floating_point():
            label = answer.to(self.y)
        else:
            label = check_logits(answer, len(images)).argmax(1).to(self.y)
        self.queries.index_add_(0, which, torch.ones_like(which))
        fooled = (label == self.y[which]) if self.targeted else (label != self.y[which]) & (label >= 0)
        far = self.distance(images, which)
        place = highest(torch.where(fooled, -far, -torch.inf), which, -self.nearest)
        self.best[which[place]], self.nearest[which[place]] = images[place], far[place]
        return fooled

    def distance(self, images: Tensor, which: Rows) -> Tensor:
        """From the clean images, [count], in the walk's norm."""
        return torch.linalg.vector_norm(
            (images - self.x[which]).flatten(1), ord=2 if self.norm == "l2" else math.inf, dim=1
        )

    def move(self, images: Tensor, which: Rows) -> None:
        """Stand at these images from now on."""
        self.at[which], self.far[which] = images, self.distance(images, which)
        if len(which):
            watched.step(images)

    def begin(self, start: Tensor | None, generator: Generator | None) -> None:
        """Stand at images that fool the model: the clean ones where they do, those given, or noise."""
        everyone = torch.arange(len(self.x), device=self.x.device)
        if start is None and self.targeted:
            raise InputError(
                "a targeted walk needs images to begin at: give start, images that the model answers y to."
            )
        if start is not None and start.shape != self.x.shape:
            raise InputError(f"start is {list(start.shape)}: give one image each, {list(self.x.shape)}.")
        tries: list[Callable[[Rows], Tensor]] = [self.x.__getitem__]
        if start is not None:
            tries.append(start.to(self.x).__getitem__)
        else:
            tries += [partial(self.noise, generator)] * STARTS
        for attempt in tries:
            which = everyone[~self.far.isfinite() & (self.queries < self.budget)]
            if not len(which):
                return
            images = attempt(which)
            fooled = self.fooled(images, which)
            self.move(images[fooled], which[fooled])

    def noise(self, generator: Generator | None, which: Rows) -> Tensor:
        """Images of uniform noise."""
        return torch.empty_like(self.x[which]).uniform_(0, 1, generator=generator)

    def bisect(self, which: Rows, near: float, *, straight: bool = False) -> None:
        """Come back towards the clean images as far as the model stays fooled, to within `near` (Algorithm 1).

        In l∞ the way back clips to smaller and smaller balls; in l2, or `straight`, it is the straight line.
        """
        line = straight or self.norm == "l2"
        end, high = self.at[which], torch.ones_like(self.far[which]) if line else self.far[which]
        low = torch.zeros_like(high)
        close = torch.full_like(high, near) if line else (high * near).clamp_max(near)
        while len(live := ((high - low > close) & (self.left(which) > 0)).nonzero().squeeze(1)):
            share = (low[live] + high[live]) / 2
            clean, far = self.x[which[live]], share.view(-1, 1, 1, 1)
            between = clean + far * (end[live] - clean) if line else torch.clamp(end[live], clean - far, clean + far)
            fooled = self.fooled(between, which[live])
            self.move(between[fooled], which[live[fooled]])
            # Halving stops where the numbers have no digits left.
            stuck = (share <= low[live]) | (share >= high[live])
            high[live] = torch.where(fooled | stuck, share, high[live])
            low[live] = torch.where(fooled & ~stuck, low[live], share)

    def result(self) -> Queried:
        """What was found, inside the ball."""
        fooled = self.nearest <= self.eps
        inside = BALLS[self.norm](self.x, self.eps).project(self.best)
        best = torch.where(fooled.view(-1, 1, 1, 1), self.best, inside)
        return Queried(like(best, self.given), fooled, self.queries)
