"""§4.2 from rows: along how many values of an image a logit of M and of M∘P move against each other."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from luring.paper import published, tables, words
from luring.paper.tables import Value
from luring.rows import Row, select


@dataclass(frozen=True)
class Opposite:
    """Of §4.2: directions along which a logit of M and of M∘P move against each other.

    Attributes:
        architecture: whose M∘P.
        share: of all directions, a mean over images and classes.
        highest: share of the pairs of image and class with more of them than every other of the paper's architectures; for `luring` alone.
        without_stack: the same with Stack left out.
    """

    architecture: str
    share: Value
    highest: Value
    without_stack: Value


def opposite(rows: Sequence[Row]) -> list[Opposite]:
    """The directions of §4.2 from the rows of one section; comparisons only between counts on the same images."""
    measured = select(rows, kind="opposite")
    lines: list[Opposite] = []
    for name in tables.present(measured, "architecture", words.ARCHITECTURES):
        of_name = select(measured, architecture=name)
        shares = [{"seed": row["seed"], "share": row["mean"] / row["of"]} for row in of_name]
        wins = [
            {
                "seed": row["seed"],
                "all": _above(row, others),
                "without_stack": _above(row, [other for other in others if other["architecture"] != "stack"]),
            }
            for row in (of_name if name == "luring" else [])
            if (others := [other for other in select(measured, seed=row["seed"]) if _rival(row, other)])
        ]
        paper = (
            published.opposite(of_name[0]["dataset"])
            if tables.compared(of_name[0]) and name == "luring"
            else (nan, nan)
        )
        lines.append(
            Opposite(
                name,
                tables.over_seeds(shares, "share"),
                tables.over_seeds(wins, "all", paper[0]),
                tables.over_seeds(wins, "without_stack", paper[1]),
            )
        )
    return lines


def _rival(row: Row, other: Row) -> bool:
    return other["architecture"] in ("stack", "auto", "c_e") and other["index_of"] == row["index_of"]


def _above(row: Row, others: Sequence[Row]) -> float | None:
    """Share of the pairs of image and class in which one row counts more directions than each of the others."""
    if not others:
        return None
    own, *rivals = (np.frombuffer(base64.b64decode(each["counts"]), "<u4") for each in (row, *others))
    return float(np.mean(own > np.max(rivals, axis=0)))
