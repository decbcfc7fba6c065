"""What an attack makes large: a number an image, from logits and labels."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from luring.attacks.balls import TINY
from luring.errors import InputError
from luring.types import Labels, Logits, PerImage


def others(logits: Tensor, labels: Tensor) -> Tensor:
    """The logits with each image's own class at minus infinity."""
    return logits.scatter(1, labels[:, None], -torch.inf)


def wrong_classes(logits: Tensor, labels: Tensor, most: int) -> tuple[Tensor, ...]:
    """The classes that an image could be taken for, the likeliest first, [batch] each; all where there are no more than `most`."""
    # The label has no place among them, whatever its logit.
    order = others(logits, labels).argsort(1, descending=True)
    return order[:, : min(most, logits.shape[1] - 1)].unbind(1)


def cross_entropy(logits: Logits, labels: Labels) -> PerImage:
    """Cross-entropy as an attack sees it, log((1 − p_y) / p_y): it never saturates.

    Its gradient is that of the cross-entropy −log p_y divided by 1 − p_y, a positive number an image. An attack that takes
    the sign, or divides by a norm an image, makes the same steps with either, in exact arithmetic. In float32 the gradient of
    −log p_y itself is 0 from a gap of about 100 logits on, and an image with such a gap would never move: a defence
    that widens the gap would look strong without being so.
    """
    return others(logits, labels).logsumexp(1) - own(logits, labels)


def margin(logits: Logits, labels: Labels) -> PerImage:
    """The highest logit of another class minus the label's (Carlini and Wagner 2017, without its lower bound)."""
    return others(logits, labels).amax(1) - own(logits, labels)


def difference_of_logits(logits: Logits, labels: Labels) -> PerImage:
    """`margin` divided by the highest logit less the third highest (DLR, Croce and Hein 2020, Equation 6).

    It does not change when the logits are multiplied or shifted.

    Raises:
        InputError: fewer than three classes.
    """
    _enough(logits, 3)
    first, _, third = logits.topk(3, dim=1).values.unbind(1)
    return margin(logits, labels) / (first - third).clamp_min(TINY)


def difference_of_logits_towards(logits: Logits, labels: Labels, wanted: Labels) -> PerImage:
    """The wanted class's logit less the label's, divided as in Equation 7 of Croce and Hein 2020.

    Raises:
        InputError: fewer than four classes.
    """
    _enough(logits, 4)
    first, _, third, fourth = logits.topk(4, dim=1).values.unbind(1)
    return (own(logits, wanted) - own(logits, labels)) / (first - (third + fourth) / 2).clamp_min(TINY)


def _enough(logits: Tensor, classes: int) -> None:
    if logits.shape[1] < classes:
        raise InputError(
            f"the model has {logits.shape[1]} classes, and the difference of logits ratio needs {classes}: choose the loss ce or margin."
        )


def own(logits: Tensor, labels: Tensor) -> Tensor:
    """The logit of each image's label."""
    return logits.gather(1, labels[:, None]).squeeze(1)


OBJECTIVES: Mapping[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]] = MappingProxyType(
    {
        "ce": (cross_entropy, F.logsigmoid),
        "margin": (margin, torch.zeros_like),
        "dlr": (difference_of_logits, torch.zeros_like),
    }
)
"""By name: the objective, and the logarithm of what its gradient is multiplied with where gradients of several looks are added.

For `ce` that is the label's missing probability, sigmoid(objective), which turns each into the gradient of the cross-entropy itself.
"""
