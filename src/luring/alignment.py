"""Alignment: how far what fools the decoy points where what fools the target does.

An example made on one model fools another the more, the more their gradients agree; models that shall not be fooled together are trained with a penalty on the cosine
between them (Kariyappa and Qureshi 2019, 'gradient alignment loss', for ensembles). Here one of the two, M, is fixed and only the lure learns.
"""

import torch
import torch.nn.functional as F

from luring.attacks.transforms import smoothing
from luring.types import Images, PerImage

MARGIN = 0.2
"""Cosine, with the other sign, beyond which nothing more is asked: the two shall not be orthogonal only, but turned against each other."""

KERNELS = (1, 3, 5)
"""Pixels of the Gaussians that the gradients are compared behind: an adversary who follows a smoothed gradient (TI, DIM) shall gain nothing by it."""


def penalty(decoy: Images, target: Images) -> PerImage:
    """max(0, cos + margin) of two gradients of each image, the mean over smoothings.

    Args:
        decoy: gradients with respect to images, [batch, channels, height, width] (`luring.gap.slope`).
        target: the same, of the target.

    Returns:
        From 0 to 1 + `MARGIN`.
    """
    cosines = [
        F.cosine_similarity(smooth(decoy).flatten(1), smooth(target).flatten(1)) for smooth in map(smoothing, KERNELS)
    ]
    return F.relu(torch.stack(cosines) + MARGIN).mean(0)
