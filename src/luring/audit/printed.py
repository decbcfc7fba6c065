"""An audit's tables for a terminal, and in Markdown."""

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from luring.audit import tables, words
from luring.audit.page import title
from luring.audit.tables import Guarded
from luring.paper.printed import as_table
from luring.paper.words import MISSING
from luring.rows import Row


def terminal(rows: Sequence[Row]) -> Group:
    """Of every section: failed checks, what the rows say, and what each adversary leaves."""
    parts: list[RenderableType] = []
    for section in tables.sections(rows):
        guarded, checks = tables.guarded(section), tables.checks(section)
        parts.append(Text(title(section[0], _eps(section)), style="bold"))
        failed = [check for check in checks if not check["passed"]]
        parts.append(Text(words.verdict(checks), style="bold red" if failed else "green"))
        parts += [Text(f"✗ {words.check(check)}", style="red") for check in failed]
        parts += [Text(" ".join(words.told(section)) + "\n"), _ladder(guarded)]
    return Group(*parts)


def _ladder(guarded: Sequence[Guarded]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), title=NOTE, title_justify="left")
    for place, name in enumerate(HEAD):
        table.add_column(name, justify="left" if place == 0 else "right", no_wrap=place > 0)
    for rung in (0, *tables.RUNGS):
        if rung in guarded[0].rungs:
            table.add_row(*map(Text, _line(guarded, rung)))
    return table


HEAD = ("Adversary", "Kept", "Detected", "Fooled", "M alone")
NOTE = "What each adversary leaves of the guard; fooled: answered wrongly and let out"


def _line(guarded: Sequence[Guarded], rung: int) -> list[str]:
    outcome = guarded[0].rungs[rung]
    base = next((one for one in guarded if (one.architecture, one.policy) == ("base", "target")), None)
    alone = words.share(base.rungs[rung].fooled.mean) if base is not None and rung in base.rungs else MISSING
    fooled = f"{words.share(outcome.fooled.mean)} ({words.spread(outcome)})"
    return [
        words.ADVERSARIES[rung][0],
        words.share(outcome.kept.mean),
        words.share(outcome.detected.mean),
        fooled,
        alone,
    ]


def markdown(rows: Sequence[Row]) -> str:
    """Of every section a table: adversaries down, kept, detected and fooled of the guard, and fooled of M alone and of the best rival."""
    parts: list[str] = []
    for section in tables.sections(rows):
        guarded = tables.guarded(section)
        rivals = tables.rivals(guarded)
        n = guarded[0].rungs[1].n
        head = [
            "Adversary",
            "what he knows and does",
            "kept",
            "detected",
            "fooled",
            "fooled, M alone",
            "fooled, best rival",
        ]
        lines: list[list[str]] = []
        for rung in tables.RUNGS:
            if rung not in guarded[0].rungs:
                continue
            name, *figures, alone = _line(guarded, rung)
            beside = [one for one in rivals if rung in one.rungs]
            best = min(beside, key=lambda one: one.rungs[rung].fooled.mean, default=None)
            rival = MISSING if best is None else (
                f"{words.share(best.rungs[rung].fooled.mean)} ({words.defence(best.architecture)}, {words.policy(best.policy)})"
            )  # fmt: skip
            lines.append([name, words.ADVERSARIES[rung][1], *figures, alone, rival])
        clean = guarded[0]
        seeds = clean.accuracy.seeds
        note = (
            f"The guard's policy: {words.policy(clean.policy)}; clean accuracy {words.fine(clean.accuracy.mean)}, clean images rejected "
            f"{words.fine(clean.rejected.mean)}. {n} test images{f', {seeds} seeds' if seeds > 1 else ''}, worst case over each adversary's attacks, image by image; in brackets "
            f"95 % intervals{' over all seeds, ± the standard deviation between them' if seeds > 1 else ''}. Rivals: those that reject {words.share(tables.REJECTED)} of the clean images or fewer, and answer rightly on at most {words.share(tables.LOST)} fewer."
        )
        parts += [f"**{title(section[0], _eps(section))}**", as_table(head, lines, names=2), note]
    return "\n\n".join(parts) + "\n"


def _eps(section: Sequence[Row]) -> float:
    return next(float(row["eps"]) for row in section if "eps" in row)
