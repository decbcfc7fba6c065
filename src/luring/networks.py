"""Targets and lures by name: the paper's (`luring.architectures`), and ones for other images (`luring.lures`).

Every network takes images in [0, 1], [batch, channels, height, width]. A target gives logits, a lure an image of the same shape.
"""

import importlib
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from luring import architectures
from luring.cost import multiply_adds
from luring.errors import InputError
from luring.frozen import frozen
from luring.lures import plain_lure, residual_lure
from luring.recipes import Kind
from luring.types import Shape


def compose(lure: nn.Module, target: nn.Module) -> nn.Sequential:
    """The decoy M∘P: the lure's image goes into the target. The modules are shared, not copied."""
    return nn.Sequential(OrderedDict(lure=lure, target=target))


def plain_target(shape: Shape, classes: int) -> nn.Sequential:
    """A small target for small images (the demo's): two 3×3 convolutions, one dense layer between."""
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (height // 2) * (width // 2), 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


WIDTHS = (128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4, 2, 1)
FOLDS = (1, 2, 4, 8, 16)
FINE = 64
"""Places a side that a lure works on at most, where its target's cost allows."""


BY_WIDTH: Mapping[Kind, Callable[[Shape, int, int], nn.Module]] = MappingProxyType(
    {"plain": plain_lure, "residual": residual_lure}
)
"""Lures for images of any size: a function of the images' shape, width and fold."""


def widest(target: nn.Module, shape: Shape, *, share: float = 0.25, kind: Kind = "plain") -> tuple[int, int]:
    """Width and fold of the widest lure that costs at most a share of its target's multiply-adds.

    The fold is the smallest that leaves no more than 64 places a side, or a larger one where nothing else is cheap enough.

    Args:
        target: the network it will stand in front of.
        shape: of the images.
        share: of the target's multiply-adds, above 0.
        kind: of lure.

    Raises:
        InputError: even the narrowest lure costs more.
    """
    if not share > 0:
        raise InputError(f"the lure's share of its target's cost is {share:g}: give a number above 0.")
    budget = share * multiply_adds(target, shape)
    for fold in FOLDS:
        if (max(shape[1:]) > FINE * fold and fold != FOLDS[-1]) or min(shape[1:]) < 2 * fold:
            continue
        for width in WIDTHS:
            with torch.device("meta"):  # counted without being computed
                lure = BY_WIDTH[kind](shape, width, fold)
            if multiply_adds(lure, shape) <= budget:
                return width, fold
    raise InputError(
        f"no lure for images of {shape[1]} by {shape[2]} costs less than {budget:,.0f} multiply-adds, {share:g} of the target's: "
        "raise --lure-share, or name a lure instead of 'auto'."
    )


TARGETS: Mapping[str, Callable[[Shape, int], nn.Module]] = MappingProxyType(
    {
        "mnist": architectures.mnist_target,
        "svhn": architectures.svhn_target,
        "cifar10": architectures.cifar10_target,
        "mnist-narrow": architectures.mnist_narrow_target,
        "svhn-narrow": architectures.svhn_narrow_target,
        "cifar10-narrow": architectures.cifar10_narrow_target,
        "plain": plain_target,
    }
)
"""Targets by name: a function of the images' shape and the number of classes."""


def make_target(name: str, shape: Shape, classes: int) -> nn.Module:
    """A target by name, with fresh weights.

    Raises:
        InputError: no target has that name.
    """
    if name not in TARGETS:
        raise InputError(f"there is no target '{name}': give one of {', '.join(TARGETS)}, or module:function.")
    return TARGETS[name](shape, classes)


def make_lure(
    name: str, target: nn.Module, shape: Shape, *, share: float = 0.25, kind: Kind = "plain"
) -> tuple[nn.Module, str]:
    """A lure by name, with fresh weights, and the name that makes the same one again.

    Args:
        name: `mnist`, `svhn`, `cifar10` (the paper's), `auto` (as wide as `share` allows), `plain-WIDTH`, `residual-WIDTH`, or one of these two
            with `-FOLD`.
        target: the network it will stand in front of.
        shape: of the images.
        share: of the target's multiply-adds that `auto` may cost.
        kind: of lure that `auto` is.

    Raises:
        InputError: no lure has that name, or it is not for images of this shape.
    """
    if name in LURES:
        return LURES[name](shape), name
    kind, width, fold = (kind, *widest(target, shape, share=share, kind=kind)) if name == "auto" else _numbers(name)
    if min(shape[1:]) < 2 * fold:
        raise InputError(
            f"the lure '{name}' is for images of {2 * fold} by {2 * fold} or more, not {shape[1]} by {shape[2]}: take the lure 'auto'."
        )
    return BY_WIDTH[kind](shape, width, fold), f"{kind}-{width}" + (f"-{fold}" if fold > 1 else "")


def _numbers(name: str) -> tuple[Kind, int, int]:
    """Kind, width and fold in the name of a lure for images of any size."""
    found = re.fullmatch(r"(plain|residual)-([1-9][0-9]{0,3})(?:-(2|4|8|16))?", name)
    if found is None:
        raise InputError(
            f"there is no lure '{name}': give one of {', '.join(LURES)}, auto, plain-WIDTH, residual-WIDTH, or module:function."
        )
    return "plain" if found[1] == "plain" else "residual", int(found[2]), int(found[3] or 1)


LURES: Mapping[str, Callable[[Shape], nn.Module]] = MappingProxyType(
    {
        "mnist": architectures.mnist_lure,
        "svhn": architectures.svhn_lure,
        "cifar10": architectures.cifar10_lure,
        "svhn-narrow": architectures.svhn_narrow_lure,
        "cifar10-narrow": architectures.cifar10_narrow_lure,
    }
)
"""The paper's lures, and narrower ones of their shape, by name: a function of the images' shape."""


def check_lure(lure: Callable[[Tensor], Tensor], images: Tensor) -> None:
    """Refuse a lure that does not give back images of the shape it was given.

    Raises:
        InputError: the shape differs, or values lie outside [0, 1].
    """
    with frozen(lure), torch.no_grad():
        seen = lure(images)
    if seen.shape != images.shape:
        raise InputError(
            f"the lure made images {list(seen.shape[1:])} out of images {list(images.shape[1:])}: give one that keeps the shape."
        )
    low, high = (float(value) for value in torch.aminmax(seen))
    if not 0 <= low <= high <= 1:
        raise InputError(
            f"the lure gave values from {low:g} to {high:g}: give one whose output lies in [0, 1] (end it with a sigmoid)."
        )


def imported(name: str) -> nn.Module:
    """The network that a `module:function` gives; the current folder is looked in as well.

    Raises:
        InputError: no such function, or it gives something else.
    """
    where, _, what = name.partition(":")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    try:
        made = getattr(importlib.import_module(where), what)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"'{name}' gives no network ({error}): give module:function, a function without arguments that returns one."
        ) from error
    finally:
        sys.path.pop(0)
    if not isinstance(made, nn.Module):
        raise InputError(f"'{name}' gives a {type(made).__name__}, not a torch module: let it return one.")
    return made
