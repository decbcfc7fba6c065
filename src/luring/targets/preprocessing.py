"""What lies between images in [0, 1] and a classifier: size, channels, mean and standard deviation, all differentiable."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from luring.errors import InputError
from luring.scaling import Scaling, read, scale

GREY = (0.299, 0.587, 0.114)
"""Of red, green and blue, as Pillow makes grey (ITU-R 601)."""


@dataclass(frozen=True)
class Preprocessing:
    """What a classifier was trained to see.

    Attributes:
        scaling: to its size; none where it takes images as they come. Images that have the size already are not scaled, nor cut.
        channels: 1 or 3; none where it takes them as they come. Grey is repeated for 3, colour becomes grey for 1.
        mean: taken off each channel, in units of images in [0, 1]; one number holds for all channels.
        std: that each channel is then divided by.
    """

    scaling: Scaling | None = None
    channels: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:  # noqa: D105
        numbers = (*self.mean, *self.std)
        if not self.mean or not self.std or not all(map(math.isfinite, numbers)) or min(self.std) <= 0:
            raise InputError(
                f"the normalisation has the mean {list(self.mean)} and the standard deviation {list(self.std)}: give finite numbers, the latter above 0."
            )
        for name, values in (("mean", self.mean), ("standard deviation", self.std)):
            if len(values) not in (1, self.channels or len(values)):
                raise InputError(
                    f"the {name} has {len(values)} numbers for {self.channels} channels: give one for each, or one for all."
                )


class Preprocessed(nn.Module):
    """A classifier of images in [0, 1], of any size."""

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.classifier, self.preprocessing = classifier, preprocessing
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name)).reshape(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """[batch, channels, height, width] in [0, 1] to logits, [batch, classes]."""
        wanted = self.preprocessing
        scaling = None if wanted.scaling is None else astuple(wanted.scaling)
        return self.classifier((_fitted(images, wanted.channels, scaling) - self.mean) / self.std)


def _fitted(images: Tensor, channels: int | None, scaling: tuple[Any, ...] | None) -> Tensor:
    """Images with as many channels, and scaled; in plain values, for it is one step of a traced graph."""
    if channels is not None and images.shape[1] != channels:
        if images.shape[1] == 1:
            images = images.expand(-1, channels, -1, -1)
        else:
            weights = torch.tensor(GREY, dtype=images.dtype, device=images.device).reshape(1, 3, 1, 1)
            images = (images * weights).sum(1, keepdim=True)
    if scaling is not None and scaling[:2] != tuple(images.shape[-2:]):
        images = scale(images, Scaling(*scaling))
    return images


# What it does depends on the images' shape: a trace of the classifier's layers keeps it whole.
fx.wrap("_fitted")


def described(preprocessing: Preprocessing) -> dict[str, Any]:
    """As JSON holds it."""
    said = asdict(preprocessing)
    return {**said, "mean": list(preprocessing.mean), "std": list(preprocessing.std)}


def recalled(said: Mapping[str, Any]) -> Preprocessing:
    """What `described` made, from a file that somebody may have changed.

    Raises:
        ValueError, KeyError, TypeError: it is damaged.
    """
    channels = said["channels"]
    return Preprocessing(
        None if said["scaling"] is None else read(said["scaling"]),
        None if channels is None else int(channels),
        tuple(map(float, said["mean"])),
        tuple(map(float, said["std"])),
    )


def overridden(
    found: Preprocessing,
    *,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preprocessing:
    """With what a person says instead of the model's own configuration."""
    scaling = found.scaling if size is None else Scaling(size, size)
    return Preprocessing(
        scaling,
        found.channels,
        tuple(mean) if mean is not None else found.mean,
        tuple(std) if std is not None else found.std,
    )


def first_channels(network: nn.Module) -> int | None:
    """Channels that a network's first convolution takes, where they are 1 or 3."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels if module.in_channels in (1, 3) else None
    return None
