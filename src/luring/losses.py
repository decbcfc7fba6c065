"""Losses that fit a lure: each takes what the decoy M∘P answers to a batch and what the target M answers to the clean images.

All are means over the batch. Runners-up are taken from logits, never from softmax, where they would tie at 0.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from luring.gap import picked
from luring.types import Images, Labels, Logits


def luring(
    decoy: Logits, label: Labels, runner_up: Labels, *, lam: float = 1.0, gap_max: float | None = None
) -> Tensor:
    """The luring loss (Bernhard et al. 2020, Equation 1).

    −λ (ℓP_label − ℓP_runner-up) + max(0, ℓP_b − ℓP_label), where ℓP are the decoy's logits, label = M(x), the runner-up is
    **M's** second class, and b the decoy's highest class other than the label. (The paper's line for a and b swaps them; its next
    sentence and its authors' code do not.)

    Args:
        decoy: logits of M∘P, [batch, classes].
        label: M(x), the classes of M's highest logits, [batch].
        runner_up: the classes of M's second highest logits, [batch].
        lam: λ, the weight of the gap.
        gap_max: not in the paper: the gap counts up to this many logits and no further, which keeps the softmax out of
            saturation and the accuracy up. `None` is the paper's loss.

    Returns:
        A scalar.
    """
    gap = picked(decoy, label) - picked(decoy, runner_up)
    if gap_max is not None:
        gap = gap.clamp_max(gap_max)
    return (-lam * gap + (_highest_other(decoy, label) - picked(decoy, label)).clamp_min(0)).mean()


def luring_alt(decoy: Logits, label: Labels) -> Tensor:
    """The alternative L' of §3.2: −(ℓP_label − ℓP_b), the gap to the decoy's own runner-up b."""
    return (_highest_other(decoy, label) - picked(decoy, label)).mean()


def c_e(decoy: Logits, target: Logits) -> Tensor:
    """Cross-entropy of the decoy's softmax to M's: the baseline 'C_E' of §4.2.

    Args:
        decoy: logits of M∘P.
        target: logits of M for the same clean images.
    """
    return F.cross_entropy(decoy, target.softmax(1))


def auto(restored: Images, images: Images) -> Tensor:
    """Binary cross-entropy of P(x) to x, a mean over all values: the baseline 'Auto' of §4.2."""
    return F.binary_cross_entropy(restored, images)


def _highest_other(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.scatter(1, labels[:, None], -torch.inf).amax(1)
