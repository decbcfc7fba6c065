"""The tables for a terminal, at most 100 columns wide, and in Markdown."""

from collections.abc import Sequence
from math import isnan

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from luring.paper import tables, words
from luring.paper.tables import AccuracyLine, Line, Value
from luring.paper.words import BEST, MISSING, SHORT, number, signed
from luring.rows import Row

_SIDE_BY_SIDE = 5  # architectures that fit in 100 columns


def terminal(rows: Sequence[Row]) -> Group:
    """The tables of every section, for `rich.console.Console.print`."""
    parts: list[RenderableType] = []
    for section in tables.sections(rows):
        parts.append(Text(tables.name(section), style="bold"))
        if caveat := tables.caveat(section):
            parts.append(Text(caveat))
        accuracy, transfer = tables.accuracy(section), tables.attacked(section)
        if accuracy:
            parts += [_accuracy(accuracy), Text(accuracy_note(accuracy) + "\n", style="dim")]
        if transfer:
            names = tables.architectures(transfer)
            for start in range(0, len(names), _SIDE_BY_SIDE):
                parts.append(_transfer(transfer, names[start : start + _SIDE_BY_SIDE]))
            parts.append(Text(transfer_note(transfer) + "\n", style="dim"))
        if guarded := tables.detection(section):
            parts += [_detection(guarded), Text(DETECTION_NOTE + "\n", style="dim")]
    return Group(*parts)


def accuracy_note(lines: list[AccuracyLine]) -> str:
    """What the columns and marks of Table 1 mean."""
    note = (
        f"{tables.seeds(lines)} Agreement: M and M∘P agree and are right. "
        "M∘P ≠ M: they answer differently, which a guard by bare agreement rejects."
    )
    return note + _marked(lines, tables.ACCURACY_TOLERANCE)


def transfer_note(lines: list[Line]) -> str:
    """What the columns and marks of Tables 2 to 4 mean."""
    note = (
        f"{tables.seeds(lines)} AC_M∘P and AC_M: accuracy of M∘P and of M on examples crafted on M∘P; "
        f"DAC: M is right, or the two disagree. {BEST} best DAC of the line."
    )
    if any(line.attack == tables.WORST for line in lines):
        note += f" {words.attack(tables.WORST)}: image by image, one attack that succeeds is enough for the adversary"
        apart = any(line.attack == tables.WORST_PAPER for line in lines)
        note += (
            ": over the paper's attacks, and at the end over all, on the images that all of them were run on."
            if apart
            else "."
        )
    return note + _marked(lines, tables.TRANSFER_TOLERANCE)


DETECTION_HEAD = ("Attack", "ε", "M alone", "Agreement", "Confidence", "Score, same", "Score", "AUC")
DETECTION_NOTE = (
    "M alone: AC_M. The others: DAC, with bare agreement; with M's confidence, which needs no lure, and with the score, both at agreement's "
    "false-alarm rate; with the score at the wanted rate. AUC: of the score, examples that fool M against clean test images."
)
"""What the columns of the guard's table mean."""


def _detection(lines: list[Line]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), title="What the guard notices", title_justify="left"
    )
    for place, name in enumerate(DETECTION_HEAD):
        table.add_column(name, justify="left" if place < 2 else "right", no_wrap=True)
    for line in lines:
        for cell in line.cells.values():
            figures = [cell[figure].text(3 if figure == "auc" else 2) for figure in tables.GUARDED]
            table.add_row(Text(words.attack(line.attack)), f"{line.eps:g}", *figures)
    return table


def _marked(lines: list[AccuracyLine] | list[Line], tolerance: float) -> str:
    return f" {SHORT} below the paper by more than {tolerance:g}." if tables.has_paper(lines) else ""


def _accuracy(lines: list[AccuracyLine]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        title="Test accuracy and agreement",
        title_justify="left",
    )
    first, *others = _accuracy_head(lines)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(*map(Text, _accuracy_cells(line, paper=tables.has_paper(lines))))
    return table


def _accuracy_head(lines: list[AccuracyLine]) -> list[str]:
    beside = ["Paper", "Difference"] if tables.has_paper(lines) else []
    return ["Architecture", "Test accuracy", *beside, "Agreement", *beside, "M∘P ≠ M"]


def _accuracy_cells(line: AccuracyLine, *, paper: bool) -> list[str]:
    cells = [words.architecture(line.architecture)]
    for value in (line.test_accuracy, line.agreement):
        cells.append(value.text(3))
        if paper:
            cells += [number(value.paper, 3), signed(value.difference, 3) + (SHORT if value.short else "")]
    return [*cells, line.disagreement.text(3)]


def _transfer(lines: list[Line], architectures: list[str]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), title="Transfer to M", title_justify="left"
    )
    table.add_column("Attack", no_wrap=True)
    table.add_column("ε", no_wrap=True)
    for name in architectures:
        table.add_column(Text(f"{words.architecture(name)}\nM∘P  M    DAC"), no_wrap=True)
    for line in lines:
        cells = [list(line.cells[name].values()) if name in line.cells else [] for name in architectures]
        measured = [_measured(cell, best=name in line.best) for cell, name in zip(cells, architectures, strict=True)]
        table.add_row(Text(words.attack(line.attack)), f"{line.eps:g}", *measured)
        if any(not isnan(value.spread) for cell in cells for value in cell):
            table.add_row("", "±", *(_figures([value.spread for value in cell]) for cell in cells), style="dim")
        if tables.has_paper([line]):
            table.add_row("", "paper", *map(_paper, cells), style="dim")
    return table


def _measured(cell: list[Value], *, best: bool) -> Text:
    text = _figures([value.mean for value in cell])
    if best:
        text.append(BEST).stylize("bold", -5)
    return text


def _paper(cell: list[Value]) -> Text:
    return _figures([value.paper for value in cell], [value.short for value in cell])


def _figures(figures: list[float], short: Sequence[bool] = (False, False, False)) -> Text:
    """Three figures of four columns, a column for a mark behind each."""
    shown = [f"{number(figure):4}{SHORT if below else ' '}" for figure, below in zip(figures, short, strict=False)]
    return Text("".join(shown).rstrip(" "))


def markdown(rows: Sequence[Row]) -> str:
    """The tables of every section in Markdown; each cell of the transfer is AC_M∘P / AC_M / DAC, the best DAC bold."""
    parts: list[str] = []
    for section in tables.sections(rows):
        parts.append(f"**{tables.name(section)}**")
        if caveat := tables.caveat(section):
            parts.append(caveat)
        accuracy, transfer = tables.accuracy(section), tables.attacked(section)
        if accuracy:
            body = [_accuracy_cells(line, paper=tables.has_paper(accuracy)) for line in accuracy]
            parts += [as_table(_accuracy_head(accuracy), body, names=1), accuracy_note(accuracy)]
        if transfer:
            names = tables.architectures(transfer)
            body = [
                [words.attack(line.attack), f"{line.eps:g}", *(_markdown_cell(line, name) for name in names)]
                for line in transfer
            ]
            parts.append(as_table(["Attack", "ε", *map(words.architecture, names)], body, names=2))
            note = transfer_note(transfer).replace(f"{BEST} best DAC of the line", "Bold: the best DAC of the line")
            parts.append(f"Each cell: AC_M∘P / AC_M / DAC. {note}")
    return "\n\n".join(parts) + "\n"


def _markdown_cell(line: Line, architecture: str) -> str:
    cell = line.cells.get(architecture)
    if cell is None:
        return MISSING
    *others, dac = (value.text() for value in cell.values())
    shown = " / ".join([*others, f"**{dac}**" if architecture in line.best else dac])
    if all(isnan(value.paper) for value in cell.values()):
        return shown
    return f"{shown}<br>paper " + " / ".join(number(v.paper) + (SHORT if v.short else "") for v in cell.values())


def as_table(head: list[str], body: list[list[str]], *, names: int) -> str:
    """A Markdown table whose first `names` columns hold names and the others figures."""
    rule = [":--"] * names + ["--:"] * (len(head) - names)
    lines = [head, rule, *([cell.replace("|", "\\|") for cell in line] for line in body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
