"""Auto-PGD (Croce and Hein 2020): projected gradient whose steps shorten by themselves, for a white-box answer without tuning."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from luring import answers
from luring.answers import check_logits
from luring.attacks import checks, watched
from luring.attacks.balls import BALLS, Ball
from luring.attacks.forms import like, shown, working
from luring.attacks.objectives import OBJECTIVES, difference_of_logits_towards, margin, wrong_classes
from luring.attacks.quick import quick
from luring.frozen import frozen
from luring.types import Classifier, Images, Labels

MOMENTUM = 0.75
"""Share of the new step in where the images go; the rest is the last movement."""

RISING = 0.75
"""A stretch of steps of which a smaller share raised the objective halves the step."""

Objective: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From what the model gives, labels, and what is wanted of each image (a class, most often) to a number an image."""

Round: TypeAlias = tuple[Objective, Tensor]
"""An objective, and what is wanted of each image: a tensor with a row an image."""


def apgd(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    eps: float,
    steps: int,
    norm: str = "linf",
    loss: str = "ce",
    restarts: int = 1,
    generator: Generator | None = None,
) -> Images:
    """Auto-PGD, untargeted, l∞ or l2 (Croce and Hein 2020, Algorithm 1).

    Args:
        model: images to logits; `restarts` · (1 + `steps`) forward and backward passes.
        x: clean images, [batch, channels, height, width], of any floating-point type, values in [0, 1].
        y: true labels, [batch], int64.
        eps: radius of the ball around `x`, in units of `x`.
        steps: number of steps.
        norm: `linf` or `l2`.
        loss: `ce` (cross-entropy, in a form that does not saturate), `margin` or `dlr` (three classes or more).
        restarts: how often to begin at a random point; from the second on with the images alone that do not fool the model yet.
        generator: source of the random starts; PyTorch's own where it is missing.

    Returns:
        Images in [0, 1] within `eps` of `x`, detached, same shape, dtype and memory format as `x`: of those met, the one with the highest
        margin, which fools the model if any did.

    Raises:
        InputError: a value of `x` outside [0, 1] or not finite, a setting out of range, shapes that do not match, or a model whose
            output is not [batch, classes].
    """
    checks.choice("loss", loss, OBJECTIVES)
    checks.count("restarts", restarts)
    objective, _ = OBJECTIVES[loss]

    def untargeted(logits: Tensor, labels: Tensor, _: Tensor) -> Tensor:
        return objective(logits, labels)

    return apgd_by(model, x, y, [(untargeted, y)] * restarts, eps=eps, steps=steps, norm=norm, generator=generator)


def apgd_t(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    eps: float,
    steps: int,
    norm: str = "linf",
    targets: int = 9,
    generator: Generator | None = None,
) -> Images:
    """Auto-PGD towards one class after the other by the targeted difference of logits ratio (Croce and Hein 2020, Equation 7).

    Args:
        model: images to logits, four classes or more; a forward pass, and at most `targets` · (1 + `steps`) forward and backward.
        x: clean images, as for `apgd`.
        y: true labels, as for `apgd`: what counts is that the model does not answer them.
        eps: radius of the ball around `x`.
        steps: number of steps towards each class.
        norm: `linf` or `l2`.
        targets: how many classes to go towards: those with the highest logits of the clean image, all others where there are fewer.
        generator: source of the random starts.

    Returns:
        As for `apgd`.

    Raises:
        InputError: as for `apgd`, or a model with fewer than four classes.
    """
    checks.pictures(x, y)
    checks.count("targets", targets)
    if not len(x):
        return x.clone()
    logits = answers.logits(model, x)
    checks.labels(y, logits.shape[1])
    rounds: list[Round] = [(difference_of_logits_towards, classes) for classes in wrong_classes(logits, y, targets)]
    return apgd_by(model, x, y, rounds, eps=eps, steps=steps, norm=norm, generator=generator)


def untargeted_margin(logits: Tensor, labels: Tensor, _: Tensor) -> Tensor:
    """`margin`, whatever is wanted: above 0 where the model answers another class."""
    return margin(logits, labels)


def apgd_by(
    model: Callable[[Tensor], Tensor],
    x: Images,
    y: Labels,
    rounds: Iterable[Round],
    *,
    eps: float,
    steps: int,
    reached: Objective = untargeted_margin,
    enough: bool = False,
    norm: str = "linf",
    generator: Generator | None = None,
) -> Images:
    """Auto-PGD by objectives of your own and towards a goal of your own: two networks at once, the features of a layer.

    Args:
        model: from images to numbers, [batch, values], as many an image as there are classes or more: logits, those of several networks side
            by side, features.
        x: clean images, as for `apgd`.
        y: true labels, [batch].
        rounds: what is climbed, one after the other, each from a random start and with the images alone that have not reached the goal.
        eps: radius of the ball around `x`.
        steps: number of steps a round.
        reached: above 0 where the goal is reached; given what a round is given.
        enough: an image that has reached the goal is done; otherwise it climbs on to the round's end, for the highest `reached`.
        norm: `linf` or `l2`.
        generator: source of the random starts.

    Returns:
        As for `apgd`: of the images met, the one with the highest `reached`; with `enough`, the first that reached the goal.

    Raises:
        InputError: as for `apgd`.
    """
    checks.pictures(x, y)
    checks.number("eps", eps)
    checks.count("steps", steps)
    checks.choice("norm", norm, BALLS)
    with torch.inference_mode(False), torch.enable_grad(), frozen(model):
        given, x, y = x, working(x), y.clone()
        model = shown(quick(model, given), given)
        best, highest = x.clone(), x.new_full((len(x),), -torch.inf)
        for objective, wanted in rounds:
            left = (highest <= 0).nonzero().squeeze(1)
            if not len(left):
                break
            goal = objective, reached, enough
            found, values = _craft(model, BALLS[norm], x[left], eps, y[left], wanted[left], goal, steps, generator)
            better = values > highest[left]
            best[left[better]], highest[left[better]] = found[better], values[better]
        return like(best, given)


def _craft(
    model: Classifier,
    around: Callable[[Tensor, float], Ball],
    x: Tensor,
    eps: float,
    y: Tensor,
    wanted: Tensor,
    goal: tuple[Objective, Objective, bool],
    steps: int,
    generator: Generator | None,
) -> tuple[Tensor, Tensor]:
    """Algorithm 1, from one random start: of the images met those with the highest `reached`, and what it is."""
    objective, reached, enough = goal

    def look(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        leaf = images.detach().requires_grad_()
        logits = check_logits(model(leaf), len(leaf))
        checks.labels(y, logits.shape[1])
        value = objective(logits, y, wanted)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        checks.finite(gradient)
        return value.detach(), gradient, reached(logits.detach(), y, wanted).to(leaf.dtype)

    def chosen(where: Tensor, one: Tensor, other: Tensor) -> Tensor:
        return torch.where(where.view(-1, *[1] * (one.ndim - 1)), one, other)

    # Checkpoints as the paper has them: first after 0.22 of the steps, then ever sooner, by 0.03 down to 0.06.
    stretch, shorter, shortest = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    ball = around(x, eps)
    images = before = ball.random(generator)
    value, gradient, margins = look(images)
    best = (value, images, gradient)
    found = (margins, images)
    step = torch.full((len(images), 1, 1, 1), 2 * ball.eps, dtype=images.dtype, device=images.device)
    rises = torch.zeros_like(value)
    at_check, halved = value, torch.ones_like(value, dtype=torch.bool)
    since = 0
    # Where each image still at work stands in the result, which those that have reached enough are written to.
    place, result = torch.arange(len(x), device=x.device), (images.clone(), margins.clone())
    for done in range(steps):
        if enough and bool((over := found[0] > 0).any()):
            result[0][place[over]], result[1][place[over]] = found[1][over], found[0][over]
            going = ~over
            x, y, wanted, place, images, before, value, gradient, step, rises, at_check, halved = (
                part[going]
                for part in (x, y, wanted, place, images, before, value, gradient, step, rises, at_check, halved)
            )
            best = (best[0][going], best[1][going], best[2][going])
            found = (found[0][going], found[1][going])
            if not len(x):
                break
            ball = around(x, eps)
        stepped = ball.project(images + step * ball.unit(gradient))
        share = MOMENTUM if done else 1.0
        images, before = ball.project(images + share * (stepped - images) + (1 - share) * (images - before)), images
        watched.step(images)
        last = value
        value, gradient, margins = look(images)
        rises += value > last
        ahead = value > best[0]
        best = (chosen(ahead, value, best[0]), chosen(ahead, images, best[1]), chosen(ahead, gradient, best[2]))
        ahead = margins > found[0]
        found = (chosen(ahead, margins, found[0]), chosen(ahead, images, found[1]))
        since += 1
        if since == stretch:
            stuck = (rises < RISING * stretch) | (~halved & (best[0] <= at_check))
            step = chosen(stuck, step / 2, step)
            value, images, gradient = (
                chosen(stuck, best[0], value),
                chosen(stuck, best[1], images),
                chosen(stuck, best[2], gradient),
            )
            at_check, halved = best[0], stuck
            rises, since, stretch = torch.zeros_like(rises), 0, max(stretch - shorter, shortest)
    result[0][place], result[1][place] = found[1], found[0]
    return result[0].detach(), result[1]
