"""The audit's page, drawn from rows and from nothing else: the same rows give the same bytes."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from luring.atomic import replacing
from luring.audit import figures, tables, words
from luring.audit.tables import Guarded
from luring.errors import InputError
from luring.paper import words as names
from luring.paper.report import run as how
from luring.paper.report import settings as listed
from luring.rows import Row, select

TITLE = "Luring: the audit"


def write(rows: Sequence[Row], out: Path) -> None:
    """Draw the page; the file is replaced whole or left as it was.

    Args:
        rows: of any data sets, budgets and radii, a section each; rows of other kinds are passed over.
        out: the page.

    Raises:
        InputError: there is no row of an audit.
    """
    sections = tables.sections(rows)
    if not sections:
        raise InputError("There are no rows of an audit to draw a page from: run 'luring audit' first.")
    page = _template().render(
        title=TITLE,
        sections=[_section(f"a{number}", part) for number, part in enumerate(sections, start=1)],
        run=how([row for row in rows if tables.is_audit(row)]),
        words=words,
        limits=(tables.REJECTED, tables.LOST),
        names=names,
        css=Markup((files("luring.paper") / "report.css").read_text(encoding="utf-8")),
        own=Markup((files("luring.audit") / "page.css").read_text(encoding="utf-8")),
    )
    with replacing(out) as file:
        file.write(page.encode())


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((files("luring.audit") / "page.html").read_text(encoding="utf-8"))


def _section(place: str, rows: list[Row]) -> dict[str, Any]:
    guarded = tables.guarded(rows)
    usable = tables.usable(guarded)
    eps = next(float(row["eps"]) for row in rows if "eps" in row)
    checks = tables.checks(rows)
    architectures = tables.architectures(rows)
    audited = select(rows, kind="audit", architecture=architectures[0])
    return {
        "id": place,
        "name": title(rows[0], eps),
        "seeds": len({row["seed"] for row in rows}),
        "failed": [words.check(check) for check in checks if not check["passed"]],
        "passed": [words.check(check) for check in checks if check["passed"]],
        "verdict": words.verdict(checks),
        "told": words.told(rows),
        "guarded": guarded,
        "guard": guarded[0],
        "rungs": [rung for rung in tables.RUNGS if any(rung in one.rungs for one in guarded)],
        "usable": usable,
        "least": _least(usable),
        "denials": tables.denials(rows),
        "curves": [Markup(figure) for figure in _curves(rows, guarded, place)],
        "surfaces": _surfaces(rows, place),
        "attacks": [_attacks(rows, name) for name in architectures],
        "examples": _examples(audited, rows, guarded[0].policy),
        "cells": [
            {
                "where": words.defence(row["architecture"]),
                "what": row["kind"] if "attack" not in row else f"{words.attack(row['attack'])} on {row['on']}",
                "row": row,
                "settings": listed(row["settings"]),
                "seconds": names.duration(float(row["seconds"])),
            }
            for row in rows
        ],
        "seconds": names.duration(sum(float(row["seconds"]) for row in rows)),
    }


def title(row: Row, eps: float) -> str:
    """'MNIST, ε 0.3, budget quick'."""
    return f"{names.DATASETS.get(row['dataset'], row['dataset'])}, ε {eps:g}, budget {row['scale']}"


def _least(compared: Sequence[Guarded]) -> dict[int, str]:
    """The lowest share fooled of each rung, as it is shown."""
    return {
        rung: min(
            (one.rungs[rung].fooled.mean, words.share(one.rungs[rung].fooled.mean))
            for one in compared
            if rung in one.rungs
        )[1]
        for rung in tables.RUNGS
        if any(rung in one.rungs for one in compared)
    }


def _curves(rows: Sequence[Row], guarded: Sequence[Guarded], place: str) -> list[str]:
    """Rung 2: what was asked, and the guard, attack by attack. Rung 6: the guard, and M alone where its label can be seen."""
    guard = guarded[0]
    found: list[str] = []
    shown = {row["on"] for row in select(rows, kind="audit", architecture=guard.architecture, rung=2)}
    for on in sorted(shown):
        asked = {
            f"{names.attack(one.attack)}, {on}": one for one in tables.curves(rows, guard.architecture, 2, on, "asked")
        }
        passed = {
            f"{names.attack(one.attack)}, guard": one
            for one in tables.curves(rows, guard.architecture, 2, on, guard.policy)
        }
        if asked:
            found.append(figures.curves(f"Queries to {on}", asked, place=place))
            found.append(
                figures.curves(f"The same, past the guard ({words.policy(guard.policy)})", passed, place=place)
            )
    lines = {
        f"{names.attack(one.attack)}": one
        for one in tables.curves(rows, guard.architecture, 6, f"decision by {guard.policy}", guard.policy)
    }
    lines |= {
        f"{names.attack(one.attack)}, M alone": one
        for one in tables.curves(rows, "base", 6, "decision by target", "target")
    }
    if lines:
        found.append(figures.curves("Queries to the decision", lines, place=place))
    return found


def _surfaces(rows: Sequence[Row], place: str) -> list[dict[str, Any]]:
    """Loss surfaces, an image each."""
    return [
        {
            "index": one["index"],
            "seed": row["seed"],
            "figures": [
                Markup(figures.surface(on, margins, one["reach"], place=f"{place}-{row['seed']}-{one['index']}"))
                for on, margins in one["margins"].items()
            ],
        }
        for row in select(rows, kind="landscape")
        for one in row["surfaces"]
    ]


def _attacks(rows: Sequence[Row], name: str) -> dict[str, Any]:
    """Every attack on a defence, with what it left of each policy: mean over seeds."""
    mine = select(rows, kind="audit", architecture=name)
    policies = list(mine[0]["policies"])
    lines: list[dict[str, Any]] = []
    for rung, attack, on in dict.fromkeys((row["rung"], row["attack"], row["on"]) for row in mine):
        of = select(mine, rung=rung, attack=attack, on=on)
        shares = [
            [sum(row["policies"][policy][kind] for row in of) / len(of) for kind in ("kept", "detected", "fooled")]
            for policy in policies
        ]
        lines.append({"rung": rung, "attack": attack, "on": on, "n": of[0]["n"], "shares": shares})
    lines.sort(key=lambda line: line["rung"])
    return {"name": words.defence(name), "policies": policies, "lines": lines}


def _examples(audited: Sequence[Row], rows: Sequence[Row], policy: str) -> list[dict[str, Any]]:
    """One example of each rung: one that fooled the guard, where there is any."""
    classes = next((row["classes"] for row in rows if row["kind"] == "clean"), [])
    fates = ("kept", "detected", "fooled")
    found: list[dict[str, Any]] = []
    for rung in tables.RUNGS:
        mine = [row for row in audited if row["rung"] == rung]
        if not mine:
            continue
        row = max(mine, key=lambda row: row["example"]["fates"].get(policy, 0))
        one = row["example"]
        found.append(
            {
                "rung": rung,
                "what": f"{words.attack(row['attack'])} on {row['on']}",
                "truth": classes[one["label"]],
                "index": one["index"],
                "seed": row["seed"],
                "fate": fates[one["fates"][policy]],
                "answers": [classes[label] for label in one["answers"]],
                "images": one["images"],
            }
        )
    return found
