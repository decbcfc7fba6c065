"""Recipes: how a lure is fitted, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, TypedDict

from luring.errors import InputError

Name: TypeAlias = Literal["paper", "strong", "faithful", "aligned"]

Kind: TypeAlias = Literal["plain", "residual"]
"""Of the lures for images of any size (`luring.lures`)."""

EPS = 0.1
"""Radius of the recipes with adversarial examples of M, where none is given."""

GAP_MAX = 15.0
"""Bound on the gap of the recipes beside the paper's, in logits."""

ALIGN = 3.0
"""Weight of the penalty of the recipe `aligned`."""


@dataclass(frozen=True)
class Recipe:
    """What the luring loss is asked for.

    Attributes:
        lam: λ, the weight of the gap.
        gap_max: bound on the gap in logits; `None` is the paper's loss.
        static: whether the lure is fitted on M's adversarial examples, too (`luring.static`).
        align: weight of the penalty on gradients that agree with M's (`luring.alignment`); `None` is without.
        c_e: weight of C_E beside the luring loss; `None` is without.
        lure: what the lure `auto` is: one that begins as the identity is no use to a recipe that does not turn its gradient away.
    """

    lam: float
    gap_max: float | None
    static: bool = False
    align: float | None = None
    c_e: float | None = None
    lure: Kind = "plain"


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "paper": Recipe(1.0, None),
        "strong": Recipe(1.0, GAP_MAX, static=True),
        "faithful": Recipe(0.1, GAP_MAX, static=True, c_e=1.0),
        "aligned": Recipe(1.0, GAP_MAX, static=True, align=ALIGN, lure="residual"),
    }
)
"""By name: the paper's, and what came of the trials (docs/research.md)."""


class Asked(TypedDict):
    """Keywords of `luring.training.lure`."""

    lam: float
    gap_max: float | None
    static_eps: float | None
    align: float | None
    c_e: float | None


def check_radius(eps: float) -> None:
    """Refuse a radius that images in [0, 1] have no room for.

    Raises:
        InputError: it is not above 0, or above 1.
    """
    if not 0 < eps <= 1:
        raise InputError(
            f"a lure cannot be fitted on adversarial examples of M up to eps {eps:g}: give a radius above 0, 1 at most."
        )


def check_weight(of: str, weight: float, usual: float) -> None:
    """Refuse a weight of something beside the luring loss that asks for nothing, or for the opposite.

    Raises:
        InputError: it is not above 0.
    """
    if not 0 < weight < float("inf"):
        raise InputError(f"the weight of {of} is {weight:g}: give one above 0, {usual:g} say.")


def asked(
    name: str,
    *,
    method: str = "luring",
    lam: float | None = None,
    gap_max: float | None = None,
    eps: float | None = None,
) -> Asked:
    """What a recipe asks of the luring loss, with what was given in place of its own.

    Args:
        name: of `RECIPES`.
        method: that the lure is fitted by; all but the paper's recipe are of the luring loss.
        lam: λ, where it is not the recipe's own.
        gap_max: bound on the gap, likewise.
        eps: radius that a recipe with adversarial examples is fitted up to; `EPS` where it is not given.

    Raises:
        InputError: no such recipe, another method than it is for, or a radius for one that has none or that no image has room for.
    """
    if name not in RECIPES:
        raise InputError(f"there is no recipe '{name}': give one of {', '.join(RECIPES)}.")
    if name != "paper" and method != "luring":
        raise InputError(
            f"the recipe '{name}' is one of the luring loss: leave the method '{method}' out, or the recipe."
        )
    recipe = RECIPES[name]
    if eps is not None and not recipe.static:
        raise InputError(f"the recipe '{name}' knows no radius: leave eps out, or take another recipe.")
    if eps is not None:
        check_radius(eps)
    return {
        "lam": recipe.lam if lam is None else lam,
        "gap_max": recipe.gap_max if gap_max is None else gap_max,
        "static_eps": (EPS if eps is None else eps) if recipe.static else None,
        "align": recipe.align,
        "c_e": recipe.c_e,
    }


def stored(settings: Mapping[str, Any]) -> Asked:
    """What the lure of a bundle was asked for: of what older ones do not say, nothing."""
    return {
        "lam": float(settings.get("lam") or 1.0),
        "gap_max": settings.get("gap_max"),
        "static_eps": settings.get("static_eps"),
        "align": settings.get("align"),
        "c_e": settings.get("c_e"),
    }
