"""What a classifier answers: logits and labels of many images, in batches, with the shape checked."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from luring.errors import InputError
from luring.frozen import frozen
from luring.progress import progress
from luring.types import Classifier

AT_ONCE, VALUES = 500, 2**21
"""Most images that a model answers at a time, and most values in them: 500 images of 32 by 32 pixels in colour, 13 of 224 by 224."""


def at_once(images: Tensor) -> int:
    """How many of these images a model answers at a time."""
    return max(1, min(AT_ONCE, VALUES // max(1, images[:1].numel())))


def check_logits(logits: object, batch: int) -> Tensor:
    """The classifier's output, if it is one.

    Args:
        logits: what a classifier gave for `batch` images.
        batch: number of images.

    Returns:
        The same tensor, [batch, classes].

    Raises:
        InputError: it is not a floating-point tensor [batch, classes] with at least two classes, or not finite.
    """
    if not isinstance(logits, Tensor):
        raise InputError(
            f"the target gave a {type(logits).__name__}, not a tensor of logits: give a model that returns one."
        )
    if logits.ndim != 2 or logits.shape[0] != batch or logits.shape[1] < 2 or not logits.is_floating_point():
        raise InputError(
            f"the target gave {str(logits.dtype).removeprefix('torch.')} {list(logits.shape)} for {batch} images, not logits "
            f"[{batch}, classes] with two classes or more: give a model whose last layer returns one score a class."
        )
    if not bool(logits.isfinite().all()):
        raise InputError(
            "the target gave logits that are not finite: look for NaN in its weights or its normalisation."
        )
    return logits


def logits(model: Classifier, images: Tensor, *, batch: int | None = None, told: str | None = None) -> Tensor:
    """Logits of all images, without gradients and in evaluation mode.

    Args:
        model: images to logits.
        images: [n, channels, height, width]; bytes are divided by 255, floats taken as they are.
        batch: images at a time; what `at_once` says where none is given.
        told: what the progress calls it; `None` shows none.

    Returns:
        [n, classes], on the model's device.

    Raises:
        InputError: the model's output is not [batch, classes].
    """
    parts: list[Tensor] = []
    with frozen(model), torch.no_grad(), progress(told or "", len(images), show=told is not None) as advance:
        for part in images.split(batch or at_once(images)):
            parts.append(check_logits(model(prepare(part, model)), len(part)))
            advance(len(part), "")
    return torch.cat(parts)


Ask: TypeAlias = Callable[[Any, Tensor], Tensor]
"""From a classifier and images to its logits."""


def remembering(*, show: bool = False, through: Callable[[Any, Tensor], Classifier] | None = None) -> Ask:
    """`logits` that asks a classifier about the same clean images once, for all who want to know; the images must not change.

    Args:
        show: show progress.
        through: from a classifier and images to what is asked in its place; itself where none is given.
    """
    # With the images, so that no others can come to lie where they lay.
    known: dict[tuple[Any, int, int], tuple[Tensor, Tensor]] = {}

    def ask(model: Any, images: Tensor) -> Tensor:
        key = model, images.data_ptr(), len(images)
        if key not in known:
            told = f"asking about {len(images)} clean images" if show else None
            known[key] = images, logits(model if through is None else through(model, images), images, told=told)
        return known[key][1]

    return ask


def labels(model: Classifier, images: Tensor, *, batch: int | None = None) -> Tensor:
    """The class with the highest logit of each image, [n], int64; arguments as for `logits`."""
    return logits(model, images, batch=batch).argmax(1)


def prepare(images: Tensor, model: object) -> Tensor:
    """A batch as a model takes it: float in [0, 1], on the device of its weights, channels last (faster convolutions)."""
    weight = next(iter(model.parameters()), None) if isinstance(model, torch.nn.Module) else None
    if weight is not None:
        images = images.to(weight.device)
    if images.dtype == torch.uint8:
        images = images.to(torch.float32).div_(255)
    return images.contiguous(memory_format=torch.channels_last)
