"""A strong lure fitted on, asked for less of what it is strong by: the weight of the gap and the radius fall.

What begins strong keeps most of that while it comes nearer to M; what begins near M does not become strong (docs/research.md). Or it is *turned*: asked for
C_E and the alignment's penalty (`luring.alignment`) in place of the luring loss. A gradient that points elsewhere than M's by then stays so while the answers
come back; one that points as M's does would not be moved by the penalty, whose own slope is 0 there.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from luring import bundle, recipes, successor, training
from luring.augment import Moves
from luring.bundle import Bundle
from luring.data import Dataset
from luring.errors import InputError
from luring.loop import Log
from luring.recipes import Asked
from luring.schedule import Schedule
from luring.weights import digest

LAM, EPS = 5, 2
"""What the weight of the gap and the radius are divided by."""

TURNED: Mapping[str, Any] = MappingProxyType({"method": "c_e", "align": 0.5})
"""What a lure that is turned is asked for."""


def reduced(asked: Asked, *, lam: float | None = None, eps: float | None = None) -> Asked:
    """What a lure was asked for, with less of the gap and a smaller radius; what is given stands in their place."""
    radius = asked["static_eps"]
    return {
        **asked,
        "lam": asked["lam"] / LAM if lam is None else lam,
        "static_eps": radius and (radius / EPS if eps is None else eps),
    }


def less(
    config: Mapping[str, Any], *, lam: float | None = None, eps: float | None = None, align: float | None = None
) -> Mapping[str, Any]:
    """What the lure of a bundle is asked for from now on.

    Args:
        config: of the bundle.
        lam: λ; without, the bundle's divided by `LAM`.
        eps: radius of the adversarial examples of M; without, the bundle's divided by `EPS`.
        align: weight of the alignment's penalty, of C_E's: the lure is turned. Without, it is not.

    Returns:
        Keywords of `luring.training.lure`.

    Raises:
        InputError: the lure is not one of the luring loss and is not turned, or is not in front of its target; a radius for one that was fitted on no
            adversarial examples; or a gap or radius for one that is turned, or a weight of nothing.
    """
    if align is not None:
        if (lam, eps) != (None, None):
            raise InputError(
                "a lure that is turned is asked for neither gap nor radius: leave lam and eps out, or align."
            )
        recipes.check_weight("the alignment's penalty", align, TURNED["align"])
        successor.in_front(config)
        return {**TURNED, "align": align}
    if config["method"] != "luring":
        raise InputError(
            f"the lure of this bundle was fitted by '{config['method']}', which has no gap to ask less of: give one that was fitted by 'luring', or align, which asks for none."
        )
    before = recipes.stored(config["settings"])
    if eps is not None:
        if before["static_eps"] is None:
            raise InputError("this lure was fitted on no adversarial examples, so there is no radius: leave eps out.")
        recipes.check_radius(eps)
    return reduced(before, lam=lam, eps=eps)


def fit(
    found: Bundle,
    dataset: Dataset,
    asked: Mapping[str, Any],
    schedule: Schedule,
    *,
    moves: Moves | None = None,
    seed: int = 0,
    state: Path | None = None,
    show: bool = True,
    log: Log | None = None,
) -> training.Fitted:
    """Fit a bundle's lure on, in place; one that is held back through its blend, which P may then make up for.

    Args:
        found: the bundle.
        dataset: its images.
        asked: of the loss, by `less`.
        schedule: how long and how fast.
        moves: of the images of each step; `None` leaves them as they are.
        seed: as for `luring.training.lure`, whose errors are this one's; so are the others.
        state: a file.
        show: progress.
        log: a function.
    """
    return training.lure(
        found.lure,
        found.target,
        dataset.train.images,
        dataset.validation.images,
        **asked,
        moves=moves,
        truth=dataset.validation.labels,
        begins=digest(found.lure),
        schedule=schedule,
        seed=seed,
        state=state,
        show=show,
        log=log,
    )


def save(
    found: Bundle,
    folder: Path,
    out: Path,
    dataset: Dataset,
    asked: Mapping[str, Any],
    schedule: Schedule,
    *,
    moves: Moves | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Write the bundle of a lure that was fitted on; what it began as stands in its settings, as `begins`.

    Args:
        found: the bundle, its lure fitted on.
        folder: that it was read from.
        out: a folder for the other.
        dataset: whose test images say how the decoy does.
        asked: as for `fit`; so are the others.
        schedule: how long and how fast.
        moves: of the images.
        seed: of the fit.

    Returns:
        Its `config.json`.

    Raises:
        InputError: `out` holds a bundle already.
    """
    before = found.config["settings"]
    settings = {
        **bundle.fitted_by(before.get("recipe", "paper"), asked, schedule, seed, moves),
        **({"share": before["share"]} if "share" in before else {}),
        "begins": {"lure": found.config["digests"]["lure"], **before},
    }
    method = "turned" if asked.get("method") == TURNED["method"] else found.config["method"]
    config = {"method": method, "settings": settings}
    return successor.save(found, folder, out, found.lure, found.lure.state_dict(), config, dataset)
