"""From rows to tables, as plain data; `printed` shows them in a terminal and in Markdown, `report` on a page."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, isnan, nan
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luring.paper import published, words
from luring.rows import Row, labels, select

ACCURACY_TOLERANCE = 0.01
"""A figure of Table 1 further than this below the paper's is marked."""
TRANSFER_TOLERANCE = 0.05
"""An AC_M or DAC further than this below the paper's is marked."""

WORST, WORST_PAPER = "worst", "worst-paper"
"""Stand for all attacks together, and for the paper's, where a line has an attack's name."""

PAPERS = ("fgsm", "pgd", "mim", "miml2", "dim", "mim-ti", "dim-ti")
"""The paper's attacks whose transfers are shown; the others stand behind them."""

TABLE_2 = ("fgsm", "mim", "dim", "mim-ti", "dim-ti")
"""Attacks of the paper's Tables 2 to 4."""

FIVE = ("minimum", "lower quartile", "median", "upper quartile", "maximum")
"""What the five numbers of `l0` are."""


@dataclass(frozen=True)
class Value:
    """A figure taken over seeds, and the paper's.

    Attributes:
        mean: over the seeds that have the figure; `nan` where none has.
        spread: sample standard deviation over them; `nan` below two.
        seeds: how many have it.
        paper: the paper's figure; `nan` where it has none.
        tolerance: how far below the paper's is near enough; `nan` where lower is not worse.
    """

    mean: float
    spread: float
    seeds: int
    paper: float = nan
    tolerance: float = nan

    @property
    def difference(self) -> float:
        """Ours less the paper's, rounded where floats end: 0.35 is not more than 0.05 below 0.4."""
        return round(self.mean - self.paper, 9)

    @property
    def short(self) -> bool:
        """Whether it is below the paper's by more than the tolerance."""
        return self.difference < -self.tolerance

    def text(self, digits: int = 2) -> str:
        """'0.93', or '0.93 ± 0.01' over several seeds."""
        shown = words.number(self.mean, digits)
        return shown if isnan(self.spread) else f"{shown} ± {words.number(self.spread, digits)}"


@dataclass(frozen=True)
class AccuracyLine:
    """A line of Table 1."""

    architecture: str
    test_accuracy: Value
    agreement: Value
    disagreement: Value


@dataclass(frozen=True)
class Line:
    """The figures of one attack and ε, by architecture and by the name of the figure.

    `best` names the architectures with the highest DAC at the digits shown; none where there is nothing to compare.
    """

    attack: str
    eps: float
    cells: dict[str, dict[str, Value]]
    best: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Steps:
    """One number of steps of a cell, and on how many images: `own` where it is that of the cell itself."""

    architecture: str
    steps: int
    own: bool
    n: int
    rates: dict[str, Value]


def sections(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows of each data set and scale, in the order in which they first appear."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["dataset"], row["scale"]), []).append(row)
    return list(found.values())


def name(rows: Sequence[Row]) -> str:
    """What a section is called: data set, how much of it, scale."""
    row = next((row for row in rows if row.get("source")), rows[0])
    return words.section(row["dataset"], row["scale"], row.get("source"))


def caveat(rows: Sequence[Row]) -> str:
    """What has to be said wherever the figures of a section stand beside the paper's; nothing where they may."""
    dataset, scale = rows[0]["dataset"], rows[0]["scale"]
    if dataset not in words.COMPLETE or scale == "custom":
        return ""
    said = [] if scale == "paper" else ["Networks narrower than the paper's, fitted more briefly"]
    whole = words.section(dataset, scale)
    said += (
        []
        if name(rows) == whole
        else [f"{name(rows).removesuffix(whole[whole.rindex(',') :])}, of the data set's images"]
    )
    return f"{'; '.join(said)}: the paper's figures stand beside for orientation, not for comparison." if said else ""


def over_seeds(rows: Iterable[Row], field: str, paper: float = nan, tolerance: float = nan) -> Value:
    """Mean and spread of one figure; of two rows with the same seed the later one stands."""
    by_seed = {row["seed"]: as_number(row.get(field)) for row in rows}
    values = [value for value in by_seed.values() if isfinite(value)]
    return Value(
        mean=fmean(values) if values else nan,
        spread=stdev(values) if len(values) > 1 else nan,
        seeds=len(values),
        paper=paper,
        tolerance=tolerance,
    )


def as_number(value: Any) -> float:
    """A figure of a row: null is `nan`."""
    return nan if value is None else float(value)


def present(rows: Iterable[Row], field: str, order: Iterable[str]) -> list[str]:
    """The names in a field: those of `order` first, others after them, sorted."""
    names: set[str] = {row[field] for row in rows if field in row}
    known = [name for name in order if name in names]
    return known + sorted(names.difference(known))


def numbers(rows: Iterable[Row], field: str) -> list[float]:
    """The numbers in a field, sorted."""
    return sorted({float(row[field]) for row in rows if field in row})


def accuracy(rows: Sequence[Row]) -> list[AccuracyLine]:
    """Table 1 from the rows of one section."""
    measured = select(rows, kind="accuracy")
    lines: list[AccuracyLine] = []
    for name in present(measured, "architecture", words.ARCHITECTURES):
        cell = select(measured, architecture=name)
        paper = (published.table1(cell[0]["dataset"], name) if compared(cell[0]) else None) or {}
        lines.append(
            AccuracyLine(
                name,
                over_seeds(cell, "test_accuracy", paper.get("test_accuracy", nan), ACCURACY_TOLERANCE),
                over_seeds(cell, "agreement", paper.get("agreement", nan), ACCURACY_TOLERANCE),
                over_seeds(cell, "disagreement"),
            )
        )
    return lines


def transfer(rows: Sequence[Row]) -> list[Line]:
    """Tables 2 to 4 from the rows of one section: `ac_mop`, `ac_m`, `dac`."""
    lines: list[Line] = []
    for attack, eps, cells in _cells(select(rows, kind="transfer")):
        values = {name: _transfer(cell) for name, cell in cells.items()}
        lines.append(Line(attack, eps, values, _best(values)))
    return lines


def worst(rows: Sequence[Row]) -> list[Line]:
    """What is left, at each ε, by an adversary who has all attacks of the tables and for whom one that succeeds is enough, image by image.

    `ac_mop` and `ac_m`: M∘P, and M, is right on every attack's example; `dac`: each is noticed, or M is right on it. Only where every
    attack was run, and there are two or more; over the images that every attack was run on.
    """
    return _together(select(rows, kind="transfer"), WORST)


def attacked(rows: Sequence[Row]) -> list[Line]:
    """All lines of Tables 2 to 4: the paper's attacks and their worst case, then further attacks and the worst case over all."""
    measured = select(rows, kind="transfer")
    papers = [row for row in measured if row["attack"] in PAPERS]
    more = [row for row in measured if row["attack"] not in PAPERS]
    lines = transfer(papers)
    if papers and more:
        lines += _together(papers, WORST_PAPER)
    return [*lines, *transfer(more), *_together(measured, WORST)]


def _together(rows: Sequence[Row], called: str) -> list[Line]:
    measured = [row for row in rows if row.get("labels")]
    lines: list[Line] = []
    for eps in numbers(measured, "eps"):
        at = select(measured, eps=eps)
        attacks = {row["attack"] for row in at}
        cells: dict[str, dict[str, Value]] = {}
        for name in present(at, "architecture", words.ARCHITECTURES):
            by_seed: dict[int, dict[str, Row]] = {}
            for row in select(at, architecture=name):
                by_seed.setdefault(row["seed"], {})[row["attack"]] = row
            full = [_worst(found.values()) for found in by_seed.values() if found.keys() == attacks]
            if len(attacks) > 1 and full:
                cells[name] = {rate: over_seeds(full, rate) for rate in ("ac_mop", "ac_m", "dac")}
        if cells:
            lines.append(Line(called, eps, cells, _best(cells)))
    return lines


def _worst(attacked: Collection[Row]) -> Row:
    """One row in place of several of the same images, or of their first ones."""
    count = min(row["n"] for row in attacked)
    m_right, mop_right, noticed = (
        np.logical_and.reduce([hits[:count] for hits in of_each])
        for of_each in zip(*map(_right, attacked), strict=True)
    )
    return {
        "seed": next(iter(attacked))["seed"],
        "ac_mop": mop_right.mean(),
        "ac_m": m_right.mean(),
        "dac": noticed.mean(),
    }


def _right(row: Row) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each image: whether M is right, whether M∘P is, and whether M is or they disagree."""
    y, m, mop = labels(row)
    return m == y, mop == y, (m == y) | (m != mop)


def effect(rows: Sequence[Row]) -> list[Line]:
    """Figure 4: `dr` and `adq`, over the examples that fool every M∘P."""
    return [
        Line(
            attack,
            eps,
            {name: {rate: over_seeds(cell, rate) for rate in ("dr", "adq")} for name, cell in cells.items()},
        )
        for attack, eps, cells in _cells(select(rows, kind="effect"))
    ]


GUARDED = ("ac_m", "agreement", "confidence", "score_same", "score", "auc")
"""Figures of a guard's lines: AC_M; DAC by bare agreement, by M's confidence and by the score at agreement's false-alarm rate, by the score at
the wanted one; AUC."""


def detection(rows: Sequence[Row]) -> list[Line]:
    """What a calibrated guard notices: `GUARDED`, for each attack and ε."""
    measured = [{**row, **row["dac"]} for row in select(rows, kind="detection")]
    return [
        Line(
            attack,
            eps,
            {name: {figure: over_seeds(cell, figure) for figure in GUARDED} for name, cell in cells.items()},
        )
        for attack, eps, cells in _cells(measured)
    ]


def distortion(rows: Sequence[Row]) -> list[Line]:
    """Figure 5: the five numbers of the l0 distortion of PGD's examples, of MIM's where PGD was not run."""
    measured = [
        {**row, **dict(zip(FIVE, row["l0"], strict=True))} for row in select(rows, kind="transfer") if row.get("l0")
    ]
    drawn = select(measured, attack="pgd") or select(measured, attack="mim")
    return [
        Line(attack, eps, {name: {five: over_seeds(cell, five) for five in FIVE} for name, cell in cells.items()})
        for attack, eps, cells in _cells(drawn)
    ]


def convergence(rows: Sequence[Row]) -> list[tuple[str, float, list[Steps]]]:
    """For each attack and ε computed again with other numbers of steps: every number, the cell's own among them, on the same images where it was run on them."""
    found: list[tuple[str, float, list[Steps]]] = []
    for attack, eps, cells in _cells(select(rows, kind="convergence")):
        lines: list[Steps] = []
        for name, others in cells.items():
            own = select(rows, kind="transfer", attack=attack, eps=eps, architecture=name)
            both = [{**row, "steps": row["settings"]["steps"]} for row in [*others, *own] if "steps" in row["settings"]]
            for steps in numbers(both, "steps"):
                at = select(both, steps=steps)
                same = select(at, kind="convergence") or at
                rates = {rate: over_seeds(same, rate) for rate in ("ac_mop", "ac_m", "dac")}
                of_cell = any(row["kind"] == "transfer" for row in at)
                lines.append(Steps(name, int(steps), of_cell, same[-1]["n"], rates))
        found.append((attack, eps, lines))
    return found


def _cells(rows: Sequence[Row]) -> list[tuple[str, float, dict[str, list[Row]]]]:
    """The rows of each attack and ε, by architecture."""
    found: list[tuple[str, float, dict[str, list[Row]]]] = []
    for attack in present(rows, "attack", words.ATTACKS):
        of_attack = select(rows, attack=attack)
        for eps in numbers(of_attack, "eps"):
            at = select(of_attack, eps=eps)
            names = present(at, "architecture", words.ARCHITECTURES)
            found.append((attack, eps, {name: select(at, architecture=name) for name in names}))
    return found


def _transfer(rows: list[Row]) -> dict[str, Value]:
    row = rows[0]
    where = row["dataset"], row["attack"], float(row["eps"]), row["architecture"]
    paper = (published.transfer(*where) if compared(row) else None) or {}
    # A lower AC_MoP says that the attack is stronger, not that the defence is weaker: it is never marked.
    return {
        "ac_mop": over_seeds(rows, "ac_mop", paper.get("ac_mop", nan)),
        "ac_m": over_seeds(rows, "ac_m", paper.get("ac_m", nan), TRANSFER_TOLERANCE),
        "dac": over_seeds(rows, "dac", paper.get("dac", nan), TRANSFER_TOLERANCE),
    }


def compared(row: Row) -> bool:
    """Whether the paper's figures belong beside it: `luring evaluate` measures networks that are not the paper's."""
    return row["scale"] != "custom"


def _best(cells: dict[str, dict[str, Value]]) -> frozenset[str]:
    shown = {name: words.number(cell["dac"].mean) for name, cell in cells.items() if not isnan(cell["dac"].mean)}
    if len(shown) < 2:
        return frozenset()
    highest = max(shown.values(), key=float)
    return frozenset(name for name, value in shown.items() if value == highest)


def values(lines: Sequence[AccuracyLine] | Sequence[Line]) -> list[Value]:
    """Every figure of a table that stands beside the paper's, where the paper has it."""
    found: list[Value] = []
    for line in lines:
        if isinstance(line, AccuracyLine):
            found += [line.test_accuracy, line.agreement]
        else:
            found += [value for cell in line.cells.values() for value in cell.values()]
    return found


def has_paper(lines: Sequence[AccuracyLine] | Sequence[Line]) -> bool:
    """Whether the paper has any of these figures."""
    return any(not isnan(value.paper) for value in values(lines))


def architectures(lines: Iterable[Line]) -> list[str]:
    """The columns of a table."""
    return present(
        ({"architecture": name} for line in lines for name in line.cells), "architecture", words.ARCHITECTURES
    )


def seeds(lines: Sequence[AccuracyLine] | Sequence[Line]) -> str:
    """How many seeds the figures are over, and what ± means where it stands."""
    counts = {value.seeds for value in values(lines) if value.seeds} or {0}
    low, high = min(counts), max(counts)
    if high <= 1:
        return "One seed."
    return f"Mean ± standard deviation over {high if low == high else f'{low} to {high}'} seeds."
