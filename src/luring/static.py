"""Adversarial examples of the target alone, for a lure that shall not be fooled by them.

A decoy that keeps its answer where M loses its own looks for something else in the image than M does; what then fools the decoy has little to do with what
fools M. It is ensemble adversarial training (Tramèr et al. 2018, whose *static* models are trained beforehand and give the examples) turned round: there the
model that sees the examples is protected, here the one that they come from.
"""

import torch

from luring.types import Images


def examples(images: Images, slope: Images, *, eps: float) -> Images:
    """Images moved by one step of FGSM on M from its label towards its runner-up, each by a radius of its own.

    Args:
        images: clean images, [batch, channels, height, width], values in [0, 1].
        slope: M's gradient at them (`luring.gap.slope`).
        eps: largest radius of the l∞ ball; radii are drawn uniformly from 0 to it, from PyTorch's own generator.

    Returns:
        Images in [0, 1] within `eps` of the given ones, without a gradient.
    """
    radius = eps * torch.rand(len(images), 1, 1, 1, device=images.device, dtype=images.dtype)
    return (images + radius * slope.sign()).clamp_(0, 1).detach()
