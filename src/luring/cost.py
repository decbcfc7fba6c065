"""What a network costs: multiply-adds, counted and not guessed."""

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from luring.frozen import frozen
from luring.types import Shape


def multiply_adds(network: nn.Module, shape: Shape) -> int:
    """Multiply-adds of one image through a network, counted as it runs; attention counts as the matrix products it is."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    # What takes batches of one size only says so.
    batch: int = max(getattr(module, "images_at_once", None) or 1 for module in network.modules())
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a fused layer of transformers is not counted
    try:
        with (
            frozen(network),
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            network(torch.zeros(batch, *shape, device=device))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() // 2 // batch
