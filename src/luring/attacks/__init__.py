"""Adversarial attacks on any callable from images to logits.

`mim(model, x, y, eps=0.3, step=0.01, steps=100)` crafts at once; `preset("mim", eps=0.3)` gives a configured attack for later.
"""

from luring.attacks.autopgd import apgd, apgd_t
from luring.attacks.gradient import (
    admix,
    bim,
    dim,
    dim_ti,
    fgsm,
    mim,
    mim_ti,
    miml2,
    ni,
    pgd,
    pgn,
    si_ni,
    ssa,
    vmi,
    vni,
)
from luring.attacks.presets import Attack, preset
from luring.attacks.query import Queried, nes, spsa, square
from luring.attacks.registry import ATTACKS
from luring.attacks.slopes import flat, variance
from luring.attacks.transforms import chain, diversity, mixed, scales, smoothing, spectrum
from luring.attacks.worst import worst_case

__all__ = [
    "ATTACKS",
    "Attack",
    "Queried",
    "admix",
    "apgd",
    "apgd_t",
    "bim",
    "chain",
    "dim",
    "dim_ti",
    "diversity",
    "fgsm",
    "flat",
    "mim",
    "mim_ti",
    "miml2",
    "mixed",
    "nes",
    "ni",
    "pgd",
    "pgn",
    "preset",
    "scales",
    "si_ni",
    "smoothing",
    "spectrum",
    "spsa",
    "square",
    "ssa",
    "variance",
    "vmi",
    "vni",
    "worst_case",
]
