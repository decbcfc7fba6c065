"""The arrows between the rooms, as pyproject.toml draws them."""

import subprocess
import sys
from pathlib import Path


def test_rooms_import_only_what_lies_below_them():
    # A process of its own: in this one it would switch off every logger there is.
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
