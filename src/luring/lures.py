"""Lures for images of any size and any number of channels (the paper's are in `luring.architectures`).

Each takes images in [0, 1], [batch, channels, height, width], and gives images of the same shape in [0, 1].
"""

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from luring.errors import InputError
from luring.types import Shape


def plain_lure(shape: Shape, width: int, fold: int = 1) -> nn.Module:
    """A lure for images of any size: an autoencoder of five 3×3 convolutions at full and half resolution.

    Args:
        shape: of the images, each side at least 2 · `fold`.
        width: channels at full resolution; twice as many at half.
        fold: where it is above 1, squares of `fold` by `fold` pixels are one place with so many more channels (Shi et al. 2016), and the
            autoencoder works on those: resolution and cost fall, no pixel is thrown away before the first convolution.
    """
    channels, height, image_width = shape[0] * fold**2, -(-shape[1] // fold), -(-shape[2] // fold)
    inner = nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.Upsample(size=(height, image_width)),
        nn.Conv2d(2 * width, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, channels, 3, padding=1),
        nn.Sigmoid(),
    )
    return inner if fold == 1 else Folded(inner, fold)


class Folded(nn.Module):
    """A lure that sees squares of pixels as places; sides that `fold` does not divide are continued by their last pixels."""

    def __init__(self, inner: nn.Module, fold: int) -> None:
        super().__init__()
        self.inner, self.fold = inner, fold

    def forward(self, images: Tensor) -> Tensor:
        """[batch, channels, height, width] to the same."""
        height, width = images.shape[-2:]
        squares = F.pixel_unshuffle(_continued(images, self.fold), self.fold)
        return F.pixel_shuffle(self.inner(squares), self.fold)[..., :height, :width]


def _continued(images: Tensor, fold: int) -> Tensor:
    """Images whose sides `fold` divides, by repeating their last pixels."""
    below, right = (-side % fold for side in images.shape[-2:])
    return F.pad(images, (0, right, 0, below), mode="replicate") if below or right else images


# What it does depends on the images' shape: a trace keeps it whole.
fx.wrap("_continued")


def residual_lure(shape: Shape, width: int, fold: int = 1) -> nn.Module:
    """A lure that begins as the identity and learns what to change: at first the decoy answers as its target does.

    The change comes from an autoencoder at full and half resolution with batch normalisation, which sees its first layer once more before its last two (Ronneberger et al. 2015).

    Args:
        shape: of the images, each side at least 2 · `fold`.
        width: channels at full resolution; twice as many at half.
        fold: as in `plain_lure`.
    """
    channels, height, image_width = shape[0] * fold**2, -(-shape[1] // fold), -(-shape[2] // fold)

    def layer(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    last = nn.Conv2d(width, channels, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)  # pyright: ignore[reportArgumentType]
    half = nn.Sequential(
        nn.MaxPool2d(2),
        *layer(width, 2 * width),
        *layer(2 * width, 2 * width),
        nn.Upsample(size=(height, image_width)),
    )
    inner = nn.Sequential(*layer(channels, width), Beside(half), *layer(3 * width, width), last)
    return Residual(inner if fold == 1 else Folded(inner, fold))


class Residual(nn.Module):
    """P(x) = x + t · (1 − x) where t is above 0 and x + t · x elsewhere, with t in (−1, 1): in [0, 1] without a clip, which would hide the gradient."""

    def __init__(self, change: nn.Module) -> None:
        super().__init__()
        self.change = change

    def forward(self, images: Tensor) -> Tensor:
        """[batch, channels, height, width] to the same."""
        t = torch.tanh(self.change(images)).to(images.dtype)
        return images + t * torch.where(t > 0, 1 - images, images)


class Beside(nn.Module):
    """What a network makes of its input, beside the input itself: channels are put together."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] to [batch, channels + those of the inner network, height, width]."""
        return torch.cat([x, self.inner(x)], 1)


class Blended(nn.Module):
    """A lure held back, x + s (P(x) − x): a share s of its image, the rest of the image itself; in [0, 1] where P's image is (`luring.blend`).

    Attributes:
        lure: P.
        share: s, between 0 and 1; a buffer, so that it is a part of the weights and of their digest.
    """

    share: Tensor

    def __init__(self, lure: nn.Module, share: float) -> None:
        """Raises InputError where the share is not above 0 and below 1."""
        super().__init__()
        if not 0 < share < 1:
            raise InputError(f"the lure's share is {share:g}: give a number above 0 and below 1.")
        self.lure = lure
        self.register_buffer("share", torch.tensor(share))

    def forward(self, images: Tensor) -> Tensor:
        """[batch, channels, height, width] to the same."""
        return images + self.share * (self.lure(images) - images)


def whole(lure: nn.Module) -> nn.Module:
    """P as it was fitted: of a lure that is held back the one inside, else the lure itself."""
    return lure.lure if isinstance(lure, Blended) else lure
