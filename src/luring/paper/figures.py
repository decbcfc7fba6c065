"""The paper's figures as inline SVG: same rows, same bytes; text and axes take the colour of the page's text."""

import html
import io
import re
from collections.abc import Sequence
from math import log10
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from luring.paper import tables, words
from luring.paper.tables import FIVE, Line, Steps, Value
from luring.rows import Row

STYLES = {
    "base": ("#777777", "X", "✖"),
    "stack": ("#0072B2", "s", "■"),
    "auto": ("#CC79A7", "^", "▲"),
    "c_e": ("#009E73", "D", "◆"),
    "luring": ("#D55E00", "o", "●"),
    "luring_alt": ("#E69F00", "v", "▼"),
}
"""Colour (Okabe and Ito's, told apart by colour-blind eyes), marker, and the marker as a letter for legends."""
_OTHER = ("#777777", "P", "✚")

_INK = "#010203"  # becomes the colour of the text around the figure
SETTINGS: Any = {
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _INK,
    "grid.alpha": 0.15,
}
"""Of every figure, for `matplotlib.rc_context`."""


def style(architecture: str) -> tuple[str, str, str]:
    """Colour, marker, and the marker as a letter."""
    return STYLES.get(architecture, _OTHER)


def effect(rows: Sequence[Row], *, place: str = "") -> list[str]:
    """Figure 4 from the `effect` rows of one section: DR solid and Adq dashed against ε, a panel for each attack.

    `place` keeps the ids of equal figures apart where several stand in one page; here and below.
    """
    lines = tables.effect(rows)
    return [
        _effect(attack, [line for line in lines if line.attack == attack], place)
        for attack in tables.present(({"attack": line.attack} for line in lines), "attack", words.ATTACKS)
    ]


def _effect(attack: str, lines: list[Line], place: str) -> str:
    with mpl.rc_context(SETTINGS):
        figure, axes = panel(words.attack(attack), width=3.6)
        radii = [line.eps for line in lines]
        for name in tables.architectures(lines):
            for rate, dash in (("dr", "-"), ("adq", "--")):
                _plot(axes, name, radii, [line.cells.get(name, {}).get(rate) for line in lines], dash)
        axes.set(xlabel="ε", ylabel="rate", xticks=radii, xticklabels=[f"{eps:g}" for eps in radii])
        margin = 0.15 * (max(radii) - min(radii)) or 0.05
        axes.set_xlim(min(radii) - margin, max(radii) + margin)
        label = (
            f"{words.attack(attack)}: detection rate (solid) and adequation rate (dashed) against ε, by architecture."
        )
        return svg(figure, f"{place} effect {attack}", label)


def distortion(rows: Sequence[Row], *, place: str = "") -> str | None:
    """Figure 5 from the `transfer` rows of one section: box plots of l0 by ε and architecture; None without `l0`."""
    lines = tables.distortion(rows)
    if not lines:
        return None
    names = tables.architectures(lines)
    attack = words.attack(lines[0].attack)
    with mpl.rc_context(SETTINGS):
        figure, axes = panel(f"{attack}: values of an image changed", width=5.2)
        for group, line in enumerate(lines):
            for column, name in enumerate(names):
                if name in line.cells:
                    _box(
                        axes,
                        name,
                        group + 0.8 * ((column + 0.5) / len(names) - 0.5),
                        0.6 / len(names),
                        line.cells[name],
                    )
        axes.set_ylim(bottom=0)
        axes.set(xlabel="ε", ylabel="l0 distortion", xticks=range(len(lines)), xlim=(-0.5, len(lines) - 0.5))
        axes.set_xticklabels([f"{line.eps:g}" for line in lines])
        return svg(
            figure, f"{place} distortion", f"Box plots of the l0 distortion of {attack} examples by ε and architecture."
        )


def _box(axes: Axes, name: str, at: float, width: float, cell: dict[str, Value]) -> None:
    colour, marker, _ = style(name)
    low, lower, median, upper, high = (cell[five].mean for five in FIVE)
    stats = {"whislo": low, "q1": lower, "med": median, "q3": upper, "whishi": high, "fliers": []}
    line = {"color": colour, "linewidth": 1.3}
    axes.bxp(
        [stats],
        positions=[at],
        widths=[width],
        manage_ticks=False,
        patch_artist=True,
        boxprops={"facecolor": f"{colour}33", "edgecolor": colour, "linewidth": 1.3},
        medianprops=line,
        whiskerprops=line,
        capprops=line,
    )
    axes.plot([at], [median], marker=marker, color=colour, markersize=5, linestyle="none")


def convergence(attack: str, eps: float, lines: Sequence[Steps], *, place: str = "") -> str:
    """AC_M (solid) and DAC (dashed) of one cell against the number of steps, a line for each architecture."""
    with mpl.rc_context(SETTINGS):
        figure, axes = panel(words.cell(attack, eps), width=3.6)
        steps = sorted({line.steps for line in lines})
        for name in tables.present(
            ({"architecture": line.architecture} for line in lines), "architecture", words.ARCHITECTURES
        ):
            of_name = [line for line in lines if line.architecture == name]
            for rate, dash in (("ac_m", "-"), ("dac", "--")):
                _plot(axes, name, [float(line.steps) for line in of_name], [line.rates[rate] for line in of_name], dash)
        if steps[0] > 0 and log10(steps[-1] / steps[0]) > 1:
            axes.set_xscale("log")
        axes.minorticks_off()
        axes.set(xlabel="steps", ylabel="rate", xticks=steps, xticklabels=[str(step) for step in steps])
        label = (
            f"{words.cell(attack, eps)}: AC_M (solid) and DAC (dashed) against the number of steps, by architecture."
        )
        return svg(figure, f"{place} convergence {attack} {eps:g}", label)


def panel(title: str, width: float) -> tuple[Figure, Axes]:
    """An empty figure with a title."""
    figure = Figure(figsize=(width, 2.9), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.set_title(title, loc="left")
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    return figure, axes


def _plot(axes: Axes, name: str, x: Sequence[float], values: Sequence[Value | None], dash: str) -> None:
    """A line that is interrupted where there is no figure; bars of one standard deviation over several seeds."""
    colour, marker, _ = style(name)
    known = [(at, value) for at, value in zip(x, values, strict=True) if value is not None]
    axes.errorbar(
        [at for at, _ in known],
        [value.mean for _, value in known],
        yerr=[value.spread for _, value in known] if any(value.seeds > 1 for _, value in known) else None,
        color=colour,
        marker=marker,
        markerfacecolor=colour if dash == "-" else "none",
        linestyle=dash,
        linewidth=1.6,
        markersize=5.5,
        elinewidth=1,
        capsize=2,
        clip_on=False,
    )
    axes.set_ylim(0, 1)


def svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an `<svg>` inside a page: no date, no outside reference, no fixed size, no id that another has."""
    drawn = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(drawn, format="svg", metadata=nothing)
    text = drawn.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    head = f'<svg {box[0]} role="img" aria-label="{html.escape(label)}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return re.sub(r"<svg[^>]*>", head, text, count=1)
