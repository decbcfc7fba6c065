"""From the rows of an audit to what is shown, as plain data."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from luring.audit.budget import ADVERSARIAL, ADVERSARIAL_LURE, AUTOENCODER, BASE, C_E, TRAPDOOR, TWIN
from luring.paper.tables import Value, as_number, over_seeds
from luring.rows import Row, select

KINDS = ("audit", "clean", "denial", "sanity", "landscape")
"""Kinds of an audit's rows."""

RUNGS = (1, 2, 3, 4, 5, 6)
"""Of the ladder, those whose adversary wants a wrong answer."""

CONTROLS = (BASE, TWIN, C_E, AUTOENCODER, TRAPDOOR, ADVERSARIAL, ADVERSARIAL_LURE)

REJECTED, LOST = 0.05, 0.1
"""Shares of clean images that a rival may reject, and may answer wrongly beyond the audited one's: a constant is fooled by nothing new."""

KEPT, DETECTED, FOOLED = 0, 1, 2
"""As `luring.audit.defence` has them."""


@dataclass(frozen=True)
class Outcome:
    """What an adversary leaves of a defence: shares of the images, over seeds.

    Attributes:
        kept: answered rightly, and let out.
        detected: not let out.
        fooled: answered wrongly, and let out.
        low: lower end of the 95 % interval of `fooled` (Clopper and Pearson 1934), over all seeds' images.
        high: its upper end.
        n: images, of one seed.
    """

    kept: Value
    detected: Value
    fooled: Value
    low: float
    high: float
    n: int

    @property
    def error(self) -> float:
        """Standard error of `fooled`, over all seeds' images, with one image of either kind more."""
        n = self.n * max(1, self.fooled.seeds)
        share = (self.fooled.mean * n + 1) / (n + 2)
        return sqrt(share * (1 - share) / n)


@dataclass(frozen=True)
class Guarded:
    """A defence under one policy.

    Attributes:
        architecture: its name.
        policy: that decides.
        accuracy: of the classifier that answers, on all clean test images.
        rejected: share of them that is not let out.
        rungs: what each rung's adversary leaves, worst case over his attacks, image by image; rungs that were not run are missing.
    """

    architecture: str
    policy: str
    accuracy: Value
    rejected: Value
    rungs: dict[int, Outcome]


def is_audit(row: Row) -> bool:
    """Whether a row is an audit's."""
    return row["kind"] in KINDS


def sections(rows: Iterable[Row]) -> list[list[Row]]:
    """The audit's rows of each data set, budget and radius; those without a radius belong to all of theirs."""
    rows = [row for row in rows if is_audit(row)]
    found: dict[tuple[str, str, float], list[Row]] = {}
    for row in rows:
        if "eps" in row:
            found.setdefault((row["dataset"], row["scale"], float(row["eps"])), []).append(row)
    for (dataset, scale, _), part in found.items():
        part.extend(row for row in rows if "eps" not in row and (row["dataset"], row["scale"]) == (dataset, scale))
    return list(found.values())


def architectures(rows: Sequence[Row]) -> list[str]:
    """The audited defence, then its rivals."""
    names = list(dict.fromkeys(row["architecture"] for row in rows))
    audited = next((row["architecture"] for row in rows if row["kind"] == "sanity"), names[0])
    others = [name for name in CONTROLS if name in names and name != audited]
    return [audited, *others]


def guarded(rows: Sequence[Row]) -> list[Guarded]:
    """Every defence and policy of a section; of the audited one its own policy first."""
    found: list[Guarded] = []
    for place, name in enumerate(architectures(rows)):
        clean = select(rows, kind="clean", architecture=name)
        attacked = select(rows, kind="audit", architecture=name)
        policies = list(clean[0]["policies"]) if clean else []
        # The guard's own policy is the last that its rows name.
        for policy in reversed(policies) if place == 0 else policies:
            rejected = [{**row, "share": row["rejected"][policy][0]} for row in clean]
            outcomes = {rung: outcome(attacked, (rung,), policy) for rung in (0, *RUNGS)}
            found.append(
                Guarded(
                    name,
                    policy,
                    over_seeds(clean, "accuracy"),
                    over_seeds(rejected, "share"),
                    {rung: one for rung, one in outcomes.items() if one is not None},
                )
            )
    return found


def usable(found: Sequence[Guarded]) -> list[Guarded]:
    """Of `guarded`, those that are good enough on clean images to be compared with: within `REJECTED` and `LOST`."""
    least = found[0].accuracy.mean - LOST
    return [one for one in found if one.rejected.mean <= REJECTED and one.accuracy.mean >= least]


def dearer(found: Sequence[Guarded]) -> list[Guarded]:
    """Of `guarded`, those that refuse few clean images, but answer rightly on so many fewer than the guard that they are not `usable`."""
    good = usable(found)
    return [one for one in found if one.rejected.mean <= REJECTED and one not in good]


def rivals(found: Sequence[Guarded]) -> list[Guarded]:
    """Of `guarded`, those that the guard is compared with.

    They are other defences' policies that refuse answers, and M adversarially trained; all of them usable.
    """
    others = [one for one in usable(found) if one.architecture != found[0].architecture]
    return [one for one in others if one.architecture == ADVERSARIAL or one.policy != "target"]


def outcome(rows: Sequence[Row], rungs: Sequence[int], policy: str) -> Outcome | None:
    """The worst case over the attacks of some rungs, image by image, of each seed; the unchanged image is always among what is tried."""
    tried = [row for row in rows if row["rung"] in rungs and policy in row["fates"]]
    shares: list[dict[str, Any]] = []
    n, asked, fooled = 0, 0, 0
    for seed in sorted({row["seed"] for row in tried}):
        mine = [row for row in rows if row["seed"] == seed]
        fates = worst(mine, rungs, policy)
        unchanged = worst(mine, (0,), policy)[: len(fates)]
        fates[: len(unchanged)] = np.maximum(fates[: len(unchanged)], unchanged)
        n, asked, fooled = len(fates), asked + len(fates), fooled + int((fates == FOOLED).sum())
        kinds = {"kept": KEPT, "detected": DETECTED, "fooled": FOOLED}
        shares.append({"seed": seed, **{name: float((fates == kind).mean()) for name, kind in kinds.items()}})
    if not shares:
        return None
    ends = binomtest(fooled, asked).proportion_ci(method="exact")
    values = (over_seeds(shares, name) for name in ("kept", "detected", "fooled"))
    return Outcome(*values, low=float(ends.low), high=float(ends.high), n=n)


def worst(rows: Sequence[Row], rungs: Sequence[int], name: str) -> NDArray[np.uint8]:
    """Image by image the worst that any attack of some rungs did to a policy, or to the `surface`.

    An attack by queries is run on the first images alone; where a rung has others, too, the rest is theirs.
    """
    tried = [row for row in rows if row["rung"] in rungs]
    parts = [
        np.frombuffer(base64.b64decode(row["surface"] if name == "surface" else row["fates"][name]), np.uint8)
        for row in tried
    ]
    result = np.zeros(max(map(len, parts), default=0), np.uint8)
    for part in parts:
        result[: len(part)] = np.maximum(result[: len(part)], part)
    return result


def checks(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every sanity check of a section, those that failed first."""
    found = [{**check, "seed": row["seed"]} for row in select(rows, kind="sanity") for check in row["checks"]]
    return sorted(found, key=lambda check: bool(check["passed"]))


@dataclass(frozen=True)
class Denied:
    """How far clean images have to be moved to be rejected, over seeds: quartiles, and the share within the audit's radius."""

    architecture: str
    policy: str
    rejected: Value
    quartiles: tuple[Value, ...]


def denials(rows: Sequence[Row]) -> list[Denied]:
    """Rung 7."""
    found: list[Denied] = []
    for name in architectures(rows):
        for policy in dict.fromkeys(row["on"] for row in select(rows, kind="denial", architecture=name)):
            mine = select(rows, kind="denial", architecture=name, on=policy)
            parts = [over_seeds([{**row, "at": row["distances"][place]} for row in mine], "at") for place in range(3)]
            # Where one seed has none, a mean of the others would say too little.
            whole = tuple(
                part if part.seeds == len({row["seed"] for row in mine}) else Value(nan, nan, 0) for part in parts
            )
            found.append(Denied(name, policy, over_seeds(mine, "rejected"), whole))
    return found


@dataclass(frozen=True)
class Curve:
    """Share fooled against queries, over seeds."""

    attack: str
    queries: list[int]
    shares: list[float]


def curves(rows: Sequence[Row], architecture: str, rung: int, on: str, name: str) -> list[Curve]:
    """Of each attack by queries of one rung: `name` is a policy, or `asked` for what was queried itself."""
    mine = [row for row in select(rows, kind="audit", architecture=architecture, rung=rung, on=on) if "curve" in row]
    found: list[Curve] = []
    for attack in dict.fromkeys(row["attack"] for row in mine):
        of = [row["curve"] for row in select(mine, attack=attack)]
        if name in of[0]:
            shares = np.mean([[as_number(share) for share in curve[name]] for curve in of], 0)
            found.append(Curve(attack, list(of[0]["queries"]), [float(share) for share in shares]))
    return found


def better(one: Outcome, other: Outcome) -> bool | None:
    """Whether the first lets less through than the second, by more than twice the standard error; None where the images do not tell."""
    difference = other.fooled.mean - one.fooled.mean
    error = sqrt(one.error**2 + other.error**2)
    if isnan(difference) or abs(difference) <= 2 * error:
        return None
    return difference > 0
