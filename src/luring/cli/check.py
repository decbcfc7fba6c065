"""`luring check`."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tyro.conf import OmitArgPrefixes, Positional, arg

from luring.cli.app import Device, Parts, app, place_of, say

if TYPE_CHECKING:
    from luring.check import Verdict


@app.command
def check(
    bundle: Positional[Path],
    pictures: Positional[Path],
    as_json: Annotated[bool, arg(name="json")] = False,
    parts: OmitArgPrefixes[Parts] = Parts(),  # noqa: B008
    device: Device = "auto",
) -> None:
    """Let the guard of a bundle look at picture files: M's answer, the score and the verdict for each.

    The exit code is 1 where a file was flagged or could not be looked at, and 0 where all were let through.

    Args:
        bundle: folder with a guard, by 'luring calibrate'.
        pictures: a picture, or a folder: every picture in it and in the folders in it.
        as_json: one JSON object a line instead of a table.
        parts: what the bundle does not hold.
        device: where to compute.
    """
    from luring import bundle as bundle_room
    from luring.check import verdicts
    from luring.guard import Detector

    place = place_of(device)
    loaded = bundle_room.load(bundle, **vars(parts))
    detector = Detector.load(bundle, loaded.target.to(place), loaded.decoy.to(place))
    found = verdicts(
        detector,
        pictures,
        shape=tuple(loaded.config["shape"]),
        classes=loaded.config["classes"],
        scaling=loaded.scaling,
    )
    if not (_print_lines if as_json else _print_table)(found):
        sys.exit(1)


def _print_lines(found: "Iterable[Verdict]") -> bool:
    """Each verdict as JSON, as soon as it is there; whether all were let through."""
    passed = True
    for verdict in found:
        print(json.dumps(asdict(verdict), ensure_ascii=False), flush=True)
        passed = passed and verdict.verdict == "pass"
    return passed


def _print_table(found: "Iterable[Verdict]") -> bool:
    """All verdicts as a table; whether all were let through."""
    verdicts = list(found)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("File", "Verdict", "M answers", "Score"):
        table.add_column(name, justify="right" if name == "Score" else "left", overflow="fold")
    for one in verdicts:
        score = "" if one.score is None else f"{one.score:.3g}"
        table.add_row(*map(Text, (one.file, one.verdict, one.answer or one.reason or "", score)))
    Console().print(table)
    counts = Counter(one.verdict for one in verdicts)
    say(f"{counts['pass']} passed, {counts['flagged']} flagged, {counts['unreadable']} unreadable.")
    return counts["pass"] == len(verdicts)
