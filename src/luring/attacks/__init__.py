"""Adversarial attacks on any callable from images to logits.

`mim(model, x, y, eps=0.3, step=0.01, steps=100)` crafts at once; `preset("mim", eps=0.3)` gives a configured attack for later.
"""

from luring.attacks.adaptive_boundary import fab
from luring.attacks.asked import Queried
from luring.attacks.autopgd import apgd, apgd_by, apgd_t
from luring.attacks.blocks import shuffled, structures
from luring.attacks.chunks import craft
from luring.attacks.corners import parsimonious
from luring.attacks.decision import boundary, hop_skip_jump
from luring.attacks.gradient import bim, fgsm, mim, miml2, pgd
from luring.attacks.named import admix, bsr, dim, dim_ti, mim_ti, ni, pgn, si_ni, sia, ssa, vmi, vni
from luring.attacks.presets import Attack, preset
from luring.attacks.query import nes, spsa, square, zoo
from luring.attacks.registry import ATTACKS
from luring.attacks.slopes import flat, variance
from luring.attacks.sources import ensemble
from luring.attacks.transforms import chain, diversity, mixed, scales, smoothing, spectrum
from luring.attacks.worst import worst_case

__all__ = [
    "ATTACKS",
    "Attack",
    "Queried",
    "admix",
    "apgd",
    "apgd_by",
    "apgd_t",
    "bim",
    "boundary",
    "bsr",
    "chain",
    "craft",
    "dim",
    "dim_ti",
    "diversity",
    "ensemble",
    "fab",
    "fgsm",
    "flat",
    "hop_skip_jump",
    "mim",
    "mim_ti",
    "miml2",
    "mixed",
    "nes",
    "ni",
    "parsimonious",
    "pgd",
    "pgn",
    "preset",
    "scales",
    "shuffled",
    "si_ni",
    "sia",
    "smoothing",
    "spectrum",
    "spsa",
    "square",
    "ssa",
    "structures",
    "variance",
    "vmi",
    "vni",
    "worst_case",
    "zoo",
]
