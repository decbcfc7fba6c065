"""Trials of recipes as one line each, and beside the paper's recipe, from rows alone."""

from collections.abc import Sequence
from statistics import fmean

from luring.paper import gains, tables, words
from luring.paper.printed import as_table
from luring.paper.words import number
from luring.rows import Row

HEAD = (
    "Recipe",
    "Test accuracy",
    "M∘P ≠ M",
    "AC_M, mean",
    "DAC, mean",
    "DAC, DIM-TI",
    "DAC, worst",
    "AC_M∘P, strongest",
)

NOTE = (
    "AC_M and DAC: means over the cells of Table 2 (FGSM, MIM, DIM, MIM-TI and DIM-TI at every ε). DIM-TI, worst and strongest: at the largest ε; "
    "worst: image by image, one attack of all that succeeds is enough for the adversary; strongest: what the strongest single attack leaves M∘P right on, "
    "which is near 0 unless a gradient is hidden."
)
"""What the columns mean."""


def markdown(rows: Sequence[Row]) -> str:
    """Two tables of each data set: its recipes, and what each adds to the paper's."""
    parts: list[str] = []
    for section in tables.sections(rows):
        accuracy = {line.architecture: line for line in tables.accuracy(section)}
        lines, worst = tables.transfer(section), tables.worst(section)
        largest = max(line.eps for line in lines)
        body: list[list[str]] = []
        for name in tables.architectures(lines):
            cells = {(line.attack, line.eps): line.cells[name] for line in [*lines, *worst] if name in line.cells}
            of_table = [cell for (attack, _), cell in cells.items() if attack in tables.TABLE_2]
            strongest = min(
                cell["ac_mop"].mean
                for (attack, eps), cell in cells.items()
                if eps == largest and attack != tables.WORST
            )
            body.append(
                [
                    words.architecture(name),
                    accuracy[name].test_accuracy.text(3),
                    accuracy[name].disagreement.text(3),
                    *(number(fmean(cell[rate].mean for cell in of_table)) for rate in ("ac_m", "dac")),
                    cells["dim-ti", largest]["dac"].text(),
                    cells[tables.WORST, largest]["dac"].text() if (tables.WORST, largest) in cells else words.MISSING,
                    number(strongest),
                ]
            )
        n = max(row["n"] for row in section if row["kind"] == "transfer")
        base = accuracy["base"].test_accuracy.text(3)
        parts += [
            f"**{tables.name(section)}**: ε {words.listing(f'{eps:g}' for eps in tables.numbers(section, 'eps'))}, {n} images, M alone {base}",
            as_table(list(HEAD), body, names=1),
            f"{tables.seeds(lines)} {NOTE}",
        ]
        if beside := gains.markdown(section):
            parts.append(beside)
    return "\n\n".join(parts) + "\n"
