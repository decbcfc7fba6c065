"""`luring report`."""

from pathlib import Path

from tyro.conf import Positional

from luring.cli.app import app
from luring.cli.shown import show
from luring.errors import InputError


@app.command
def report(folder: Positional[Path]) -> None:
    """Draw report.html anew from a folder's rows.jsonl, or from those of the folders in it.

    Args:
        folder: with rows.jsonl, or with folders that have one.
    """
    from luring import rows

    files = [folder / "rows.jsonl"] if (folder / "rows.jsonl").exists() else sorted(folder.glob("*/rows.jsonl"))
    if not files:
        raise InputError(f"{folder} has no rows.jsonl, nor has a folder in it: give the --out of an earlier run.")
    show([row for file in files for row in rows.read(file)], folder)
