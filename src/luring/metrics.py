"""The paper's measures, from label vectors: what M and M∘P answer, and the truth.

All take int64 vectors of one length, [n], and give a number from 0 to 1, or nan where there is nothing to divide by.
"""

import torch
from torch import Tensor

from luring.types import Images, Labels


def accuracy(predicted: Labels, truth: Labels) -> float:
    """Share of right answers: test accuracy on clean images, AC on adversarial ones."""
    return _share(predicted == truth)


def agreement(m: Labels, mop: Labels, truth: Labels) -> float:
    """Share of images on which M and M∘P agree and are right, as the paper's Table 1 counts it."""
    return _share((m == mop) & (m == truth))


def disagreement(m: Labels, mop: Labels) -> float:
    """Share of images on which M and M∘P answer differently: of clean ones, what bare agreement rejects."""
    return _share(m != mop)


def detection_rate(m: Labels, mop: Labels, truth: Labels) -> float:
    """DR (Equation 2): of the examples that fool M∘P, the share on which M answers otherwise than M∘P."""
    return _share((m != mop)[mop != truth])


def adequation_rate(m: Labels, mop: Labels, truth: Labels) -> float:
    """Adq (Equation 3): of the examples that fool M∘P, the share on which M is right."""
    return _share((m == truth)[mop != truth])


def detection_adversarial_accuracy(m: Labels, mop: Labels, truth: Labels) -> float:
    """DAC (Equation 4): share of the examples on which M is right, or M and M∘P disagree so that the example is noticed."""
    return _share((m == truth) | (m != mop))


def l0_distortion(x: Images, x_adv: Images) -> Tensor:
    """Number of values that differ, an image; [batch], int64."""
    return (x != x_adv).flatten(1).sum(1)


def _share(hits: Tensor) -> float:
    return float(hits.to(torch.float64).mean()) if hits.numel() else float("nan")
