"""The sets that need neither folder nor network: scikit-learn's digits, and the paper's toy problem."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from luring.data.decoded import Decoded, Split, gather
from luring.data.values import check

BUILT_IN = ("digits", "toy")


def toy_zones() -> Bool[Tensor, "classes height width"]:
    """The zones of the toy set, [3, 12, 12]: where images of class 0, 1, 2 are not 0 (§3.3 of the paper).

    Top left, top right and bottom left quadrant; the bottom right one is neutral, there every image is 0.
    """
    zones = torch.zeros(3, 12, 12, dtype=torch.bool)
    zones[0, :6, :6] = zones[1, :6, 6:] = zones[2, 6:, :6] = True
    return zones


def toy(seed: int) -> Decoded:
    """3000 images for training and 600 for testing, drawn from the seed (§3.3 of the paper)."""
    # RandomState: its stream of numbers is frozen for good; a generator's is not.
    draw = np.random.RandomState(seed)
    zones = toy_zones()

    def split(n: int) -> Split:
        labels = torch.from_numpy(draw.permutation(n) % 3).long()
        values = torch.from_numpy(draw.random_sample((n, 12, 12)) * 0.4 + 0.3).float()
        return Split(check((values * zones[labels]).unsqueeze(1)), labels)

    return gather({"train": split(3000), "test": split(600)}, ("top left", "top right", "bottom left"))


def digits() -> Decoded:
    """Handwritten digits, 8 by 8, values from 0 to 1 in sixteenths."""
    from sklearn.datasets import load_digits  # takes a second

    bunch: Any = load_digits()
    images = torch.from_numpy(bunch.images).float().div(16).unsqueeze(1)
    split = Split(check(images), torch.from_numpy(bunch.target).long())
    return gather({"train": split}, tuple(map(str, range(10))))
