"""Trials of recipes: ways to fit a lure beside the paper's, on one target, with one schedule, judged by the paper's own protocol.

`luring` is the paper's recipe. `bounded` bounds its gap, `static` fits it on M's adversarial examples too (`luring.static`), `strong` does both.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from luring import recipes
from luring.paper.experiments import Attacked, Experiment, Lure, table_2
from luring.training import Schedule


def _trials(schedule: Schedule, eps: float) -> Mapping[str, Lure]:
    """The recipes, up to a radius."""

    def trial(recipe: str, **asked: Any) -> Lure:
        return Lure(schedule, **asked, method="luring", recipe=recipe)

    return MappingProxyType(
        {
            "luring": Lure(schedule, recipe="paper"),
            "strong": trial("strong", **recipes.asked("strong", eps=eps)),
            "bounded": trial("bounded", gap_max=recipes.GAP_MAX),
            "static": trial("static", static_eps=eps),
        }
    )


def _attacks(step: float, steps: int, kernels: tuple[int, ...]) -> Mapping[str, Attacked]:
    """Table 2's, and PGD by the margin, which a saturated softmax does not hold up."""
    by_margin = Attacked({"step": step, "steps": steps, "loss": "margin"})
    return MappingProxyType({**table_2(steps, step, (0.4, 0.7, 1.0), kernels), "pgd": by_margin})


def _modern(step: float, steps: int) -> Mapping[str, Attacked]:
    """Later attacks for transfer, on digits without what turns or mirrors; and APGD."""
    every: Mapping[str, float | int | str] = {"step": step, "steps": steps}
    return MappingProxyType(
        {
            "si-ni": Attacked({**every, "copies": 3}),
            "vmi": Attacked({**every, "samples": 5}),
            "pgn": Attacked({**every, "samples": 5}),
            "sia-digits": Attacked({**every, "samples": 5}),
            "apgd": Attacked({"steps": steps}),
        }
    )


TRIALS: Mapping[tuple[str, str], Experiment] = MappingProxyType(
    {
        ("digits", "research"): Experiment(
            dataset="digits",
            scale="research",
            target="plain",
            lure="plain-16",
            target_schedule=Schedule(600, lr=3e-3),
            lures=_trials(Schedule(2000, lr=3e-3), 0.3),
            attacks=_attacks(0.02, 40, (1, 3)),
            extras=_modern(0.02, 20),
            eps=(0.1, 0.2, 0.3),
            n=200,
            search_n=50,
            effect=(),
            pictures=0,
        ),
        ("mnist", "research"): Experiment(
            dataset="mnist",
            scale="research",
            target="mnist-narrow",
            lure="plain-16-2",
            target_schedule=Schedule(1500, batch=100),
            lures=_trials(Schedule(6000, lr=5e-3, beta2=0.99, precision="bfloat16", validations=8), 0.5),
            attacks=_attacks(1 / 32, 32, (1, 5, 10)),
            extras=_modern(1 / 16, 16),
            eps=(0.3, 0.4, 0.5),
            n=200,
            search_n=50,
            effect=(),
            pictures=0,
        ),
    }
)
"""By data set and scale."""
