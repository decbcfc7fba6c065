"""A lure held back: its image blended with the one it was given. Set after the fit, it gives strength for accuracy, and nothing is trained."""

import torch
from torch import Tensor, nn

from luring.errors import InputError


class Blended(nn.Module):
    """x + s (P(x) − x): a share s of the lure's image, the rest of the image itself; values in [0, 1] stay there.

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
