"""Rows: one JSON object a line, a line a measured cell. `docs/rows.md` describes every field.

A row is written whole or not at all, so a run can be stopped at any moment; a second run reads what is there and goes on.
"""

import base64
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from luring.errors import InputError

Row: TypeAlias = dict[str, Any]

COMMON = (
    "kind",
    "dataset",
    "scale",
    "architecture",
    "seed",
    "n",
    "settings",
    "seconds",
    "commit",
    "versions",
    "hardware",
)
"""Fields of every row."""

CELL = ("kind", "dataset", "scale", "architecture", "attack", "eps", "seed", "index", "rung", "on", "check")
"""Fields that name a cell, where a row has them; with the steps of a `convergence` row they tell it from all others of its file."""


def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The cell that a row belongs to."""
    steps = row.get("settings", {}).get("steps") if row.get("kind") == "convergence" else None
    return (*(row.get(field) for field in CELL), steps)


def read(path: Path) -> list[Row]:
    """All rows of a file, in its order; none where there is no file.

    A last line without an end is what a killed run leaves behind: it is passed over, and `append` takes it away.

    Raises:
        InputError: another line is damaged. The file is left as it is.
    """
    if not path.exists():
        return []
    rows: list[Row] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict) or "kind" not in row:
                raise InputError(
                    f"{path}, line {number} is not a row (a JSON object with a 'kind'): remove that line and run again; "
                    "every other line is kept as it is."
                )
            rows.append(row)
    return rows


def append(path: Path, row: Row) -> None:
    """Write one row at the end of a file, whole or not at all (a full disk leaves the file as it was).

    Args:
        path: the file; it and its folder are made where they are missing.
        row: the fields; `nan` becomes `null`, for JSON has no other word for it.
    """
    line = json.dumps(_plain(row), allow_nan=False, separators=(",", ":")).encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        end = _end_of_last_line(file)
        file.truncate(end)
        try:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def _end_of_last_line(file: Any) -> int:
    """Where the last whole line ends: what stands behind it is a line that was never finished."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def digest(value: Any) -> str:
    """A short name for settings: the first 12 hex digits of the SHA-256 of their JSON, keys sorted."""
    return hashlib.sha256(json.dumps(_plain(value), sort_keys=True).encode()).hexdigest()[:12]


@cache
def provenance() -> dict[str, Any]:
    """Where and with what a row was made: `commit`, `versions`, `hardware`, `date`.

    `commit` is null where the package does not run from a git checkout, and ends in `-dirty` where tracked files were changed.
    """
    return {
        "commit": _commit(),
        "versions": {
            "luring": _version("luring"),
            "python": platform.python_version(),
            **{name: _version(name) for name in ("torch", "numpy", "datasets", "scikit-learn")},
        },
        "hardware": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "gpu": _gpu(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "date": datetime.now(UTC).date().isoformat(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    here = Path(__file__).resolve()
    git = ["git", "-C", str(here.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], check=True, capture_output=True, timeout=10)
        done = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            check=True,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None


def select(rows: Iterable[Row], **fields: Any) -> list[Row]:
    """The rows in which each named field has the given value."""
    return [row for row in rows if all(row.get(name) == value for name, value in fields.items())]


def labels(row: Row) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of a `transfer` row the truth, M's and M∘P's answers, each [n]."""
    packed = (base64.b64decode(row["labels"][name]) for name in ("y", "m", "mop"))
    y, m, mop = (np.frombuffer(text, "u1" if len(text) == row["n"] else "<u2").astype(np.int64) for text in packed)
    return y, m, mop
