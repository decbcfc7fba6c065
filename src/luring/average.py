"""A moving average of a network's weights."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


def start(network: nn.Module) -> dict[str, Tensor]:
    """The average before the first step: the weights themselves, by name."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def follow(average: Mapping[str, Tensor], network: nn.Module, decay: float, step: int) -> None:
    """Move the average towards the weights, in place: average ← d·average + (1 − d)·weights.

    d is min(`decay`, (1 + step) / (10 + step)), so that the first weights, which are random, are soon forgotten. Batch-norm statistics are
    averaged as well; counts are taken over.

    Args:
        average: what `start` gave.
        network: as it is after a step.
        decay: d, above 0 and below 1.
        step: of how many steps the weights are the result, from 1.
    """
    share = 1 - min(decay, (1 + step) / (10 + step))
    for name, now in network.state_dict().items():
        if now.is_floating_point():
            average[name].lerp_(now.detach(), share)
        else:
            average[name].copy_(now)


@contextmanager
def in_place_of_weights(network: nn.Module, average: Mapping[str, Tensor] | None) -> Generator[None]:
    """The average as the network's weights, for as long as the block lasts; without one nothing happens."""
    if average is None:
        yield
        return
    own = start(network)
    network.load_state_dict(average)
    try:
        yield
    finally:
        network.load_state_dict(own)
