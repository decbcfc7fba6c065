"""Adversarial attacks on any callable from images to logits.

`mim(model, x, y, eps=0.3, step=0.01, steps=100)` crafts at once; `preset("mim", eps=0.3)` gives a configured attack for later.
"""

from luring.attacks.gradient import bim, dim, dim_ti, fgsm, mim, mim_ti, miml2, pgd
from luring.attacks.presets import ATTACKS, Attack, preset
from luring.attacks.transforms import diversity, smoothing

__all__ = [
    "ATTACKS",
    "Attack",
    "bim",
    "dim",
    "dim_ti",
    "diversity",
    "fgsm",
    "mim",
    "mim_ti",
    "miml2",
    "pgd",
    "preset",
    "smoothing",
]
