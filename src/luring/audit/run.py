"""Run an audit: every rung on the guard and on its rivals, a row a cell; what is there already is not done again."""

import base64
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor

from luring import answers, rows
from luring.answers import Ask
from luring.attacks.balls import linf
from luring.audit import controls, decision, denial, knowing, sanity, suspicious, unaware
from luring.audit.budget import Budget
from luring.audit.defence import DETECTED, FOOLED, KEPT, Defence, remembering
from luring.audit.surrogates import independent, seen, stolen, transferred
from luring.audit.tables import worst
from luring.audit.tries import Crafted, Setting, Try
from luring.bundle import Bundle
from luring.data import Dataset
from luring.errors import InputError
from luring.paper.evaluate import own as experiment_of
from luring.paper.pictures import png
from luring.paper.run import Run
from luring.rows import Row
from luring.transfer import Clean

log = logging.getLogger("luring")

CURVE = (1, 2, 5, 10, 20, 50, 100, 200, 300, 500, 1000, 2000, 5000, 10_000)
"""Numbers of queries that a curve is stored at."""

OWN = 500
"""Validation images that an adversary who sees the decision has of his own."""


def audit(
    bundle: Bundle,
    folder: Path,
    dataset: Dataset,
    out: Path,
    budget: Budget,
    *,
    scale: str,
    eps: float,
    seed: int = 0,
    device: str = "cpu",
    show: bool = True,
) -> list[Row]:
    """Attack a bundle's guard and its rivals by everything on the ladder, or what is left of it.

    Args:
        bundle: that `luring.bundle.load` gave.
        folder: it was loaded from: its guard is taken where it has one.
        dataset: the one it was fitted to; its test part is attacked.
        out: folder for `rows.jsonl` and, under `models`, the networks of rivals and surrogates.
        budget: how much is spent.
        scale: what the rows call the budget.
        eps: radius of the l∞ ball, above 0.
        seed: of the choice of images, of the rivals' training and of the attacks.
        device: of the networks.
        show: say what is being done.

    Returns:
        All rows of this data set and budget.

    Raises:
        InputError: another data set, a radius out of range, a guard of other weights, or `out` holds the same cells with other settings.
    """
    if not 0 < eps <= 1:
        raise InputError(f"eps is {eps:g}: give a radius above 0, 1 at most, in units of images in [0, 1].")
    experiment = replace(experiment_of(bundle, dataset, (), (eps,), {}, budget.n), scale=scale)
    run = Run(experiment, out, seed, device, show)
    clean = drawn(dataset, budget.n, seed)
    setting = Setting(clean, eps, budget, seed)
    ladder = Ladder(run, setting, dataset, ask=remembering(show=show))
    guard = controls.audited(bundle, folder, dataset, ladder.ask, device)
    ladder.clean(guard)
    ladder.climb(guard)
    schedule = controls.schedule(budget.training)
    short = seen(dataset, schedule)
    trained = independent(short, run.kept, schedule, seed, show=show)
    held_out = dataset.validation.images[:1000]
    other = controls.own_lure(bundle, dataset, budget, run.kept, seed=seed, show=show)
    copied = stolen(guard, short, run.kept, schedule, ladder.ask, seed, show=show)
    ladder.tries(guard, transferred(guard, trained, copied, held_out, setting))
    ladder.tries(guard, suspicious.attempts(guard.surface, guard.answer, other, setting))
    ladder.denied(guard)
    ladder.checked(guard)
    rivals = replace(setting, budget=budget.beside)
    fpr = controls.rate(folder)
    for rival in controls.controls(
        bundle, dataset, budget, run.kept, ladder.ask, eps=eps, fpr=fpr, seed=seed, device=device, show=show
    ):
        beside = replace(ladder, setting=rivals)
        beside.clean(rival)
        beside.climb(rival)
        copied = stolen(rival, short, run.kept, schedule, ladder.ask, seed, show=show)
        beside.tries(rival, transferred(rival, trained, copied, held_out, rivals))
        if hasattr(rival.surface, "lure"):
            beside.tries(rival, suspicious.attempts(rival.surface, rival.answer, other, rivals))
        beside.denied(rival)
    return rows.select(run.rows, dataset=dataset.name, scale=scale)


def drawn(dataset: Dataset, n: int, seed: int) -> Clean:
    """Test images at random, whatever is answered to them: a mistake that is let through counts for the adversary."""
    images, labels = dataset.test.images, dataset.test.labels
    index = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:n]
    return Clean(answers.prepare(images[index], None).contiguous(), labels[index], index)


@dataclass(frozen=True, eq=False)
class Ladder:
    """How a rung's attacks become rows.

    Attributes:
        run: keeps them.
        setting: of the attacks.
        dataset: whose test part is attacked.
        made: examples by what they depend on, for defences that share them.
        ask: asks networks about clean images, which defences share, too.
    """

    run: Run
    setting: Setting
    dataset: Dataset
    made: dict[str, Crafted] = field(default_factory=dict[str, Crafted])
    ask: Ask = field(default_factory=remembering)

    @property
    def few(self) -> Setting:
        """The images and the budget of the sanity checks and of rung 7."""
        budget = self.setting.budget
        return replace(self.setting, clean=self.setting.clean.first(budget.checked), budget=budget.check)

    def climb(self, defence: Defence) -> None:
        """The rungs that need nothing trained: nothing at all, 1, 2, 5 and 6."""
        clean = self.setting.clean
        nothing = Try(0, "none", "nothing", {"choice": clean.digest}, lambda: Crafted(clean.images, clean))
        images, labels = (part[:OWN] for part in (self.dataset.validation.images, self.dataset.validation.labels))
        self.tries(defence, iter([nothing]))
        for rung in (
            unaware.white_box(defence, self.setting),
            unaware.black_box(defence, self.setting),
            knowing.m_alone(defence, self.setting),
            knowing.joint(defence, self.setting),
            decision.searches(defence, (images, labels), self.setting),
        ):
            self.tries(defence, rung)

    def tries(self, defence: Defence, attempts: Iterator[Try]) -> None:
        """A row for each attack."""
        for attempt in attempts:
            n = self.setting.budget.few if _by_queries(attempt) else len(self.setting.clean.labels)
            names = {
                "kind": "audit",
                "architecture": defence.name,
                "rung": attempt.rung,
                "attack": attempt.attack,
                "on": attempt.on,
                "eps": self.setting.eps,
                "n": min(n, len(self.setting.clean.labels)),
            }
            asked = {**attempt.settings, "defence": defence.weights()}
            before = len(self.run.rows)
            row = self.run.cell(names, asked, lambda attempt=attempt: self.outcome(defence, attempt))
            if self.run.show and len(self.run.rows) > before:
                told = ", ".join(f"{name} {found['fooled']:.2f}" for name, found in row["policies"].items())
                log.info(f"rung {attempt.rung}, {defence.name}, {attempt.attack} on {attempt.on}: fooled {told}")

    def outcome(self, defence: Defence, attempt: Try) -> dict[str, Any]:
        """The figures of a row."""
        # Two halves of a network may differ by what has no weights alone: what it is crafted on belongs to the name.
        key = rows.digest({"on": attempt.on, **attempt.settings})
        if key not in self.made:
            self.made[key] = attempt.craft()
        found, eps = self.made[key], self.setting.eps
        clean = found.clean
        fates = defence.fates(found.images, clean.labels)
        surface = (answers.labels(defence.surface, found.images).cpu() != clean.labels).long()
        figures: dict[str, Any] = {
            "policies": {name: _shares(fate) for name, fate in fates.items()},
            "fates": {name: _packed(fate) for name, fate in fates.items()},
            "surface": _packed(surface),
            "outside": _outside(clean.images, found.images, eps),
            "images": clean.digest,
            "example": self.example(defence, found, fates),
        }
        if found.queries is not None and found.fooled is not None:
            at = [count for count in CURVE if count <= self.setting.budget.queries]
            figures["curve"] = {
                "queries": at,
                "asked": [float((found.fooled & (found.queries <= count)).double().mean()) for count in at],
                **{
                    name: [float(((fate == FOOLED) & (found.queries <= count)).double().mean()) for count in at]
                    for name, fate in fates.items()
                },
            }
        return figures

    def example(self, defence: Defence, found: Crafted, fates: dict[str, Tensor]) -> dict[str, Any]:
        """One image: the first that fools the most severe policy, else the first that fools any, else the first."""
        fooled = [(fate == FOOLED).nonzero().flatten().tolist() for fate in reversed(fates.values())]
        place = next((places[0] for places in fooled if places), 0)
        x, made = found.clean.images[place], found.images[place]
        both = defence.logits(answers.prepare(made[None], defence.answer))
        return {
            "index": int(found.clean.index[place]),
            "label": int(found.clean.labels[place]),
            "answers": [int(logits.argmax()) for logits in both],
            "fates": {name: int(fate[place]) for name, fate in fates.items()},
            "images": {"x": png(x), "x_adv": png(made), "perturbation": png((made - x) / (2 * self.setting.eps) + 0.5)},
        }

    def clean(self, defence: Defence) -> None:
        """What a defence does with all clean test images."""
        test = self.dataset.test
        names = {"kind": "clean", "architecture": defence.name, "n": len(test.labels)}

        def compute() -> dict[str, Any]:
            m = self.ask(defence.answer, test.images)
            other = m if defence.other is None else self.ask(defence.other, test.images)
            fates = defence.decided(m, other, test.labels)
            accuracy = float((m.argmax(1).cpu() == test.labels).double().mean())
            return {
                "accuracy": accuracy,
                "policies": {name: _shares(fate) for name, fate in fates.items()},
                "rejected": {name: _interval(fate == DETECTED) for name, fate in fates.items()},
                "classes": list(self.dataset.classes),
            }

        self.run.cell(names, {**defence.weights(), "budget": _spent(self.setting.budget)}, compute)

    def denied(self, defence: Defence) -> None:
        """Rung 7, a row a policy that can refuse."""
        for name, policy in defence.policies.items():
            if name == "target":
                continue
            names = {"kind": "denial", "architecture": defence.name, "rung": 7, "on": name, "eps": self.setting.eps}
            settings = {
                "steps": self.few.budget.steps,
                "choice": self.few.clean.digest,
                "halvings": denial.HALVINGS,
                "bisections": denial.BISECTIONS,
                **defence.weights(),
            }
            self.run.cell(names, settings, lambda policy=policy: denial.smallest(defence, policy, self.few))

    def checked(self, defence: Defence) -> None:
        """Rung 8: the checks that attack anew, those of the rows, and the loss surfaces."""
        few = self.few
        shared = {"architecture": defence.name, "eps": self.setting.eps, "rung": 8}
        settings = {**defence.weights(), "choice": few.clean.digest, "budget": _spent(few.budget)}
        self.run.cell(
            {"kind": "sanity", "check": "attacked", "n": len(few.clean.labels), **shared},
            settings,
            lambda: {"checks": [asdict(check) for check in sanity.measured(defence, few)]},
        )
        mine = rows.select(
            self.run.rows, kind="audit", architecture=defence.name, eps=self.setting.eps, seed=self.run.seed,
            dataset=self.run.experiment.dataset, scale=self.run.experiment.scale,
        )  # fmt: skip
        self.run.cell(
            {"kind": "sanity", "check": "compared", "n": len(self.setting.clean.labels), **shared},
            {"cells": [row["asked"] for row in mine]},
            lambda: {"checks": [asdict(check) for check in compared(defence, mine)]},
        )
        self.run.cell(
            {"kind": "landscape", "n": few.budget.surfaces, **shared},
            settings,
            lambda: {"surfaces": sanity.surfaces(defence, few)},
        )


def compared(defence: Defence, mine: Sequence[Row]) -> list[sanity.Check]:
    """The checks of what the rows of one defence say of each other."""
    found = [sanity.inside(max(row["outside"] for row in mine))]
    white, black = (worst(mine, (rung,), "surface") for rung in (1, 2))
    n = min(len(white), len(black))
    shares = float((white[:n] > 0).mean()), float((black[:n] > 0).mean())
    found.append(sanity.ahead(defence.shown, *shares, n, by=("rung 1", "rung 2")))
    for name in defence.policies:
        knows = worst(mine, (5,), name)
        for rungs, told in (((1, 2, 3, 4), "rungs 1 to 4"), ((6,), "rung 6")):
            others = worst(mine, rungs, name)
            n = min(len(knows), len(others))
            shares = float((knows[:n] == FOOLED).mean()), float((others[:n] == FOOLED).mean())
            found.append(sanity.ahead(name, *shares, n, by=("rung 5", told)))
    return found


def _spent(budget: Budget) -> dict[str, Any]:
    """A budget as settings hold it: which rivals there are changes nothing of each, so that one can be added later."""
    return {name: value for name, value in asdict(budget).items() if name != "controls"}


def _by_queries(attempt: Try) -> bool:
    return attempt.rung in (2, 6) or attempt.attack == "square"


def _outside(clean: Tensor, made: Tensor, eps: float) -> float:
    """By how much any value lies outside the ball or [0, 1]."""
    return float((linf(clean, eps).project(made) - made).abs().max()) if len(made) else 0.0


def _packed(values: Tensor) -> str:
    return base64.b64encode(values.numpy().astype("u1").tobytes()).decode()


def _shares(fates: Tensor) -> dict[str, float]:
    kinds = {"kept": KEPT, "detected": DETECTED, "fooled": FOOLED}
    return {name: float((fates == kind).double().mean()) for name, kind in kinds.items()}


def _interval(hits: Tensor) -> list[float]:
    """A share, and the ends of its 95 % interval (Clopper and Pearson 1934)."""
    found = binomtest(int(hits.sum()), len(hits))
    ends = found.proportion_ci(method="exact")
    return [float(found.statistic), float(ends.low), float(ends.high)]
