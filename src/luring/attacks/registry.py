"""Every attack by its preset's name, with what a reader wants to know before choosing one."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import get_args, get_type_hints

from torch import Tensor

from luring.attacks import adaptive_boundary, autopgd, corners, decision, gradient, named, query
from luring.attacks.asked import Queried

PIECES = ("model", "x", "y", "generator", "see", "smooth", "estimate", "start")
"""Arguments that are not settings: they cannot be printed, hashed and stored."""


@dataclass(frozen=True)
class Known:
    """An attack of the registry.

    Attributes:
        function: crafts, from `(model, x, y)` and settings.
        does: what it does, in a line.
        source: its paper.
        norms: of its balls.
        passes: forward and backward passes through the model, in its settings; queries, where it has no gradient.
        knows: `weights`, where it needs the model's gradient, `scores`, or `labels`.
        preset: settings of this preset that are not the function's own.
        step_of_eps: length of a step as a share of eps, where the paper gives it so.
    """

    function: Callable[..., Tensor | Queried]
    does: str
    source: str
    norms: str
    passes: str
    knows: str = "weights"
    preset: Mapping[str, float | int | bool] = field(default_factory=dict[str, float | int | bool])
    step_of_eps: float | None = None

    @property
    def parameters(self) -> dict[str, object]:
        """What its function takes, with the default or `inspect.Parameter.empty`; what it hands on to `mim` is among them."""
        found = dict(inspect.signature(self.function).parameters)
        if (common := found.pop("common", None)) is not None:
            handed = inspect.signature(gradient.mim).parameters
            found |= {name: handed[name] for name in get_type_hints(get_args(common.annotation)[0])}
        return {name: parameter.default for name, parameter in found.items()}

    @property
    def settings(self) -> list[str]:
        """Names of what can be set."""
        return [name for name in self.parameters if name not in PIECES]

    @property
    def numbers(self) -> dict[str, float | int | bool]:
        """The settings that are numbers and that the preset, or the function, has a value for."""
        numbers = {name: value for name, value in self.parameters.items() if isinstance(value, int | float)}
        return {name: value for name, value in numbers.items() if value is not False} | dict(self.preset)

    @property
    def draws(self) -> bool:
        """Whether it draws anything."""
        return "generator" in self.parameters


_OWN: Mapping[str, Known] = MappingProxyType(
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
            named.dim, "MIM on images resized and padded, drawn per image", "Xie et al. 2019", "l∞, l2", "steps"
        ),
        "mim-ti": Known(named.mim_ti, "MIM with the gradient smoothed", "Dong et al. 2019", "l∞, l2", "steps"),
        "dim-ti": Known(named.dim_ti, "both of them", "Dong et al. 2019", "l∞, l2", "steps"),
        "ni": Known(
            named.ni, "MIM, gradient taken one step of the momentum ahead", "Lin et al. 2020", "l∞, l2", "steps"
        ),
        "si-ni": Known(
            named.si_ni, "NI on the image, its half, its quarter, …", "Lin et al. 2020", "l∞, l2", "steps · copies"
        ),
        "vmi": Known(
            named.vmi,
            "MIM plus what the surroundings had more at the last step",
            "Wang and He 2021",
            "l∞, l2",
            "steps · (1 + samples)",
        ),
        "vni": Known(named.vni, "VMI one step ahead", "Wang and He 2021", "l∞, l2", "steps · (1 + samples)"),
        "admix": Known(
            named.admix,
            "MIM on images with a portion of others, and on their halves",
            "Wang et al. 2021",
            "l∞, l2",
            "steps · others · copies",
        ),
        "ssa": Known(
            named.ssa, "MIM on images with noise and a shaken spectrum", "Long et al. 2022", "l∞, l2", "steps · samples"
        ),
        "bsr": Known(
            named.bsr,
            "MIM on images whose blocks are shuffled and turned",
            "Wang et al. 2024",
            "l∞, l2",
            "steps · samples",
        ),
        "bsr-digits": Known(
            named.bsr,
            "BSR that turns nothing",
            "Wang et al. 2024",
            "l∞, l2",
            "steps · samples",
            preset=MappingProxyType({"angle": 0.0}),
        ),
        "sia": Known(
            named.sia,
            "MIM on images whose blocks are each changed in a way of its own",
            "Wang, Zhang and Zhang 2023",
            "l∞, l2",
            "steps · samples",
        ),
        "sia-digits": Known(
            named.sia,
            "SIA that mirrors and turns nothing",
            "Wang, Zhang and Zhang 2023",
            "l∞, l2",
            "steps · samples",
            preset=MappingProxyType({"turns": False}),
        ),
        "pgn": Known(
            named.pgn,
            "MIM towards places whose surroundings are as bad for the model",
            "Ge et al. 2023",
            "l∞, l2",
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
        "fab": Known(
            adaptive_boundary.fab,
            "along the model's boundary to its nearest place, towards one class after the other",
            "Croce and Hein 2020",
            "l∞",
            "1 + targets · 2 · steps",
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
        "zoo": Known(
            query.zoo,
            "gradient from pairs at a few values of the image, then Adam on them",
            "Chen et al. 2017",
            "l∞",
            "budget at most",
            "scores",
        ),
        "parsimonious": Known(
            corners.parsimonious,
            "corners of the ball, block by block, by lazy greedy search",
            "Moon, An and Song 2019",
            "l∞",
            "budget at most",
            "scores",
        ),
        "hop-skip-jump": Known(
            decision.hop_skip_jump,
            "along the boundary, by its gradient estimated from labels",
            "Chen, Jordan and Wainwright 2020",
            "l∞, l2",
            "budget at most",
            "labels",
        ),
        "boundary": Known(
            decision.boundary,
            "along the boundary, at random",
            "Brendel, Rauber and Bethge 2018",
            "l∞, l2",
            "budget at most",
            "labels",
        ),
    }
)

# Xie et al. resize to at most 330 pixels and put 299 of them on 330: 21 pixels fewer of 224.
_FOR_224 = {
    "mim": {},
    "dim": {"shrink": 21},
    "mim-ti": {"kernel": 15},
    "dim-ti": {"shrink": 21, "probability": 0.7, "kernel": 15},
    **{name: {} for name in ("ni", "si-ni", "vmi", "vni", "admix", "ssa", "bsr", "sia", "pgn")},
}
"""What the papers set on ImageNet where the preset of the attack's own name, for images of about 32 by 32, has something else."""

ATTACKS: Mapping[str, Known] = MappingProxyType(
    {
        **_OWN,
        **{
            f"{name}-imagenet": replace(
                _OWN[name],
                does=f"`{name}` as its paper has it on ImageNet",
                preset=MappingProxyType({"steps": 10, **numbers}),
                step_of_eps=0.1,
            )
            for name, numbers in _FOR_224.items()
        },
    }
)
"""By preset's name."""
