"""Images of any floating-point form: attacks work in float32 or float64, and give back the form that they were given."""

import torch
from torch import Tensor, nn

from luring.types import Classifier

HALF = (torch.float16, torch.bfloat16)


def working(x: Tensor) -> Tensor:
    """A copy of the images to work on, in float32 where they have fewer digits."""
    # Tensors made in inference mode cannot be saved for the gradient: hence the copy.
    return x.detach().float() if x.dtype in HALF else x.detach().clone()


def shown(model: Classifier, x: Tensor) -> Classifier:
    """The model, as it takes images worked on: in the form of `x`."""
    return _Halved(model, x.dtype) if x.dtype in HALF else model


class _Halved(nn.Module):
    """A model shown images with fewer digits; its logits come back in float32."""

    def __init__(self, model: Classifier, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images.to(self.dtype))
        return logits.float() if logits.dtype in HALF else logits


def like(made: Tensor, x: Tensor) -> Tensor:
    """Images worked on, in the form of `x`: its dtype and memory format, rounded towards it, so that they stay in its balls."""
    if x.dtype in HALF:
        made = _towards(made, x)
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return made.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def representable(made: Tensor, x: Tensor, which: Tensor) -> Tensor:
    """Images worked on, for the images `which` of `x`, rounded as `like` will round them: what a model is asked about is what is given back."""
    return _towards(made, x[which]).float() if x.dtype in HALF else made


def _towards(made: Tensor, x: Tensor) -> Tensor:
    rounded = made.to(x.dtype)
    over = (rounded.float() - x.float()).abs() > (made - x.float()).abs()
    # Numbers from 0 on lie in the order of their bits: the neighbour towards x is one less or one more.
    neighbour = (rounded.view(torch.int16) + torch.where(rounded > x, -1, 1).to(torch.int16)).view(x.dtype)
    return torch.where(over, neighbour, rounded)
