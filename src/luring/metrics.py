"""The paper's measures, most of them from label vectors: what M and M∘P answer, and the truth.

Those take int64 vectors of one length, [n], and give a number from 0 to 1, or nan where there is nothing to divide by.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from luring.answers import prepare
from luring.frozen import frozen
from luring.types import Classifier, Images, Labels


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


def opposite_directions(m: Classifier, mop: Classifier, x: Images, *, batch: int = 128) -> Tensor:
    """Along how many values of an image a class's logits of M and of M∘P move against each other (luring paper, §4.2).

    That is how many d have ∂ℓ/∂x_d · ∂ℓP/∂x_d < 0; a slope of 0 is against nothing.

    Args:
        m: M, images to logits.
        mop: M∘P, with as many classes.
        x: images in [0, 1], [n, channels, height, width].
        batch: images at a time.

    Returns:
        Counts, [n, classes], int64, on the CPU.
    """
    counts: list[Tensor] = []
    with frozen(m, mop), torch.enable_grad():
        for part in x.split(batch):
            pairs = zip(_slopes(m, part), _slopes(mop, part), strict=True)
            # Signs, for a product of two small slopes may round to 0.
            against = [(own.sign() * other.sign() < 0).flatten(1).sum(1) for own, other in pairs]
            counts.append(torch.stack(against, 1).cpu())
    return torch.cat(counts)


def _slopes(model: Classifier, x: Images) -> Iterator[Tensor]:
    """Of each class's logit with respect to the images."""
    leaf = prepare(x, model).detach().clone().requires_grad_()
    logits = model(leaf)
    for label in range(logits.shape[1]):
        yield torch.autograd.grad(logits[:, label].sum(), leaf, retain_graph=True)[0]


def _share(hits: Tensor) -> float:
    return float(hits.to(torch.float64).mean()) if hits.numel() else float("nan")
