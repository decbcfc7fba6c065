"""Every attack by its preset's name, with what a reader wants to know before choosing one."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from luring.attacks import autopgd, gradient, query
from luring.attacks.query import Queried

PIECES = ("model", "x", "y", "generator", "see", "smooth", "estimate")
"""Arguments that are not settings: they cannot be printed, hashed and stored."""


@dataclass(frozen=True)
class Known:
    """An attack of the registry.

    Attributes:
        function: crafts, from `(model, x, y)` and settings.
        does: what it does, in a line.
        source: its paper.
        norms: of its balls.
        passes: forward and backward passes through the model, in its settings; queries, where it knows scores alone.
        knows: `weights`, where it needs the model's gradient, or `scores`.
    """

    function: Callable[..., Tensor | Queried]
    does: str
    source: str
    norms: str
    passes: str
    knows: str = "weights"

    @property
    def settings(self) -> list[str]:
        """Names of what can be set."""
        return [name for name in inspect.signature(self.function).parameters if name not in PIECES]

    @property
    def numbers(self) -> dict[str, float | int]:
        """The settings that are numbers and that the function has a default for."""
        defaults = {name: parameter.default for name, parameter in inspect.signature(self.function).parameters.items()}
        return {name: value for name, value in defaults.items() if type(value) in (int, float)}

    @property
    def draws(self) -> bool:
        """Whether it draws anything."""
        return "generator" in inspect.signature(self.function).parameters


ATTACKS: Mapping[str, Known] = MappingProxyType(
    {
        "fgsm": Known(
            gradient.fgsm, "one step of `eps` along the gradient's sign", "Goodfellow et al. 2015", "l∞", "1"
        ),
        "bim": Known(gradient.bim, "PGD from the clean image", "Kurakin et al. 2016", "l∞, l2", "steps"),
        "pgd": Known(gradient.pgd, "projected gradient from a random start", "Madry et al. 2018", "l∞, l2", "steps"),
        "mim": Known(
            gradient.mim,
            "momentum, gradient divided by its mean absolute value per image",
            "Dong et al. 2018",
            "l∞, l2",
            "steps",
        ),
        "miml2": Known(
            gradient.miml2,
            "MIM in an l2 ball of `radius`, then clipped to `eps` in l∞",
            "luring paper, §4.2",
            "l2, l∞",
            "steps",
        ),
        "dim": Known(
            gradient.dim, "MIM on images resized and padded, drawn per image", "Xie et al. 2019", "l∞", "steps"
        ),
        "mim-ti": Known(gradient.mim_ti, "MIM with the gradient smoothed", "Dong et al. 2019", "l∞", "steps"),
        "dim-ti": Known(gradient.dim_ti, "both of them", "Dong et al. 2019", "l∞", "steps"),
        "ni": Known(
            gradient.ni, "MIM, gradient taken one step of the momentum ahead", "Lin et al. 2020", "l∞", "steps"
        ),
        "si-ni": Known(
            gradient.si_ni, "NI on the image, its half, its quarter, …", "Lin et al. 2020", "l∞", "steps · copies"
        ),
        "vmi": Known(
            gradient.vmi,
            "MIM plus what the surroundings had more at the last step",
            "Wang and He 2021",
            "l∞",
            "steps · (1 + samples)",
        ),
        "vni": Known(gradient.vni, "VMI one step ahead", "Wang and He 2021", "l∞", "steps · (1 + samples)"),
        "admix": Known(
            gradient.admix,
            "MIM on images with a portion of others, and on their halves",
            "Wang et al. 2021",
            "l∞",
            "steps · others · copies",
        ),
        "ssa": Known(
            gradient.ssa, "MIM on images with noise and a shaken spectrum", "Long et al. 2022", "l∞", "steps · samples"
        ),
        "pgn": Known(
            gradient.pgn,
            "MIM towards places whose surroundings are as bad for the model",
            "Ge et al. 2023",
            "l∞",
            "steps · 2 · samples",
        ),
        "apgd": Known(
            autopgd.apgd,
            "projected gradient whose steps shorten by themselves",
            "Croce and Hein 2020",
            "l∞, l2",
            "restarts · (1 + steps)",
        ),
        "apgd-t": Known(
            autopgd.apgd_t,
            "the same towards one class after the other",
            "Croce and Hein 2020",
            "l∞, l2",
            "1 + targets · (1 + steps)",
        ),
        "square": Known(
            query.square,
            "random squares, kept where the margin grows",
            "Andriushchenko et al. 2020",
            "l∞",
            "budget at most",
            "scores",
        ),
        "spsa": Known(
            query.spsa,
            "gradient from pairs along random signs, then Adam",
            "Uesato et al. 2018",
            "l∞",
            "budget at most",
            "scores",
        ),
        "nes": Known(
            query.nes,
            "gradient from pairs along Gaussian draws, then its sign",
            "Ilyas et al. 2018",
            "l∞",
            "budget at most",
            "scores",
        ),
    }
)
"""By preset's name."""
