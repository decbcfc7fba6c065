"""What an attack's model sees of an image (DIM), and what is done to the gradient (TI)."""

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from luring.errors import InputError

See: TypeAlias = Callable[[Tensor, Generator | None], Tensor]
"""From images, and a source of randomness, to the images shown to the model; differentiable."""

Smooth: TypeAlias = Callable[[Tensor], Tensor]
"""From gradients to gradients, same shape."""


def diversity(probability: float, shrink: int = 2) -> See:
    """Input diversity (Xie et al. 2019): resized by nearest neighbour, padded back with zeros at a random place.

    Every image has draws of its own: with `probability` it is resized, to a size uniform from size − `shrink` to size, and put at
    a uniform place.

    Args:
        probability: of an image being transformed, in [0, 1].
        shrink: greatest number of pixels taken off height and width.

    Raises:
        InputError: `probability` outside [0, 1], or `shrink` below 0.
    """
    if not 0 <= probability <= 1:
        raise InputError(f"the probability of DIM is {probability}: give a number from 0 to 1.")
    if shrink < 0:
        raise InputError(f"the shrink of DIM is {shrink}: give a whole number of pixels, 0 or more.")

    def see(images: Tensor, generator: Generator | None) -> Tensor:
        if probability == 0:
            return images
        batch, _, height, width = images.shape
        if shrink >= min(height, width):
            raise InputError(
                f"DIM cannot take {shrink} pixels off images of {height} by {width}: give a smaller shrink."
            )
        draws = torch.rand(batch, 4, generator=generator, device=images.device)
        less = (draws[:, 0] * (shrink + 1)).long() * (draws[:, 3] < probability)
        top, left = ((draws[:, i] * (less + 1)).long() for i in (1, 2))
        rows = _placement(height, less, top).to(images.dtype)
        columns = _placement(width, less, left).to(images.dtype)
        # One-hot matrices instead of indices: their gradient is a product too, not a scattered sum.
        return rows[:, None] @ images @ columns[:, None].mT

    return see


def _placement(size: int, less: Tensor, start: Tensor) -> Tensor:
    """[batch, size, size]: row i has its 1 at the source pixel of pixel i, or none where i lies in the padding."""
    place = torch.arange(size, device=less.device)
    kept = (size - less)[:, None]
    inside = place - start[:, None]
    source = torch.where((inside >= 0) & (inside < kept), inside * size // kept, -1)
    return source[:, :, None] == place


def smoothing(kernel: int) -> Smooth:
    """Translation invariance (Dong et al. 2019): the gradient convolved with a Gaussian, zeros around it, any number of channels.

    The kernel is the normal density at `kernel` points from −3 to 3, so σ = (kernel − 1) / 6 pixels, times itself across, normalised.
    It is separable: two products with banded matrices do it.

    Args:
        kernel: its size in pixels, at least 1; 1 changes nothing.

    Raises:
        InputError: `kernel` below 1.
    """
    if kernel < 1:
        raise InputError(f"the kernel of TI has {kernel} pixels: give a whole number from 1 on.")

    def smooth(gradient: Tensor) -> Tensor:
        if kernel == 1:
            return gradient
        rows, columns = (_band(size, kernel).to(gradient) for size in gradient.shape[-2:])
        return rows @ gradient @ columns.mT

    return smooth


@cache
def _band(size: int, kernel: int) -> Tensor:
    """[size, size], float64: multiplying by it convolves with the one-dimensional kernel."""
    density = torch.exp(-torch.linspace(-3, 3, kernel, dtype=torch.float64).square() / 2)
    density /= density.sum()
    offset = torch.arange(size) - torch.arange(size)[:, None] + (kernel - 1) // 2
    inside = (offset >= 0) & (offset < kernel)
    return torch.where(inside, density[offset.clamp(0, kernel - 1)], 0)
