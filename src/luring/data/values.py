"""What image tensors may hold: bytes, or floats in [0, 1]."""

from typing import TypeAlias

import torch
from jaxtyping import UInt8
from torch import Tensor

from luring.errors import InputError
from luring.types import Images

Pictures: TypeAlias = UInt8[Tensor, "batch channels height width"] | Images
"""Images as they are kept: one byte a value, 0 to 255, or floats in [0, 1]."""

ROUNDING = 1e-6


def to_float(images: Pictures) -> Images:
    """Images in [0, 1]: uint8 becomes float32, divided by 255; floats are returned as they are, unchecked."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def check(images: Tensor) -> Pictures:
    """Look at every value once, where images enter.

    Args:
        images: [batch, channels, height, width], uint8, or floats in [0, 1].

    Returns:
        The same images; floats outside [0, 1] by no more than rounding (1e-6) are brought back into it.

    Raises:
        InputError: another shape or type, no image, a value that is NaN or outside [0, 1].
    """
    if images.ndim != 4 or images.numel() == 0:
        raise InputError(
            f"images have the shape {list(images.shape)}; give [batch, channels, height, width], none of them 0."
        )
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise InputError(f"images have the type {images.dtype}; give uint8, or floats in [0, 1].")
    wrong = ~((images >= -ROUNDING) & (images <= 1 + ROUNDING))  # this way round NaN is wrong too
    if wrong.any():
        index = int(wrong.nonzero()[0, 0])
        value = float(images[index][wrong[index]][0])
        raise InputError(f"image {index} has the value {value:g}; scale images to [0, 1] and remove NaN.")
    return images.clamp(0, 1)
