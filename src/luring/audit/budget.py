"""How much an audit spends, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from luring.errors import InputError

BASE, TWIN, C_E, AUTOENCODER = "base", "twin", "c_e", "ae-kl"
ADVERSARIAL, ADVERSARIAL_LURE = "adversarial", "adversarial-lure"
TRAPDOOR = "trapdoor"

RIVALS = (BASE, TWIN, C_E, AUTOENCODER, TRAPDOOR, ADVERSARIAL, ADVERSARIAL_LURE)
"""All rivals, in the order in which they are measured."""


@dataclass(frozen=True)
class Budget:
    """What is tried, how long, on how many images.

    Attributes:
        n: test images attacked by gradient.
        few: of these, the first ones that attacks by queries are run on.
        steps: of a gradient attack.
        transfer: presets of rung 1.
        rival_transfer: the same against rivals.
        surrogate: presets crafted on surrogates; the first alone against rivals.
        samples: looks a step of the attacks that average over several.
        queries: most queries an image against the audited guard.
        rival_queries: the same against its rivals.
        targets: wrong classes that a joint attack goes towards, the likeliest first; three at most against rivals.
        joint: objectives of the joint attack, `luring.audit.knowing.OBJECTIVES`; the first two against rivals.
        cuts: boundaries inside the decoy from which features are attacked, evenly spread where there are more.
        controls: rivals beside it, `luring.audit.controls`.
        training: steps that rivals and surrogates are trained for.
        learned: training images that rivals learn their score from.
        adversarial: the same of adversarial training.
        checked: images that the sanity checks and the attack for refusals run on.
        surfaces: images whose loss surfaces are drawn.
    """

    n: int
    few: int
    steps: int
    transfer: tuple[str, ...]
    rival_transfer: tuple[str, ...]
    surrogate: tuple[str, ...]
    samples: int
    queries: int
    rival_queries: int
    targets: int
    joint: tuple[str, ...]
    cuts: int
    controls: tuple[str, ...]
    training: int
    learned: int
    adversarial: int
    checked: int
    surfaces: int

    @property
    def beside(self) -> "Budget":
        """What is spent on each rival: less, so that what is left of it is rather too much than too little."""
        return replace(
            self,
            transfer=self.rival_transfer,
            surrogate=self.surrogate[:1],
            queries=self.rival_queries,
            targets=min(3, self.targets),
            joint=self.joint[:2],
        )

    def asked(self, rivals: Sequence[str] | None, training: int | None) -> "Budget":
        """The same with other rivals, or longer training of rivals and surrogates; what is `None` stays.

        Raises:
            InputError: no rival has that name, or there is nothing to train.
        """
        if unknown := [name for name in rivals or () if name not in RIVALS]:
            raise InputError(f"there is no rival '{unknown[0]}': give some of {', '.join(RIVALS)}.")
        if training is not None and training < 1:
            raise InputError(f"rivals cannot be trained for {training} steps: give 1 or more.")
        steps = self.training if training is None else training
        return replace(
            self,
            controls=self.controls if rivals is None else tuple(name for name in RIVALS if name in rivals),
            training=steps,
            adversarial=max(1, round(self.adversarial * steps / self.training)),
        )

    @property
    def check(self) -> "Budget":
        """What is spent on a sanity check, which compares an attack with itself."""
        return replace(self, targets=min(2, self.targets), joint=self.joint[:1])


BUDGETS: Mapping[str, Budget] = MappingProxyType(
    {
        "quick": Budget(
            n=80,
            few=20,
            steps=15,
            transfer=("fgsm", "mim", "dim", "apgd"),
            rival_transfer=("mim", "apgd"),
            surrogate=("mim",),
            samples=3,
            queries=200,
            rival_queries=80,
            targets=3,
            joint=("behind", "both"),
            cuts=4,
            controls=(BASE, TWIN),
            training=250,
            learned=5000,
            adversarial=250,
            checked=20,
            surfaces=1,
        ),
        "full": Budget(
            n=120,
            few=20,
            steps=40,
            transfer=(
                *("fgsm", "pgd", "mim", "dim", "dim-ti", "ni", "si-ni", "vmi", "admix", "ssa", "bsr", "sia", "pgn"),
                *("apgd", "apgd-t"),
            ),
            rival_transfer=("mim", "dim", "vmi", "apgd"),
            surrogate=("mim", "dim", "vmi"),
            samples=4,
            queries=10_000,
            rival_queries=500,
            targets=9,
            joint=("behind", "both", "ratio-behind", "ratio-both"),
            cuts=12,
            controls=RIVALS,
            training=1000,
            learned=20_000,
            adversarial=600,
            checked=40,
            surfaces=2,
        ),
    }
)
"""By name."""
