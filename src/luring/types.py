"""The shapes that pass between rooms."""

from collections.abc import Callable
from typing import TypeAlias

from jaxtyping import Float, Int64
from torch import Tensor

Images: TypeAlias = Float[Tensor, "batch channels height width"]
"""Images, values in [0, 1] unless said otherwise."""

Labels: TypeAlias = Int64[Tensor, " batch"]
"""Class indices from 0."""

Logits: TypeAlias = Float[Tensor, "batch classes"]
"""Scores before softmax."""

PerImage: TypeAlias = Float[Tensor, " batch"]
"""One number an image."""

Classifier: TypeAlias = Callable[[Tensor], Tensor]
"""Any callable from images, [batch, channels, height, width], to logits, [batch, classes]."""

Shape: TypeAlias = tuple[int, int, int]
"""Channels, height and width of an image."""
