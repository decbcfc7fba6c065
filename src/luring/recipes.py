"""Recipes: how hard a lure is fitted, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

LAM, GAP_MAX = 0.3, 15.0
"""λ and the bound on the gap of the recipe `strong`."""


@dataclass(frozen=True)
class Recipe:
    """What the luring loss is asked for.

    Attributes:
        lam: λ, the weight of the gap.
        gap_max: bound on the gap in logits; `None` is the paper's loss.
        static: whether the lure is fitted on M's adversarial examples, too (`luring.static`).
    """

    lam: float
    gap_max: float | None
    static: bool


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {"paper": Recipe(1.0, None, False), "strong": Recipe(LAM, GAP_MAX, True)}
)
"""By name: the paper's, and what came of the trials (docs/research.md)."""
