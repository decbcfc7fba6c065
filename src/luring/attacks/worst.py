"""The worst case over a set of attacks: an image counts as safe where none of them fools the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from luring import answers
from luring.attacks import checks
from luring.attacks.objectives import margin
from luring.errors import InputError
from luring.types import Classifier, Images, Labels


@dataclass(frozen=True, eq=False)
class Worst:
    """What a set of attacks found.

    Attributes:
        images: for each image the first example that fooled the model, else the one with the highest margin.
        fooled: whether the model answers that example wrongly, [batch].
        by: place of the attack it comes from, [batch].
    """

    images: Tensor
    fooled: Tensor
    by: Tensor


def worst_case(
    attacks: Sequence[Callable[[Classifier, Tensor, Tensor], Tensor]], model: Classifier, x: Images, y: Labels
) -> Worst:
    """Attack each image until one of the attacks fools the model, as AutoAttack does with its own four (Croce and Hein 2020).

    Args:
        attacks: in the order to try, cheapest first: presets, or any functions of `(model, x, y)`.
        model: images to logits.
        x: clean images, [batch, channels, height, width], of any floating-point type, values in [0, 1].
        y: true labels, [batch], int64.

    Returns:
        The examples. Those that fooled the model are not attacked again.

    Raises:
        InputError: no attack at all, or as for the attacks.
    """
    if not attacks:
        raise InputError("there is no attack in the set: give at least one.")
    checks.pictures(x, y)
    images, reached = x.clone(), torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
    by = torch.zeros_like(y)
    for place, attack in enumerate(attacks):
        left = (reached <= 0).nonzero().squeeze(1)
        if not len(left):
            break
        made = attack(model, x[left], y[left])
        margins = margin(answers.logits(model, made), y[left]).to(reached)
        better = margins > reached[left]
        images[left[better]], reached[left[better]], by[left[better]] = made[better], margins[better], place
    return Worst(images, reached > 0, by)
