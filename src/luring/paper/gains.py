"""Recipes against the paper's, seed by seed, from rows alone: what one adds is a mean over the seeds that both have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from statistics import fmean

from luring.paper import tables, words
from luring.paper.printed import as_table
from luring.paper.tables import Value, over_seeds
from luring.paper.words import number, signed
from luring.rows import Row, select

PAPERS = "luring"
"""What rows call the architecture of the paper's recipe."""

NOTE = (
    "Each is compared with the paper's recipe on its own seeds. Under M: points of accuracy that M∘P is below M, and that of the paper's recipe is. M∘P ≠ M: as a "
    "part of the paper recipe's. The others: what DAC and AC_M gain on the paper's recipe, as means over the cells of Table 2, under DIM-TI at the largest ε, and "
    "under all attacks together; cells: in how many of all DAC is higher, and what it gains in the one where that is least."
)
"""What the columns mean."""


@dataclass(frozen=True)
class Gains:
    """A recipe against the paper's, over the seeds that both have; `nan` where either lacks a figure.

    Attributes:
        under: points of accuracy that its M∘P is below M.
        papers: the same of the paper's recipe.
        refused: share of the clean images that M and M∘P answer differently, of the paper recipe's.
        dac: gain of DAC, the mean over the cells of Table 2.
        ac_m: the same of AC_M.
        hardest: gain of DAC under DIM-TI at the largest eps.
        together: gain of DAC under all attacks, by eps.
        cells: gain of DAC by attack and eps.
    """

    under: Value
    papers: Value
    refused: Value
    dac: Value
    ac_m: Value
    hardest: Value
    together: Mapping[float, Value]
    cells: Mapping[tuple[str, float], Value]


def gains(rows: Sequence[Row], recipe: str) -> Gains:
    """What the rows of one section say of a recipe beside the paper's."""
    both = sorted(_seeds(rows, recipe) & _seeds(rows, PAPERS))
    found = [{"seed": seed, **_of_seed(select(rows, seed=seed), recipe)} for seed in both]

    def value(name: object) -> Value:
        return over_seeds([{"seed": one["seed"], "value": one.get(name)} for one in found], "value")

    keys = {key for one in found for key in one if isinstance(key, tuple)}
    cells = {key: value(key) for key in sorted(keys)}
    plain = (value(name) for name in ("under", "papers", "refused", "dac", "ac_m"))
    radii = sorted({eps for _, eps in cells})
    return Gains(
        *plain,
        hardest=value(("dim-ti", max(radii, default=nan))),
        together={eps: value((tables.WORST, eps)) for eps in radii},
        cells={key: gain for key, gain in cells.items() if key[0] != tables.WORST},
    )


def markdown(rows: Sequence[Row]) -> str:
    """The recipes of one section against the paper's as a table; nothing where there is none beside it."""
    names = [name for name in tables.architectures(tables.transfer(rows)) if name != PAPERS]
    compared = {name: one for name in names if (one := gains(rows, name)).cells}
    if not compared:
        return ""
    radii = tables.numbers(select(rows, kind="transfer"), "eps")
    head = ["Recipe", "Seeds", "Under M", "Paper's", "M∘P ≠ M", "DAC", "AC_M", "DIM-TI"]
    head += [*(f"All, ε {eps:g}" for eps in radii), "Cells"]
    return f"{as_table(head, [_line(name, one, radii) for name, one in compared.items()], names=1)}\n\n{NOTE}"


def _line(name: str, one: Gains, radii: Sequence[float]) -> list[str]:
    least = min(gain.mean for gain in one.cells.values())
    above = sum(gain.mean > 0 for gain in one.cells.values())
    together = [_signed(one.together[eps]) if eps in one.together else words.MISSING for eps in radii]
    return [
        words.architecture(name),
        str(one.under.seeds),
        one.under.text(1),
        one.papers.text(1),
        one.refused.text(),
        *map(_signed, (one.dac, one.ac_m, one.hardest)),
        *together,
        f"{above} of {len(one.cells)}, {signed(least)}",
    ]


def _signed(value: Value) -> str:
    """'+0.34', or '+0.34 ± 0.02' over several seeds."""
    return signed(value.mean) + ("" if isnan(value.spread) else f" ± {number(value.spread)}")


def _seeds(rows: Sequence[Row], name: str) -> set[int]:
    return {row["seed"] for row in select(rows, kind="transfer", architecture=name)}


def _of_seed(rows: Sequence[Row], recipe: str) -> dict[object, float]:
    """The figures of one seed."""
    accuracy = {line.architecture: line for line in tables.accuracy(rows)}
    base, own, papers = (accuracy[name] for name in ("base", recipe, PAPERS))
    lines = [
        line for line in [*tables.transfer(rows), *tables.worst(rows)] if recipe in line.cells and PAPERS in line.cells
    ]

    def gain(line: tables.Line, rate: str) -> float:
        return line.cells[recipe][rate].mean - line.cells[PAPERS][rate].mean

    of_table = [line for line in lines if line.attack in tables.TABLE_2]
    means = {rate: fmean(gain(line, rate) for line in of_table) if of_table else nan for rate in ("dac", "ac_m")}
    differ = papers.disagreement.mean
    return {
        "under": 100 * (base.test_accuracy.mean - own.test_accuracy.mean),
        "papers": 100 * (base.test_accuracy.mean - papers.test_accuracy.mean),
        "refused": own.disagreement.mean / differ if differ else nan,
        **means,
        **{(line.attack, line.eps): gain(line, "dac") for line in lines},
    }
