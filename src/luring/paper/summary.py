"""What the rows of one section say, in words: what was run, what the paper claims and whether it holds here."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from statistics import fmean
from typing import Any, Literal

from luring.paper import tables, words
from luring.paper.opposite import opposite
from luring.paper.tables import ACCURACY_TOLERANCE, TRANSFER_TOLERANCE, Line, Value
from luring.paper.words import RATES, number, signed
from luring.rows import Row, select

RIVALS = ("stack", "auto", "c_e")
"""What the paper compares Luring with."""


@dataclass(frozen=True)
class Finding:
    """One finding, and whether a claim of the paper holds ('measured' where the paper claims nothing).

    `claim` is one that other sections are checked against as well, `by` how far it holds in a few words, for the table of all.
    """

    verdict: Literal["holds", "holds in part", "does not hold", "measured"]
    text: str
    claim: str = ""
    by: str = ""


@dataclass(frozen=True)
class Figure:
    """An AC_M or DAC of Luring that the paper has too."""

    attack: str
    eps: float
    rate: str
    value: Value

    def __str__(self) -> str:
        """'DAC of MIM at ε 0.3 (0.93, paper 0.94)'."""
        where = f"{RATES[self.rate]} of {words.cell(self.attack, self.eps)}"
        return f"{where} ({number(self.value.mean)}, paper {number(self.value.paper)})"


@dataclass(frozen=True)
class Against:
    """Luring against the paper; figures that either lacks are left out.

    Attributes:
        figures: every AC_M and DAC that both have.
        ac_m: mean of AC_M less the paper's; `nan` where there is none.
        dac: the same of DAC.
        worst: the one furthest below the paper's, or least above it.
        misses: those below the paper's by more than `TRANSFER_TOLERANCE`.
    """

    figures: list[Figure]
    ac_m: float
    dac: float
    worst: Figure | None
    misses: list[Figure]


def against_paper(lines: Sequence[Line]) -> Against:
    """AC_M and DAC of Luring beside the paper's."""
    figures = [
        Figure(line.attack, line.eps, rate, line.cells["luring"][rate])
        for line in lines
        if "luring" in line.cells
        for rate in ("ac_m", "dac")
        if not isnan(line.cells["luring"][rate].difference)
    ]
    return Against(
        figures=figures,
        ac_m=_mean(figure.value.difference for figure in figures if figure.rate == "ac_m"),
        dac=_mean(figure.value.difference for figure in figures if figure.rate == "dac"),
        worst=min(figures, key=lambda figure: figure.value.difference, default=None),
        misses=[figure for figure in figures if figure.value.short],
    )


def ran(rows: Sequence[Row]) -> str:
    """What was run, in one sentence."""
    names = [words.architecture(name) for name in tables.present(rows, "architecture", words.ARCHITECTURES)]
    parts = [words.listing(names)]
    if accuracy := select(rows, kind="accuracy"):
        parts.append(f"test accuracy on {images(accuracy)}")
    if transfer := select(rows, kind="transfer") or select(rows, kind="detection"):
        attacks = [words.attack(name) for name in tables.present(transfer, "attack", words.ATTACKS)]
        radii = words.listing(f"{eps:g}" for eps in tables.numbers(transfer, "eps"))
        parts.append(f"{words.listing(attacks)} at ε {radii}, crafted on M∘P and shown to M, on {images(transfer)}")
    count = len({row["seed"] for row in rows})
    return f"{'; '.join(parts)}; {'one seed' if count == 1 else f'{count} seeds'}."


def images(rows: Iterable[Row]) -> str:
    """'1000 images', or '970 to 1000 images'."""
    counts = sorted({int(row["n"]) for row in rows})
    return f"{counts[0]:,} images" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,} images"


def findings(rows: Sequence[Row]) -> list[Finding]:
    """Each claim that the rows of one section can be checked against, with its exceptions."""
    papers = [row for row in rows if row.get("attack") in tables.PAPERS]
    further = [row for row in rows if row.get("attack") not in tables.PAPERS]
    # The paper claims the l0 distortion of MNIST alone: elsewhere it finds no difference.
    distorted = rows if rows[0]["dataset"] == "mnist" else []
    found = [
        _claim("DAC is higher with Luring than with C_E", tables.transfer, papers, ["dac"], ["c_e"]),
        _claim("DAC is higher with Luring than with every other architecture", tables.transfer, papers, ["dac"]),
        _claim("AC_M is higher with Luring than with every other architecture", tables.transfer, papers, ["ac_m"]),
        _near_paper(tables.transfer(papers), rows),
        _accuracy(rows),
        _opposite(rows),
        _claim("Where every M∘P is fooled, DR and Adq are highest with Luring", tables.effect, rows, ["dr", "adq"]),
        _claim("The median l0 distortion is highest with Luring", tables.distortion, distorted, ["median"]),
        _background(rows) if rows[0]["dataset"] not in ("svhn", "cifar10") else None,
        _claim(
            "Against attacks that the paper does not show, DAC is higher with Luring than with C_E",
            tables.transfer,
            further,
            ["dac"],
            ["c_e"],
        ),
        _claim("DAC is higher with Luring than with L'", tables.transfer, papers, ["dac"], ["luring_alt"]),
        _alarms(rows),
        _noticed(rows),
    ]
    return [finding for finding in found if finding is not None]


def verdicts(found: Sequence[Finding]) -> str:
    """'Of 7 claims checked against these rows, 5 hold, 1 holds in part and 1 does not hold.'."""
    counts = Counter(finding.verdict for finding in found)
    judged = sum(counts.values()) - counts["measured"]
    if not judged:
        return "The paper claims nothing that these rows can be checked against."
    parts = [
        f"{counts['holds']} {'holds' if counts['holds'] == 1 else 'hold'}",
        f"{counts['holds in part']} {'holds' if counts['holds in part'] == 1 else 'hold'} in part",
        f"{counts['does not hold']} {'does' if counts['does not hold'] == 1 else 'do'} not hold",
    ]
    return f"Of {judged} claims checked against these rows, {words.listing(part for part in parts if part[0] != '0')}."


@dataclass(frozen=True)
class Overview:
    """A claim and what each section says of it, by the section's place; a section that cannot be checked against it is missing."""

    claim: str
    verdicts: dict[int, Finding]


def overview(findings_of_all: Sequence[Sequence[Finding]]) -> list[Overview]:
    """Every claim that a section was checked against, in the order of the sections' findings."""
    claims: dict[str, dict[int, Finding]] = {}
    for place, found in enumerate(findings_of_all):
        for finding in found:
            if finding.claim:
                claims.setdefault(finding.claim, {})[place] = finding
    return [Overview(claim, verdicts) for claim, verdicts in claims.items()]


def _paired(rows: Sequence[Row], names: Collection[str]) -> list[Row]:
    """The rows of each cell of the seeds that all of these architectures that it has were run with: means over other seeds do not compare."""

    def cell(row: Row) -> tuple[Any, ...]:
        return row["kind"], row["attack"], row["eps"]

    named = [row for row in rows if row.get("architecture") in names and "attack" in row]
    seeds: dict[tuple[Any, ...], dict[str, set[int]]] = {}
    for row in named:
        seeds.setdefault(cell(row), {}).setdefault(row["architecture"], set()).add(row["seed"])
    shared = {where: set[int].intersection(*of.values()) for where, of in seeds.items()}
    return [row for row in named if row["seed"] in shared[cell(row)]]


def _claim(
    what: str,
    table: Callable[[Sequence[Row]], list[Line]],
    rows: Sequence[Row],
    rates: list[str],
    others: Sequence[str] = RIVALS,
) -> Finding | None:
    """A claim that Luring's figure is above the highest of the others', over every cell that has both, and the seeds that all of them have."""
    lines = table(_paired(rows, ("luring", *others)))
    lost: list[str] = []
    gains: list[tuple[float, str]] = []
    for line in lines:
        for rate in rates:
            means = {name: cell[rate].mean for name, cell in line.cells.items() if not isnan(cell[rate].mean)}
            rivals = [means[name] for name in others if name in means]
            if "luring" not in means or not rivals:
                continue
            where = (f"{RATES[rate]} of " if len(rates) > 1 else "") + words.cell(line.attack, line.eps)
            gains.append((round(means["luring"] - max(rivals), 9), where))
            if means["luring"] <= max(rivals):
                digits = 0 if rate == "median" else 2
                lost.append(f"{where} ({number(means['luring'], digits)} against {number(max(rivals), digits)})")
    if not gains:
        return None
    exceptions = f", not in {words.listing(lost)}" if lost else ""
    won, digits = len(gains) - len(lost), 0 if rates == ["median"] else 2
    least, where = min(gains)
    by = f"by {signed(_mean(gain for gain, _ in gains), digits)} on average and {_least(least, digits)} ({where})"
    text = f"{what} in {won} of {len(gains)} comparisons{exceptions}; {by}."
    return _judged(len(lost), len(gains), text, what, f"{won} of {len(gains)}, {by}")


def _least(gain: float, digits: int = 2) -> str:
    """The smallest of several gains, which may be a loss."""
    return f"{signed(gain, digits)} {'at worst' if gain < 0 else 'at least'}"


def _judged(lost: int, of: int, text: str, claim: str = "", by: str = "") -> Finding:
    """It holds in part while less than half is lost."""
    return Finding("holds" if not lost else "holds in part" if 2 * lost < of else "does not hold", text, claim, by)


def _beside(found: Finding, rows: Sequence[Row]) -> Finding:
    """Figures of other networks or images than the paper's are measured beside the paper's, not held against them."""
    caveat = tables.caveat(rows)
    return replace(found, verdict="measured", text=f"{found.text} {caveat}") if caveat else found


def _near_paper(lines: Sequence[Line], rows: Sequence[Row]) -> Finding | None:
    against = against_paper(lines)
    if against.worst is None:
        return None
    misses = words.listing(map(str, against.misses)) if against.misses else "none"
    near = len(against.figures) - len(against.misses)
    found = _judged(
        len(against.misses),
        len(against.figures),
        f"Luring's AC_M and DAC reach the paper's, or miss them by {TRANSFER_TOLERANCE:g} at most, in {near} of "
        f"{len(against.figures)} comparisons; on average AC_M differs by {signed(against.ac_m)} and DAC by "
        f"{signed(against.dac)}. The worst is {against.worst}. Below by more than {TRANSFER_TOLERANCE:g}: {misses}.",
        f"Luring's AC_M and DAC are the paper's, or miss them by {TRANSFER_TOLERANCE:g} at most",
        f"{near} of {len(against.figures)}, AC_M {signed(against.ac_m)} and DAC {signed(against.dac)} on average",
    )
    return _beside(found, rows)


def _opposite(rows: Sequence[Row]) -> Finding | None:
    """§4.2, which the paper counts on SVHN and CIFAR10."""
    found = next((line for line in opposite(rows) if line.architecture == "luring"), None)
    if found is None or isnan(found.highest.mean):
        return None

    def beside(value: Value) -> str:
        return number(value.mean) + ("" if isnan(value.paper) else f" (paper {number(value.paper)})")

    text = (
        f"Directions along which a class's logits of M and M∘P move against each other are most with Luring for {beside(found.highest)} of all images and "
        f"classes, and for {beside(found.without_stack)} without Stack."
    )
    if isnan(found.highest.paper):
        return Finding("measured", text)
    lost = sum(value.difference < 0 for value in (found.highest, found.without_stack))
    claim = "Luring has the most directions along which logits move against each other"
    return _beside(
        _judged(lost, 2, text, claim, f"{beside(found.highest)}, without Stack {beside(found.without_stack)}"), rows
    )


def _accuracy(rows: Sequence[Row]) -> Finding | None:
    lines = {line.architecture: line for line in tables.accuracy(rows)}
    luring = lines.get("luring")
    if luring is None:
        return None
    alone = f" (the target alone {number(lines['base'].test_accuracy.mean, 3)})" if "base" in lines else ""
    text = (
        f"With Luring, M∘P classifies {number(luring.test_accuracy.mean, 3)} of the test images correctly{alone}; "
        f"the two agree and are right on {number(luring.agreement.mean, 3)}."
    )
    if not isnan(luring.disagreement.mean):
        text += f" A guard by bare agreement would reject {number(luring.disagreement.mean, 3)} of the clean images."
    beside = {"test accuracy": luring.test_accuracy, "agreement": luring.agreement}
    beside = {name: value for name, value in beside.items() if not isnan(value.difference)}
    if not beside:
        return Finding("measured", text)
    differences = words.listing(f"{name} {signed(value.difference, 3)}" for name, value in beside.items())
    text += f" Against the paper, which they may miss by {ACCURACY_TOLERANCE:g}: {differences}."
    lost = sum(value.short for value in beside.values())
    claim = f"Test accuracy and agreement miss the paper's by {ACCURACY_TOLERANCE:g} at most"
    return _beside(_judged(lost, len(beside), text, claim, differences), rows)


def _background(rows: Sequence[Row]) -> Finding | None:
    """Figure 6, which the paper shows for Auto and Luring."""
    shares = {name: background(select(rows, kind="gradient", architecture=name)) for name in ("luring", "auto")}
    if any(isnan(share) for share in shares.values()):
        return None
    return _judged(
        0 if round(shares["luring"], 2) > round(shares["auto"], 2) else 1,  # at the digits shown
        1,
        f"Of P's gradient, a share of {number(shares['luring'])} lies on the background with Luring, "
        f"of {number(shares['auto'])} with Auto.",
        "P's gradient lies on the background more with Luring than with Auto",
        f"{number(shares['luring'])} against {number(shares['auto'])}",
    )


def _alarms(rows: Sequence[Row]) -> Finding | None:
    """What the guard rejects of clean images."""
    found = select(rows, kind="guard")
    if not found:
        return None
    row = found[-1]

    def rate(policy: str) -> str:
        share, low, high = row["false_alarms"][policy]
        return f"{number(share, 4)} (95 % interval {number(low, 4)} to {number(high, 4)})"

    by_class = [
        (share, name) for share, name in zip(row["by_class"]["score"], row["classes"], strict=True) if share is not None
    ]
    most, name = max(by_class)
    return Finding(
        "measured",
        f"Of {row['n']:,} clean test images the guard rejects {rate('score')} with the threshold {number(row['thresholds']['score'], 3)}, where "
        f"{row['settings']['fpr']:g} was wanted; bare agreement rejects {rate('agreement')}. Of those that M calls {name} it rejects most: "
        f"{number(most, 4)}.",
    )


def _noticed(rows: Sequence[Row]) -> Finding | None:
    """The score against bare agreement, and against M's confidence, at one false-alarm rate."""
    cells = [
        (cell, words.cell(line.attack, line.eps)) for line in tables.detection(rows) for cell in line.cells.values()
    ]
    if not cells:
        return None

    def against(rival: str) -> str:
        gains = [(round(cell["score_same"].mean - cell[rival].mean, 9), where) for cell, where in cells]
        least, where = min(gains)
        return f"by {signed(_mean(gain for gain, _ in gains))} on average and by {_least(least)} ({where})"

    count = f"{len(cells)} {'cell' if len(cells) == 1 else 'cells'}"
    return Finding(
        "measured",
        f"At agreement's false-alarm rate, over {count}, the score's DAC differs from bare agreement's {against('agreement')}; from that of M's "
        f"confidence alone, which needs no lure, {against('confidence')}.",
    )


def background(rows: Iterable[Row]) -> float:
    """Mean share of the gradient of P on the background over the images shown; `nan` where none has one."""
    return _mean(share for row in rows if not isnan(share := tables.as_number(row.get("background"))))


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return fmean(known) if known else nan
