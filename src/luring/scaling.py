"""Images brought to one size: pictures as they are decoded, or tensors, differentiably, in front of a classifier."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from luring.errors import InputError

Method: TypeAlias = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True)
class Scaling:
    """How an image of any size becomes one of `height` by `width`.

    The image is scaled, keeping its aspect, until the smaller of its sides (each in units of what is wanted) is 1 / `share`; the middle is kept.

    Attributes:
        height: in pixels.
        width: in pixels.
        share: of the scaled image's side that the middle takes, above 0 to 1; timm's `crop_pct`.
        squash: scale to `height` by `width` whatever the aspect, and cut nothing.
        method: of interpolation; what is made smaller is smoothed first.
    """

    height: int
    width: int
    share: float = 1.0
    squash: bool = False
    method: Method = "bilinear"

    def __post_init__(self) -> None:  # noqa: D105
        if not (1 <= self.height <= 8192 and 1 <= self.width <= 8192 and 0 < self.share <= 1):
            raise InputError(
                f"images cannot be scaled to {self.height} by {self.width} with a share of {self.share:g}: give sides from 1 to 8192 "
                "and a share above 0, of at most 1."
            )

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        """The size that an image is scaled to before the middle is kept."""
        if self.squash:
            return self.height, self.width
        factor = max(self.height / height, self.width / width) / self.share
        return max(self.height, math.floor(height * factor + 0.5)), max(self.width, math.floor(width * factor + 0.5))


def read(said: Mapping[str, Any]) -> Scaling:
    """What `dataclasses.asdict` made of one, from a file that somebody may have changed.

    Raises:
        ValueError: a value of another type or out of range.
        KeyError: one is missing.
    """
    method, squash = said["method"], said["squash"]
    if method not in ("nearest", "bilinear", "bicubic") or not isinstance(squash, bool):
        raise ValueError(f"scaling by {method!r}, squash {squash!r}")
    return Scaling(int(said["height"]), int(said["width"]), float(said["share"]), squash, method)


def scale(images: Tensor, to: Scaling) -> Tensor:
    """Images of another size, [batch, channels, height, width], values kept in [0, 1]; gradients flow through it."""
    height, width = to.scaled(*images.shape[-2:])
    if (height, width) != tuple(images.shape[-2:]):
        if to.method == "nearest":
            images = F.interpolate(images, (height, width), mode="nearest-exact")
        else:
            images = F.interpolate(images, (height, width), mode=to.method, antialias=True)
            images = images.clamp(0, 1) if to.method == "bicubic" else images  # it overshoots
    top, left = round((height - to.height) / 2), round((width - to.width) / 2)
    return images[..., top : top + to.height, left : left + to.width]


def scale_picture(picture: Image.Image, to: Scaling) -> Image.Image:
    """A picture of another size."""
    height, width = to.scaled(picture.height, picture.width)
    if (width, height) != picture.size:
        if picture.mode == "P":
            picture = picture.convert("RGBA")
        if picture.mode not in ("L", "RGB"):
            picture = picture.convert("L" if picture.mode == "1" else "RGB")
        picture = picture.resize((width, height), getattr(Image.Resampling, to.method.upper()))
    top, left = round((height - to.height) / 2), round((width - to.width) / 2)
    return picture.crop((left, top, left + to.width, top + to.height))
