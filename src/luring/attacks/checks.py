"""What no attack can be made of is refused in one sentence."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from luring.errors import InputError

ROUNDING = 1e-6
"""How far outside [0, 1] a value may lie and still be taken for rounding."""


def pictures(x: Tensor, y: Tensor) -> None:
    """Floating-point images in [0, 1], [batch, channels, height, width], and one label each."""
    if x.ndim != 4 or not x.is_floating_point():
        raise InputError(
            f"the images are {str(x.dtype).removeprefix('torch.')} {list(x.shape)}: give floating-point images "
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


def labels(y: Tensor, classes: int) -> None:
    """Labels that a model with so many classes knows."""
    low, high = (int(value) for value in torch.aminmax(y))
    if low < 0 or high >= classes:
        raise InputError(
            f"the labels run from {low} to {high}, but the model has classes 0 to {classes - 1}: give labels it knows."
        )


def number(name: str, value: float, *, most: float = math.inf) -> None:
    """A finite number from 0 on, to `most` where there is one."""
    if not (math.isfinite(value) and 0 <= value <= most):
        wanted = "a finite number, 0 or more" if math.isinf(most) else f"a number from 0 to {most:g}"
        raise InputError(f"{name} is {value:g}: give {wanted}.")


def positive(name: str, value: float) -> None:
    """A finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} is {value:g}: give a finite number above 0.")


def count(name: str, value: int) -> None:
    """A whole number from 1 on."""
    if value < 1:
        raise InputError(f"{name} is {value}: give a whole number from 1 on.")


def choice(what: str, name: str, among: Iterable[str]) -> None:
    """One of some names."""
    among = list(among)
    if name not in among:
        raise InputError(f"there is no {what} '{name}': give one of {', '.join(among)}.")


def finite(gradient: Tensor) -> None:
    """A gradient without NaN or infinity."""
    if not bool(gradient.isfinite().all()):
        raise InputError("the model's gradient with respect to the images is not finite: look for NaN in its weights.")
