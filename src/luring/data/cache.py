"""Decoded sources kept as files: safetensors with JSON in the header, so nothing in them can run.

A file's name is a digest of its source, its header holds a digest of what is in it, and it appears under its name only when it is whole.
"""

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from luring import processes, rooms
from luring.data.decoded import Decoded, Split, gather
from luring.data.pictures import Taken
from luring.errors import first_line
from luring.scaling import read as read_scaling

FORMAT = 1
"""Goes up when the same source would give other tensors: older files are then no longer found."""


def place() -> Path:
    """The folder of the cache, where none is given."""
    if own := os.environ.get("LURING_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "luring"


@contextmanager
def one_at_a_time(folder: Path) -> Generator[None]:
    """Of several processes of a run on one machine the first decodes, and the others find it done."""
    if processes.here().count == 1:
        yield
        return
    import fcntl  # not on Windows, where there is one process

    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def file(folder: Path, contents: str, image: str, label: str, taken: Taken) -> Path:
    """The file that a source has, if it has one; `contents` is its digest."""
    parts = (str(FORMAT), contents, image, label, *([repr(taken)] if taken != Taken() else []))
    return folder / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}.safetensors"


def read(path: Path) -> Decoded | None:
    """What `write` put there; None where there is no file, and, with a warning, where it is damaged."""
    if not path.exists():
        return None
    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads(file.metadata()["luring"])
            tensor = rooms.mapped(path).__getitem__ if rooms.large(path.stat().st_size) else file.get_tensor
            splits = {name: Split(tensor(f"{name}.images"), tensor(f"{name}.labels")) for name in about["splits"]}
        decoded = gather(splits, tuple(about["classes"]))
        scaling = about.get("scaling")
        decoded = replace(
            decoded,
            scaling=read_scaling(scaling) if scaling else None,
            damaged=tuple(map(str, about.get("damaged", ()))),
        )
        reason = None if decoded.digest == about["digest"] else "its content does not match its digest"
    except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        decoded, reason = None, first_line(error)
    if reason is None:
        return decoded
    warnings.warn(f"{path} cannot be used and is made anew: {reason}", RuntimeWarning, stacklevel=2)
    return None


def write(path: Path, decoded: Decoded) -> None:
    """Keep a source as one file, whole or not at all. Where it cannot be kept there is a warning, and no error."""
    tensors: dict[str, Tensor] = {}
    for name, split in decoded.splits.items():
        tensors |= {f"{name}.images": split.images, f"{name}.labels": split.labels}
    about: dict[str, Any] = {"splits": list(decoded.splits), "classes": decoded.classes, "digest": decoded.digest}
    if decoded.scaling is not None:
        about["scaling"] = asdict(decoded.scaling)
    if decoded.damaged:
        about["damaged"] = decoded.damaged
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
            unfinished = Path(folder) / path.name
            save_file(tensors, unfinished, metadata={"luring": json.dumps(about)})
            unfinished.replace(path)
    except (OSError, SafetensorError) as error:
        warnings.warn(
            f"decoded images could not be kept in {path.parent} and will be decoded again next time: {first_line(error)}",
            RuntimeWarning,
            stacklevel=2,
        )


def stored(path: Path, decoded: Decoded) -> Decoded:
    """The same, kept by `write`; of what memory does not hold, the copy that was kept, so that the other's room on the disk is free again."""
    write(path, decoded)
    if any(rooms.large(split.images.nbytes) for split in decoded.splits.values()):
        return read(path) or decoded
    return decoded
