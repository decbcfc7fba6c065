"""One self-contained HTML page from rows: summary, tables beside the paper's, figures, pictures, settings."""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from luring.atomic import replacing
from luring.errors import InputError
from luring.paper import figures, printed, summary, tables, words
from luring.paper.opposite import opposite
from luring.paper.tables import as_number, numbers, present
from luring.rows import Row, select

_PICTURES = {
    "x": "x",
    "p_x": "P(x)",
    "x_adv": "x\N{PRIME}",
    "p_x_adv": "P(x\N{PRIME})",
    "perturbation": "x\N{PRIME} \N{MINUS SIGN} x",
}


def write(rows: Sequence[Row], out: Path, *, title: str) -> None:
    """Draw the page; the file is replaced whole or left as it was, and the same rows give the same bytes.

    Args:
        rows: of any data sets and scales, a section each; of two rows of the same cell the later one stands.
        out: the page; its folder is made where it is missing.
        title: stands above everything.

    Raises:
        InputError: there are no rows.
        OSError: the page cannot be written.
    """
    if not rows:
        raise InputError("There are no rows to draw a report from: run an experiment first, or name the folder of one.")
    sections = [_section(f"s{number}", part) for number, part in enumerate(tables.sections(rows), start=1)]
    page = _template().render(
        title=title,
        sections=sections,
        overview=summary.overview([section["findings"] for section in sections]),
        run=run(rows),
        words=words,
        css=Markup((files("luring.paper") / "report.css").read_text(encoding="utf-8")),
        styles={name: figures.style(name) for name in present(rows, "architecture", words.ARCHITECTURES)},
        has_paper=tables.has_paper,
    )
    with replacing(out) as file:
        file.write(page.encode())


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((files("luring.paper") / "report.html").read_text(encoding="utf-8"))


def _section(name: str, rows: list[Row]) -> dict[str, Any]:
    accuracy, effect = tables.accuracy(rows), tables.effect(rows)
    transfer = tables.attacked(rows)
    convergence = [
        {
            "attack": attack,
            "eps": eps,
            "lines": lines,
            "figure": Markup(figures.convergence(attack, eps, lines, place=name)),
        }
        for attack, eps, lines in tables.convergence(rows)
    ]
    distortion, findings = figures.distortion(rows, place=name), summary.findings(rows)
    return {
        "id": name,
        "name": tables.name(rows),
        "caveat": tables.caveat(rows),
        "table": words.table(rows[0]["dataset"]),
        "seeds": len({row["seed"] for row in rows}),
        "ran": summary.ran(rows),
        "findings": findings,
        "verdicts": summary.verdicts(findings),
        "accuracy": accuracy,
        "accuracy_note": printed.accuracy_note(accuracy),
        "transfer": transfer,
        "transfer_note": printed.transfer_note(transfer),
        "architectures": tables.architectures(transfer),
        "detection": tables.detection(rows),
        "detection_head": printed.DETECTION_HEAD,
        "detection_note": printed.DETECTION_NOTE,
        "guarded": tables.GUARDED,
        "converged": {(cell["attack"], cell["eps"]): number for number, cell in enumerate(convergence, start=1)},
        "convergence": convergence,
        "opposite": opposite(rows),
        "effect": effect,
        "effect_architectures": tables.architectures(effect),
        "effect_images": _effect_images(rows),
        "effect_figures": [Markup(figure) for figure in figures.effect(rows, place=name)],
        "distortion_architectures": tables.architectures(tables.distortion(rows)),
        "distortion_figure": Markup(distortion) if distortion else None,
        "gradients": _gradients(rows),
        "pictures": _pictures(rows),
        "toy": [_toy(rows, name) for name in present(select(rows, kind="zone"), "architecture", words.ARCHITECTURES)],
        "searches": _searches(rows),
        "cells": [_cell(row) for row in rows],
        "seconds": words.duration(sum(as_number(row["seconds"]) for row in rows)),
    }


def _effect_images(rows: list[Row]) -> dict[tuple[str, float], str]:
    """For each attack and ε the number of images that the rates are over, and out of how many."""
    return {
        (row["attack"], float(row["eps"])): f"{row['n']} of {row['of']}" if "of" in row else str(row["n"])
        for row in select(rows, kind="effect")
    }


def _pictures(rows: list[Row]) -> list[dict[str, Any]]:
    """For each `picture` row its images, and under each what M and M∘P answer: M's answer to P(x) is M∘P's to x."""
    found: list[dict[str, Any]] = []
    for architecture in present(rows, "architecture", words.ARCHITECTURES):
        for row in select(rows, kind="picture", architecture=architecture):
            (m_x, mop_x), (m_adv, mop_adv) = row["labels"]["x"], row["labels"]["x_adv"]
            answers = {
                "x": [("M", m_x), ("M∘P", mop_x)],
                "p_x": [("M", mop_x)],
                "x_adv": [("M", m_adv), ("M∘P", mop_adv)],
                "p_x_adv": [("M", mop_adv)],
            }
            images = [
                {
                    "png": row["images"][key],
                    "title": title,
                    "answers": [
                        (who, _class(row, label), label == row["label"]) for who, label in answers.get(key, [])
                    ],
                }
                for key, title in _PICTURES.items()
                if key in row["images"]
            ]
            found.append({"row": row, "truth": _class(row, row["label"]), "images": images})
    return found


_TOY = {
    "zone": "zone",
    "x": "x",
    "p_x": "P(x)",
    "x_m": "crafted on M",
    "x_mop": "crafted on M∘P",
    "p_x_mop": "P of that",
}


def _toy(rows: list[Row], architecture: str) -> dict[str, Any]:
    """Figures 2 and 3 of one lure, and its sets of directions, for each seed."""
    of_lure = select(rows, architecture=architecture)

    def strip(row: Row) -> list[dict[str, Any]]:
        shown = row.get("labels", {})
        return [
            {
                "png": png,
                "title": _TOY[key],
                "answers": [
                    (who, _class(row, label), label == row["label"])
                    for who, label in zip(("M", "M∘P"), shown.get(key, ()), strict=False)
                ],
            }
            for key, png in row["images"].items()
        ]

    return {
        "architecture": architecture,
        "zones": [
            {"row": row, "truth": _class(row, row["label"]), "images": strip(row)}
            for row in select(of_lure, kind="zone")
        ],
        "cases": [
            {
                "row": row,
                "truth": _class(row, row["label"]),
                "wanted": _class(row, row["settings"]["wanted"]) if row["settings"]["wanted"] is not None else None,
                "images": strip(row),
                "answers": ", ".join(
                    f"{name} {count}" for name, count in zip(row["classes"], row["m_answers"], strict=True)
                ),
            }
            for row in select(of_lure, kind="case")
        ],
        "directions": select(of_lure, kind="directions"),
    }


def _gradients(rows: list[Row]) -> list[dict[str, Any]]:
    """For each image of the `gradient` rows: the image, and the gradient of every P."""
    gradients = select(rows, kind="gradient")
    found: list[dict[str, Any]] = []
    for index, seed in dict.fromkeys((row["index"], row["seed"]) for row in gradients):
        of_image = select(gradients, index=index, seed=seed)
        names = present(of_image, "architecture", words.ARCHITECTURES)
        ordered = [select(of_image, architecture=name)[-1] for name in names]
        shares = {row["architecture"]: words.number(as_number(row["background"])) for row in ordered}
        found.append({"truth": _class(ordered[0], ordered[0]["label"]), "rows": ordered, "shares": shares})
    return found


def _class(row: Row, label: int) -> str:
    return str(row["classes"][label])


def _searches(rows: list[Row]) -> list[dict[str, Any]]:
    """For each attack and ε all that the adversary tried; of the settings, those that differ."""
    searched = [row for row in select(rows, kind="transfer") if row.get("tried")]
    found: list[dict[str, Any]] = []
    for attack in present(searched, "attack", words.ATTACKS):
        for eps in numbers(select(searched, attack=attack), "eps"):
            lines: list[dict[str, Any]] = []
            for architecture in present(searched, "architecture", words.ARCHITECTURES):
                for row in select(searched, attack=attack, eps=eps, architecture=architecture):
                    lines += _tried(row)
            found.append({"name": words.cell(attack, eps), "lines": lines})
    return found


def _tried(row: Row) -> list[dict[str, Any]]:
    tried = row["tried"]
    used = min(tried, key=lambda one: (_last(one["ac_m"]), _last(one["dac"])))
    first = tried[0]["settings"]
    same = [key for key in first if all(one["settings"].get(key) == first[key] for one in tried)]
    return [
        {
            "architecture": row["architecture"],
            "seed": row["seed"],
            "settings": settings({key: one["settings"][key] for key in one["settings"] if key not in same} or first),
            "n": one["n"],
            "rates": [words.number(as_number(one[rate])) for rate in ("ac_mop", "ac_m", "dac")],
            "used": one is used,
        }
        for one in tried
    ]


def _last(rate: float | None) -> float:
    return float("inf") if rate is None else rate


def _cell(row: Row) -> dict[str, Any]:
    where = [words.architecture(row["architecture"])]
    if "attack" in row:
        where.append(words.cell(row["attack"], float(row["eps"])))
    if "index" in row:
        where.append(f"image {row['index']}")
    return {
        "row": row,
        "where": ", ".join(where),
        "settings": settings(row["settings"]),
        "seconds": words.duration(as_number(row["seconds"])),
    }


def settings(given: dict[str, Any]) -> str:
    """'decay 1.0, steps 1000'."""
    shown = ((key, value if isinstance(value, str) else json.dumps(value)) for key, value in given.items())
    return ", ".join(f"{key} {value}" for key, value in shown)


def run(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """With what and where the rows were made: each fact with every value it takes."""
    dates = sorted({row["date"] for row in rows if row.get("date")})
    kinds = [kind for kind in _distinct(row["kind"] for row in rows) if kind not in ("picture", "gradient")]
    facts = [
        ("Commit", _distinct(str(row["commit"] or "not from a git checkout") for row in rows)),
        ("Versions", _distinct(_facts(row["versions"]) for row in rows)),
        ("Hardware", _distinct(_facts(row["hardware"]) for row in rows)),
        ("Seeds", [", ".join(_distinct(str(row["seed"]) for row in rows))]),
        ("Images", [f"{kind}: {summary.images(select(rows, kind=kind))}" for kind in kinds]),
        ("Time", [f"{words.duration(sum(as_number(row['seconds']) for row in rows))} over {len(rows)} rows"]),
        ("Dates", [" to ".join(_distinct([dates[0], dates[-1]]))] if dates else []),
    ]
    return [(name, values) for name, values in facts if values]


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _facts(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
