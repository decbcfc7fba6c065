"""Gradient attacks: one loop with replaceable pieces. `named` holds what the literature calls certain pieces together.

Every function takes any callable from images to logits, leaves a module as it found it, and returns images in [0, 1] inside the ball.
"""

import torch
from torch import Generator, Tensor

from luring.attacks import checks, watched
from luring.attacks.balls import BALLS, Ball, linf
from luring.attacks.forms import like, shown, working
from luring.attacks.objectives import OBJECTIVES
from luring.attacks.quick import quick
from luring.attacks.slopes import Estimate, Slope, at, normalised
from luring.attacks.transforms import Looks, Smooth, looks, see_as_is
from luring.frozen import frozen
from luring.types import Classifier, Images, Labels


def keep(gradient: Tensor) -> Tensor:
    """The gradient stays what it is."""
    return gradient


def fgsm(model: Classifier, x: Images, y: Labels, *, eps: float, targeted: bool = False, loss: str = "ce") -> Images:
    """Fast gradient sign method, l∞ (Goodfellow et al. 2015): one step of `eps`.

    Args:
        model: images to logits; one forward and one backward pass.
        x: clean images, [batch, channels, height, width], of any floating-point type, values in [0, 1].
        y: true labels, [batch], int64; with `targeted`, the labels wanted.
        eps: radius of the l∞ ball around `x`, in units of `x`.
        targeted: move towards `y` instead of away from it.
        loss: `ce` (cross-entropy, in a form that does not saturate), `margin` or `dlr`.

    Returns:
        Images in [0, 1] within `eps` of `x`, detached, same shape, dtype and memory format as `x`.

    Raises:
        InputError: a value of `x` outside [0, 1] or not finite, a setting out of range, shapes that do not match, or a model
            whose output is not [batch, classes].
    """
    return _iterate(model, x, y, eps=eps, step=eps or 1.0, steps=1, targeted=targeted, loss=loss)


def bim(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    eps: float,
    step: float,
    steps: int,
    norm: str = "linf",
    targeted: bool = False,
    loss: str = "ce",
) -> Images:
    """Basic iterative method (Kurakin et al. 2016): `pgd` from the clean image; arguments as there."""
    return pgd(
        model, x, y, eps=eps, step=step, steps=steps, norm=norm, random_start=False, targeted=targeted, loss=loss
    )


def pgd(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    eps: float,
    step: float,
    steps: int,
    norm: str = "linf",
    random_start: bool = True,
    targeted: bool = False,
    loss: str = "ce",
    generator: Generator | None = None,
) -> Images:
    """Projected gradient descent (Madry et al. 2018), l∞ or l2.

    Args:
        model: images to logits; one forward and one backward pass a step.
        x: clean images, [batch, channels, height, width], of any floating-point type, values in [0, 1].
        y: true labels, [batch], int64; with `targeted`, the labels wanted.
        eps: radius of the ball around `x`; this and `step` in units of `x`.
        step: length of one step, in the same norm.
        steps: number of steps.
        norm: `linf` or `l2`.
        random_start: begin at a uniform point of the ball instead of at `x`.
        targeted: move towards `y` instead of away from it.
        loss: `ce` (cross-entropy, in a form that does not saturate), `margin` or `dlr`.
        generator: source of the random start; PyTorch's own where it is missing.

    Returns:
        Images in [0, 1] within `eps` of `x`, detached, same shape, dtype and memory format as `x`.

    Raises:
        InputError: as for `fgsm`.
    """
    return _iterate(
        model,
        x,
        y,
        eps=eps,
        step=step,
        steps=steps,
        norm=norm,
        random_start=random_start,
        targeted=targeted,
        loss=loss,
        generator=generator,
    )


def mim(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    eps: float,
    step: float,
    steps: int,
    decay: float = 1.0,
    norm: str = "linf",
    see: Looks = see_as_is,
    smooth: Smooth = keep,
    estimate: Estimate = at,
    nesterov: bool = False,
    targeted: bool = False,
    loss: str = "ce",
    generator: Generator | None = None,
) -> Images:
    """Momentum iterative method (Dong et al. 2018, Algorithm 1), l∞ or l2.

    `see` acts on what the model sees (DIM, Xie et al. 2019), `smooth` on the gradient (TI, Dong et al. 2019), `estimate` and
    `nesterov` on where the gradient is taken; any of them go together, so that `see=chain(scales(), diversity(0.5))`,
    `smooth=smoothing(5)`, `estimate=variance()` is DIM-TI-SI-VMI, and `decay=0` alone BIM. The momentum is
    g ← decay · g + ∇ / mean|∇|, per image, with ∇ smoothed before it is divided.

    Args:
        model: images to logits; one forward and one backward pass a step.
        x: clean images, [batch, channels, height, width], of any floating-point type, values in [0, 1].
        y: true labels, [batch], int64; with `targeted`, the labels wanted.
        eps: radius of the ball around `x`; this and `step` in units of `x`.
        step: length of one step, in the same norm.
        steps: number of steps.
        decay: of the momentum, 0 or more.
        norm: `linf` or `l2`.
        see: from images and a generator to the images shown to the model; several such functions are as many passes a step.
        smooth: from gradients to gradients.
        estimate: where the gradient is taken: `slopes.at`, `slopes.variance(…)` (VMI) or `slopes.flat(…)` (PGN).
        nesterov: take it one step of the momentum ahead (NI, Lin et al. 2020).
        targeted: move towards `y` instead of away from it.
        loss: `ce` (cross-entropy, in a form that does not saturate), `margin` or `dlr`.
        generator: source of what `see` and `estimate` draw; PyTorch's own where it is missing.

    Returns:
        Images in [0, 1] within `eps` of `x`, detached, same shape, dtype and memory format as `x`.

    Raises:
        InputError: as for `fgsm`.
    """
    return _iterate(
        model,
        x,
        y,
        eps=eps,
        step=step,
        steps=steps,
        decay=decay,
        norm=norm,
        see=see,
        smooth=smooth,
        estimate=estimate,
        nesterov=nesterov,
        targeted=targeted,
        loss=loss,
        generator=generator,
    )


def miml2(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    eps: float,
    radius: float,
    step: float,
    steps: int,
    decay: float = 1.0,
    targeted: bool = False,
    loss: str = "ce",
) -> Images:
    """`mim` in the l2 ball of `radius`, its result then clipped to `eps` in l∞ (MIML2 of the luring paper, §4.2).

    Args:
        model: images to logits; one forward and one backward pass a step.
        x: clean images, as for `mim`.
        y: labels, as for `mim`.
        eps: radius of the l∞ ball that the result is clipped to.
        radius: of the l2 ball that the steps stay in.
        step: l2 length of one step.
        steps: number of steps.
        decay: of the momentum.
        targeted: move towards `y` instead of away from it.
        loss: `ce`, `margin` or `dlr`.

    Returns:
        Images in [0, 1] within `eps` of `x` in l∞ and within `radius` in l2, detached, same shape, dtype and memory format as `x`.

    Raises:
        InputError: as for `fgsm`.
    """
    checks.number("eps", eps)
    checks.number("radius", radius)
    far = mim(model, x, y, eps=radius, step=step, steps=steps, decay=decay, norm="l2", targeted=targeted, loss=loss)
    return like(linf(working(x), eps).project(working(far)), x)


def _iterate(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    step: float,
    steps: int,
    decay: float = 0.0,
    norm: str = "linf",
    random_start: bool = False,
    see: Looks = see_as_is,
    smooth: Smooth = keep,
    estimate: Estimate = at,
    nesterov: bool = False,
    targeted: bool = False,
    loss: str = "ce",
    generator: Generator | None = None,
) -> Tensor:
    """The loop of all gradient attacks: see, differentiate, smooth, remember, step, project."""
    checks.pictures(x, y)
    for name, value in (("eps", eps), ("step", step), ("decay", decay)):
        checks.number(name, value)
    checks.count("steps", steps)
    checks.choice("norm", norm, BALLS)
    checks.choice("loss", loss, OBJECTIVES)
    # A caller's no_grad or inference_mode must not keep us from the gradient.
    with torch.inference_mode(False), torch.enable_grad(), frozen(model):
        given, x, y = x, working(x), y.clone()
        model = shown(quick(model, given), given)
        ball: Ball = BALLS[norm](x, eps)
        slope = Slope(model, y, loss=loss, sees=looks(see), targeted=targeted, generator=generator)
        estimator = estimate(ball, step)
        adversarial = ball.random(generator) if random_start else x
        momentum: Tensor | None = None
        for _ in range(steps if len(x) else 0):
            slope.next_step()
            adversarial = adversarial.detach()
            ahead = (
                adversarial if momentum is None or not nesterov else adversarial + step * decay * ball.pace(momentum)
            )
            direction = normalised(smooth(estimator(slope, ahead, generator)))
            if decay:
                direction = momentum = direction if momentum is None else direction.add_(momentum, alpha=decay)
            adversarial = ball.project(adversarial + step * ball.unit(direction))
            watched.step(adversarial)
        return like(adversarial.detach(), given)
