"""How much an audit spends, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

BASE, TWIN, C_E, AUTOENCODER = "base", "twin", "c_e", "ae-kl"
ADVERSARIAL, ADVERSARIAL_LURE = "adversarial", "adversarial-lure"


@dataclass(frozen=True)
class Budget:
    """What is tried, how long, on how many images.

    Attributes:
        n: test images attacked by gradient.
        few: of these, the first ones that attacks by queries are run on.
        steps: of a gradient attack.
        transfer: presets of rung 1 and, of these, the ones crafted on surrogates (`surrogate`).
        surrogate: presets crafted on surrogates.
        samples: looks a step of the attacks that average over several.
        queries: most queries an image against the audited guard.
        control_queries: the same against its rivals.
        targets: wrong classes that a joint attack goes towards, the likeliest first.
        joint: objectives of the joint attack, `luring.audit.knowing.OBJECTIVES`.
        cuts: boundaries inside the decoy from which features are attacked, evenly spread where there are more.
        controls: rivals beside it, `luring.audit.controls`.
        training: steps that rivals and surrogates are trained for.
        adversarial: the same of adversarial training.
        checked: images that the sanity checks run on.
        surfaces: images whose loss surfaces are drawn.
    """

    n: int
    few: int
    steps: int
    transfer: tuple[str, ...]
    surrogate: tuple[str, ...]
    samples: int
    queries: int
    control_queries: int
    targets: int
    joint: tuple[str, ...]
    cuts: int
    controls: tuple[str, ...]
    training: int
    adversarial: int
    checked: int
    surfaces: int


BUDGETS: Mapping[str, Budget] = MappingProxyType(
    {
        "quick": Budget(
            n=100,
            few=20,
            steps=20,
            transfer=("fgsm", "mim", "dim", "apgd"),
            surrogate=("mim",),
            samples=3,
            queries=300,
            control_queries=100,
            targets=3,
            joint=("behind", "both"),
            cuts=5,
            controls=(BASE, TWIN),
            training=250,
            adversarial=250,
            checked=40,
            surfaces=1,
        ),
        "full": Budget(
            n=300,
            few=50,
            steps=50,
            transfer=(
                *("fgsm", "pgd", "mim", "dim", "dim-ti", "ni", "si-ni", "vmi", "admix", "ssa", "bsr", "sia", "pgn"),
                *("apgd", "apgd-t"),
            ),
            surrogate=("mim", "dim", "vmi"),
            samples=4,
            queries=10_000,
            control_queries=1000,
            targets=9,
            joint=("behind", "both", "ratio-behind", "ratio-both"),
            cuts=12,
            controls=(BASE, TWIN, C_E, AUTOENCODER, ADVERSARIAL, ADVERSARIAL_LURE),
            training=1000,
            adversarial=1500,
            checked=100,
            surfaces=2,
        ),
    }
)
"""By name."""
