"""ONNX's operators that slide a window over images: convolutions and pools."""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Attributes: TypeAlias = Mapping[str, Any]


def _pads(a: Attributes, x: Tensor, kernel: list[int], strides: list[int], dilations: list[int]) -> list[int]:
    """Begin of each side, then end of each side."""
    mode = a.get("auto_pad", b"NOTSET")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    if mode in ("NOTSET", "VALID"):
        return a.get("pads", [0] * (2 * len(kernel))) if mode == "NOTSET" else [0] * (2 * len(kernel))
    begins: list[int] = []
    ends: list[int] = []
    for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max(0, (math.ceil(size / s) - 1) * s + d * (k - 1) + 1 - size)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return begins + ends


def _padded(x: Tensor, pads: list[int], value: float) -> tuple[Tensor, list[int]]:
    """Uneven padding done beforehand; what is even is left to the operator."""
    half = len(pads) // 2
    if pads[:half] == pads[half:]:
        return x, pads[:half]
    order = [p for low, high in zip(reversed(pads[:half]), reversed(pads[half:]), strict=True) for p in (low, high)]
    return F.pad(x, order, value=value), [0] * half


def conv(a: Attributes, i: list[Any]) -> Tensor:
    """A convolution, with bias where there is a third input."""
    x, weight, bias = i[0], i[1], i[2] if len(i) > 2 else None
    sides = weight.ndim - 2
    strides, dilations = a.get("strides", [1] * sides), a.get("dilations", [1] * sides)
    x, padding = _padded(x, _pads(a, x, list(weight.shape[2:]), strides, dilations), 0.0)
    conv: Any = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[sides]
    return conv(x, weight, bias, strides, padding, dilations, a.get("group", 1))


def conv_transpose(a: Attributes, i: list[Any]) -> Tensor:
    """A transposed convolution, padded evenly."""
    x, weight, bias = i[0], i[1], i[2] if len(i) > 2 else None
    sides = weight.ndim - 2
    pads = a.get("pads", [0] * (2 * sides))
    if a.get("output_shape") or pads[:sides] != pads[sides:] or "auto_pad" in a:
        raise NotImplementedError("a transposed convolution with uneven padding")
    conv: Any = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[sides]
    strides, dilations = a.get("strides", [1] * sides), a.get("dilations", [1] * sides)
    return conv(
        x, weight, bias, strides, pads[:sides], a.get("output_padding", [0] * sides), a.get("group", 1), dilations
    )


def max_pool(a: Attributes, i: list[Any]) -> Tensor:
    """The highest value of each window."""
    kernel = a["kernel_shape"]
    strides, dilations = a.get("strides", [1] * len(kernel)), a.get("dilations", [1] * len(kernel))
    x, padding = _padded(i[0], _pads(a, i[0], kernel, strides, dilations), -math.inf)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        x, padding = (
            F.pad(x, [p for side in reversed(padding) for p in (side, side)], value=-math.inf),
            [0] * len(kernel),
        )
    pool: Any = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[len(kernel)]
    return pool(x, kernel, strides, padding, dilations, bool(a.get("ceil_mode", 0)))


def average_pool(a: Attributes, i: list[Any]) -> Tensor:
    """The mean of each window."""
    kernel = a["kernel_shape"]
    strides = a.get("strides", [1] * len(kernel))
    pads, counted = _pads(a, i[0], kernel, strides, [1] * len(kernel)), bool(a.get("count_include_pad", 0))
    x, padding = _padded(i[0], pads, 0.0)
    pool: Any = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(kernel)]
    if x is not i[0] and not counted:
        share, _ = _padded(torch.ones_like(i[0]), pads, 0.0)
        return pool(x, kernel, strides) / pool(share, kernel, strides)
    return pool(x, kernel, strides, padding, bool(a.get("ceil_mode", 0)), counted)
