"""Gradient attacks: one loop with replaceable pieces, and the names the literature gives to its settings.

Every function takes any callable from images to logits, leaves a module as it found it, and returns images in [0, 1] inside the ball.
"""

import math

import torch
from torch import Generator, Tensor

from luring.answers import check_logits
from luring.attacks.balls import BALLS, TINY, Ball, linf
from luring.attacks.objectives import OBJECTIVES
from luring.attacks.transforms import See, Smooth, diversity, smoothing
from luring.errors import InputError
from luring.frozen import frozen
from luring.types import Classifier, Images, Labels

ROUNDING = 1e-6
"""How far outside [0, 1] a value may lie and still be taken for rounding."""


def see_as_is(images: Tensor, generator: Generator | None) -> Tensor:  # noqa: ARG001
    """The model sees the images themselves."""
    return images


def keep(gradient: Tensor) -> Tensor:
    """The gradient stays what it is."""
    return gradient


def fgsm(model: Classifier, x: Images, y: Labels, *, eps: float, targeted: bool = False, loss: str = "ce") -> Images:
    """Fast gradient sign method, l∞ (Goodfellow et al. 2015): one step of `eps`.

    Args:
        model: images to logits; one forward and one backward pass.
        x: clean images, [batch, channels, height, width], float32 or float64, values in [0, 1].
        y: true labels, [batch], int64; with `targeted`, the labels wanted.
        eps: radius of the l∞ ball around `x`, in units of `x`.
        targeted: move towards `y` instead of away from it.
        loss: `ce` (cross-entropy, in a form that does not saturate) or `margin`.

    Returns:
        Images in [0, 1] within `eps` of `x`, detached, same shape and dtype as `x`.

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
        x: clean images, [batch, channels, height, width], float32 or float64, values in [0, 1].
        y: true labels, [batch], int64; with `targeted`, the labels wanted.
        eps: radius of the ball around `x`; this and `step` in units of `x`.
        step: length of one step, in the same norm.
        steps: number of steps.
        norm: `linf` or `l2`.
        random_start: begin at a uniform point of the ball instead of at `x`.
        targeted: move towards `y` instead of away from it.
        loss: `ce` (cross-entropy, in a form that does not saturate) or `margin`.
        generator: source of the random start; PyTorch's own where it is missing.

    Returns:
        Images in [0, 1] within `eps` of `x`, detached, same shape and dtype as `x`.

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
    see: See = see_as_is,
    smooth: Smooth = keep,
    targeted: bool = False,
    loss: str = "ce",
    generator: Generator | None = None,
) -> Images:
    """Momentum iterative method (Dong et al. 2018, Algorithm 1), l∞ or l2.

    `see` acts on what the model sees (DIM, Xie et al. 2019), `smooth` on the gradient (TI, Dong et al. 2019); with both it is
    DIM-TI, with `decay=0` BIM. The momentum is g ← decay · g + ∇ / mean|∇|, per image, with ∇ smoothed before it is divided.

    Args:
        model: images to logits; one forward and one backward pass a step.
        x: clean images, [batch, channels, height, width], float32 or float64, values in [0, 1].
        y: true labels, [batch], int64; with `targeted`, the labels wanted.
        eps: radius of the ball around `x`; this and `step` in units of `x`.
        step: length of one step, in the same norm.
        steps: number of steps.
        decay: of the momentum, 0 or more.
        norm: `linf` or `l2`.
        see: from images and a generator to the images shown to the model.
        smooth: from gradients to gradients.
        targeted: move towards `y` instead of away from it.
        loss: `ce` (cross-entropy, in a form that does not saturate) or `margin`.
        generator: source of what `see` draws; PyTorch's own where it is missing.

    Returns:
        Images in [0, 1] within `eps` of `x`, detached, same shape and dtype as `x`.

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
        loss: `ce` or `margin`.

    Returns:
        Images in [0, 1] within `eps` of `x` in l∞ and within `radius` in l2, detached, same shape and dtype as `x`.

    Raises:
        InputError: as for `fgsm`.
    """
    _check_number("eps", eps, least=0.0)
    _check_number("radius", radius, least=0.0)
    far = mim(model, x, y, eps=radius, step=step, steps=steps, decay=decay, norm="l2", targeted=targeted, loss=loss)
    return linf(x, eps).project(far)


def dim(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    eps: float,
    step: float,
    steps: int,
    probability: float = 0.5,
    decay: float = 1.0,
    targeted: bool = False,
    loss: str = "ce",
    generator: Generator | None = None,
) -> Images:
    """`mim` with input diversity (Xie et al. 2019), drawn per image: with `probability` the model sees it resized and padded."""
    return mim(
        model,
        x,
        y,
        eps=eps,
        step=step,
        steps=steps,
        decay=decay,
        see=diversity(probability),
        targeted=targeted,
        loss=loss,
        generator=generator,
    )


def mim_ti(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    eps: float,
    step: float,
    steps: int,
    kernel: int = 5,
    decay: float = 1.0,
    targeted: bool = False,
    loss: str = "ce",
) -> Images:
    """`mim` with the gradient smoothed by a Gaussian of `kernel` pixels (TI, Dong et al. 2019)."""
    return mim(
        model,
        x,
        y,
        eps=eps,
        step=step,
        steps=steps,
        decay=decay,
        smooth=smoothing(kernel),
        targeted=targeted,
        loss=loss,
    )


def dim_ti(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    eps: float,
    step: float,
    steps: int,
    probability: float = 0.5,
    kernel: int = 5,
    decay: float = 1.0,
    targeted: bool = False,
    loss: str = "ce",
    generator: Generator | None = None,
) -> Images:
    """`mim` with input diversity and smoothed gradients (DIM-TI, Dong et al. 2019)."""
    return mim(
        model,
        x,
        y,
        eps=eps,
        step=step,
        steps=steps,
        decay=decay,
        see=diversity(probability),
        smooth=smoothing(kernel),
        targeted=targeted,
        loss=loss,
        generator=generator,
    )


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
    see: See = see_as_is,
    smooth: Smooth = keep,
    targeted: bool = False,
    loss: str = "ce",
    generator: Generator | None = None,
) -> Tensor:
    """The loop of all gradient attacks: see, differentiate, smooth, remember, step, project."""
    _check(x, y, eps=eps, step=step, steps=steps, decay=decay, norm=norm, loss=loss)
    objective = OBJECTIVES[loss]
    # A caller's no_grad or inference_mode must not keep us from the gradient.
    with torch.inference_mode(False), torch.enable_grad(), frozen(model):
        x, y = x.detach().clone(), y.clone()  # tensors made in inference mode cannot be saved for the gradient
        ball: Ball = BALLS[norm](x, eps)
        adversarial = ball.random(generator) if random_start else x
        momentum: Tensor | None = None
        for _ in range(steps if len(x) else 0):
            seen = adversarial.detach().requires_grad_()
            logits = check_logits(model(see(seen, generator)), len(x))
            _check_labels(y, logits.shape[1])
            value = objective(logits, y).sum()
            (gradient,) = torch.autograd.grad(-value if targeted else value, seen)
            gradient = smooth(gradient)
            scale = gradient.abs().mean((1, 2, 3), keepdim=True)
            if not bool(scale.isfinite().all()):
                raise InputError(
                    "the model's gradient with respect to the images is not finite: look for NaN in its weights."
                )
            direction = gradient / scale.clamp_min(TINY)
            if decay:
                direction = momentum = direction if momentum is None else direction.add_(momentum, alpha=decay)
            adversarial = ball.project(adversarial.detach() + step * ball.unit(direction))
        return adversarial.detach()


def _check(x: Tensor, y: Tensor, *, eps: float, step: float, steps: int, decay: float, norm: str, loss: str) -> None:
    """Refuse what no attack can be made of, in one sentence."""
    if x.ndim != 4 or x.dtype not in (torch.float32, torch.float64):
        raise InputError(
            f"the images are {str(x.dtype).removeprefix('torch.')} {list(x.shape)}: give float32 or float64 "
            "[batch, channels, height, width], values in [0, 1]."
        )
    if y.shape != x.shape[:1] or y.dtype != torch.int64:
        raise InputError(
            f"the labels are {str(y.dtype).removeprefix('torch.')} {list(y.shape)} for {len(x)} images: give one int64 label an image."
        )
    if x.numel():
        low, high = (float(value) for value in torch.aminmax(x))
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):
            raise InputError(
                f"the images hold values from {low:g} to {high:g}, or NaN: scale them to [0, 1] and put the model's normalisation "
                "into the model."
            )
    _check_number("eps", eps, least=0.0)
    _check_number("step", step, least=0.0)
    _check_number("decay", decay, least=0.0)
    if steps < 1:
        raise InputError(f"steps is {steps}: give a whole number from 1 on.")
    if norm not in BALLS:
        raise InputError(f"there is no norm '{norm}': give one of {', '.join(BALLS)}.")
    if loss not in OBJECTIVES:
        raise InputError(f"there is no loss '{loss}': give one of {', '.join(OBJECTIVES)}.")


def _check_number(name: str, value: float, *, least: float) -> None:
    if not (math.isfinite(value) and value >= least):
        raise InputError(f"{name} is {value:g}: give a finite number, {least:g} or more.")


def _check_labels(y: Tensor, classes: int) -> None:
    low, high = (int(value) for value in torch.aminmax(y))
    if low < 0 or high >= classes:
        raise InputError(
            f"the labels run from {low} to {high}, but the model has classes 0 to {classes - 1}: give labels it knows."
        )
