"""Weights as images lie in memory, a pixel's channels together: most convolutions are faster so."""

import logging
from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn

from luring.types import Shape

log = logging.getLogger("luring")


def channels_last(network: nn.Module, shape: Shape) -> bool:
    """Turn a network's weights, in place. A network that takes another layout for granted (`view` of a convolution's output) stays as it was.

    Args:
        network: images to logits, or to images.
        shape: of its images.

    Returns:
        Whether they were turned.
    """
    weight = next(network.parameters(), None)
    images = torch.zeros(2, *shape, device=None if weight is None else weight.device)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    try:
        with torch.inference_mode():
            network(images)
    except RuntimeError as error:
        network.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        log.info(f"{type(network).__name__} keeps its weights' layout: {str(error).splitlines()[0]}")
        return False
    return True


@contextmanager
def turned(network: nn.Module, shape: Shape) -> Generator[None]:
    """`channels_last` for as long as the block lasts; afterwards the weights are the very tensors they were.

    Of grey images nothing but the weights tells PyTorch which layout is meant.
    """
    kept = [(weight, weight.data) for weight in network.parameters()]
    try:
        channels_last(network, shape)
        yield
    finally:
        for weight, data in kept:
            weight.data = data
