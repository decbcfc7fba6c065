"""`luring report`."""

from pathlib import Path

from tyro.conf import Positional

from luring.cli.app import app, say
from luring.cli.shown import show
from luring.errors import InputError


@app.command
def report(folder: Positional[Path]) -> None:
    """Draw report.html anew from a folder's rows.jsonl, or from those of the folders in it.

    A folder that repeats a cell of one before it, by name, is left out and named: another run of the same cannot be told from it in a table.

    Args:
        folder: with rows.jsonl, or with folders that have one.
    """
    from luring import rows

    files = [folder / "rows.jsonl"] if (folder / "rows.jsonl").exists() else sorted(folder.glob("*/rows.jsonl"))
    if not files:
        raise InputError(f"{folder} has no rows.jsonl, nor has a folder in it: give the --out of an earlier run.")
    shown: list[rows.Row] = []
    taken: dict[tuple[object, ...], Path] = {}
    for file in files:
        found = rows.read(file)
        keys = [rows.key(row) for row in found]
        if other := next((taken[key] for key in keys if key in taken), None):
            say(f"{file.parent} is left out: it repeats cells of {other}. luring report {file.parent} draws it alone.")
            continue
        taken |= dict.fromkeys(keys, file.parent)
        shown += found
    show(shown, folder)
