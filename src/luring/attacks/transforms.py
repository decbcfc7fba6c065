"""What an attack's model sees of an image (DIM, SI, Admix, SSA), and what is done to the gradient (TI)."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from luring.attacks import checks
from luring.errors import InputError

See: TypeAlias = Callable[[Tensor, Generator | None], Tensor]
"""From images, and a source of randomness, to the images shown to the model; differentiable."""

Looks: TypeAlias = See | Sequence[See]
"""What an attack's model sees in a step: one look at the images, or several, each a pass, whose gradients are averaged."""

Smooth: TypeAlias = Callable[[Tensor], Tensor]
"""From gradients to gradients, same shape."""


def see_as_is(images: Tensor, generator: Generator | None) -> Tensor:  # noqa: ARG001
    """The model sees the images themselves."""
    return images


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
    checks.number("probability", probability, most=1.0)
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
    checks.count("kernel", kernel)

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


def looks(see: Looks) -> tuple[See, ...]:
    """One look or several, as a tuple.

    Raises:
        InputError: not a single one.
    """
    found = (see,) if callable(see) else tuple(see)
    if not found:
        raise InputError("see is empty: give at least one function from images to the images shown to the model.")
    return found


def chain(*parts: Looks) -> tuple[See, ...]:
    """Every combination of looks, one after the other: `chain(scales(5), diversity(0.5))` resizes each of the five (DIM-SI).

    Args:
        parts: what is done first stands first.
    """

    def both(first: See, second: See) -> See:
        return lambda images, generator: second(first(images, generator), generator)

    combined: tuple[See, ...] = (see_as_is,)
    for part in parts:
        after = looks(part)
        combined = tuple(
            second if first is see_as_is else both(first, second) for first in combined for second in after
        )
    return combined


def scales(copies: int = 5) -> tuple[See, ...]:
    """Scale invariance (SI, Lin et al. 2020): the image, its half, its quarter, and so on.

    Args:
        copies: how many.

    Raises:
        InputError: `copies` below 1.
    """
    checks.count("copies", copies)

    def scaled(factor: float) -> See:
        return lambda images, generator: images * factor  # noqa: ARG005

    return (see_as_is, *(scaled(0.5**halved) for halved in range(1, copies)))


def mixed(others: int = 3, portion: float = 0.2) -> tuple[See, ...]:
    """Admix (Wang et al. 2021): each image with a little of another one of the batch.

    The other is drawn, for the whole batch, as a rotation of it: never the image itself where there are two or more. The paper draws
    among images of other classes; here the draw does not look at labels.

    Args:
        others: how many, one after the other.
        portion: how much of the other is added.

    Raises:
        InputError: a setting out of range.
    """
    checks.count("others", others)
    checks.number("portion", portion, most=1.0)

    def see(shown: Tensor, generator: Generator | None) -> Tensor:
        batch = len(shown)
        by = torch.randint(1, max(2, batch), (1,), generator=generator, device=shown.device)
        other = (torch.arange(batch, device=shown.device) + by) % batch
        return shown + portion * shown.detach()[other]

    return (see,) * others


def spectrum(samples: int = 20, sigma: float = 16 / 255, rho: float = 0.5) -> tuple[See, ...]:
    """Spectrum simulation (SSA, Long et al. 2022): noise on the image, then random gains on its discrete cosine transform.

    Args:
        samples: looks a step.
        sigma: standard deviation of the noise, in units of the image.
        rho: each coefficient is multiplied by a number uniform from 1 − `rho` to 1 + `rho`.

    Raises:
        InputError: a setting out of range.
    """
    checks.count("samples", samples)
    checks.number("sigma", sigma)
    checks.number("rho", rho)

    def see(images: Tensor, generator: Generator | None) -> Tensor:
        rows, columns = (cosines(size).to(images) for size in images.shape[-2:])
        noise = torch.empty_like(images, requires_grad=False).normal_(0, sigma, generator=generator) if sigma else 0
        gain = torch.empty_like(images, requires_grad=False).uniform_(1 - rho, 1 + rho, generator=generator)
        return rows.mT @ ((rows @ (images + noise) @ columns.mT) * gain) @ columns

    return (see,) * samples


@cache
def cosines(size: int) -> Tensor:
    """[size, size], float64: multiplying by it is the orthonormal discrete cosine transform (DCT-II)."""
    place = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(torch.pi * place[:, None] * (place + 0.5) / size) * (2 / size) ** 0.5
    matrix[0] /= 2**0.5
    return matrix
