"""The paper's Tables 1 to 4, read from the CSV files beside this module."""

import csv
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from math import nan
from typing import TypeAlias

Figures: TypeAlias = Mapping[str, float]


def table1(dataset: str, architecture: str) -> Figures | None:
    """The paper's Table 1.

    Args:
        dataset: `mnist`, `svhn` or `cifar10`; any other has no line.
        architecture: as in rows: `base`, `stack`, `auto`, `c_e` or `luring`.

    Returns:
        `test_accuracy` and `agreement`, `nan` where the paper has an empty cell; None where it has no such line.
    """
    return _table1().get((dataset, architecture))


def transfer(dataset: str, attack: str, eps: float, architecture: str) -> Figures | None:
    """The paper's Tables 2 to 4.

    Args:
        dataset: `mnist`, `svhn` or `cifar10`; any other has no cell.
        attack: as in rows: `fgsm`, `mim`, `dim`, `mim-ti` or `dim-ti`.
        eps: radius of the l∞ ball.
        architecture: as in rows: `stack`, `auto`, `c_e` or `luring`.

    Returns:
        `ac_mop`, `ac_m` and `dac`, `nan` where the paper has an empty cell; None where it has no such cell.
    """
    return _transfer().get((dataset, attack, _same(eps), architecture))


def opposite(dataset: str) -> tuple[float, float]:
    """§4.2: the share of examples for which Luring stands out by the directions along which logits move against each other.

    The paper's sentence says that their number is *lower* for Luring; what it concludes, that more directions have another influence on
    M∘P than on M, asks for *higher*, and that is what is counted here.

    Returns:
        Among all architectures, and without Stack; `nan` where the paper says nothing.
    """
    return {"svhn": (0.74, 0.81), "cifar10": (0.52, 0.85)}.get(dataset, (nan, nan))


def _same(eps: float) -> float:
    """0.1 + 0.2 finds the cell of 0.3."""
    return round(eps, 6)


@cache
def _table1() -> dict[tuple[str, str], Figures]:
    return {
        (line["dataset"], line["architecture"]): _figures(line, ("test_accuracy", "agreement"))
        for line in _lines("table1.csv")
    }


@cache
def _transfer() -> dict[tuple[str, str, float, str], Figures]:
    return {
        (line["dataset"], line["attack"], _same(float(line["epsilon"])), line["architecture"]): _figures(
            line, ("ac_mop", "ac_m", "dac")
        )
        for line in _lines("tables2-4.csv")
    }


def _lines(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((files("luring.paper") / name).read_text(encoding="utf-8").splitlines()))


def _figures(line: dict[str, str], fields: tuple[str, ...]) -> dict[str, float]:
    return {field: float(line[field]) if line[field] else nan for field in fields}
