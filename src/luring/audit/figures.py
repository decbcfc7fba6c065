"""An audit's figures as inline SVG: query curves and loss surfaces."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np

from luring.audit import words
from luring.audit.tables import Curve
from luring.paper.figures import SETTINGS, panel, svg

LINES = (("#D55E00", "o", "-"), ("#0072B2", "s", "--"), ("#009E73", "D", "-."), ("#777777", "X", ":"))
"""Colour, marker and dash, told apart by colour-blind eyes and without colour."""


def curves(title: str, lines: Mapping[str, Curve], *, place: str) -> str:
    """Share fooled against the number of queries, a line each by the name that the legend has."""
    with mpl.rc_context(SETTINGS):
        figure, axes = panel(title, width=4.2)
        for (name, curve), (colour, marker, dash) in zip(lines.items(), LINES * 3, strict=False):
            axes.plot(
                curve.queries,
                curve.shares,
                color=colour,
                marker=marker,
                linestyle=dash,
                label=name,
                markersize=4,
                clip_on=False,
            )
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_ylim(0, 1)
        axes.set(xlabel="queries", ylabel="fooled")
        axes.legend(frameon=False, fontsize=9, loc="upper left")
        return svg(figure, f"{place} {title}", f"{title}: share fooled against the number of queries.")


def surface(on: str, margins: Sequence[Sequence[float]], reach: float, *, place: str) -> str:
    """A classifier's margin around an image: along the gradient's sign upwards, along random signs to the right; a line where it is 0."""
    values: Any = np.array(margins)
    most = float(np.abs(values).max()) or 1.0
    at = np.linspace(-reach, reach, len(values))
    with mpl.rc_context(SETTINGS):
        figure, axes = panel(on, width=2.9)
        axes.grid(visible=False)
        levels = np.linspace(-most, most, 13)
        axes.contourf(at, at, values, levels=levels, cmap="PuOr_r")
        if values.min() < 0 < values.max():
            axes.contour(at, at, values, levels=[0.0], colors="black", linewidths=1.5)
        axes.plot([0], [0], marker="+", color="black", markersize=9)
        axes.set(xlabel="random signs", ylabel="gradient's sign")
        label = f"{words.attack('none')} margin of {on} around an image; orange where it is fooled."
        return svg(figure, f"{place} surface {on}", label)
