"""Files that are written whole or not at all."""

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from luring.errors import InputError


@contextmanager
def replacing(path: Path) -> Generator[IO[bytes]]:
    """A file to write into, which takes `path`'s place when the block ends without an exception and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            # A temporary file is its owner's alone; what takes the place gets the permissions of an ordinary new file.
            umask = os.umask(0)
            os.umask(umask)
            Path(file.name).chmod(0o666 & ~umask)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON file for people to read as well, whole or not at all."""
    with replacing(path) as file:
        file.write(json.dumps(value, indent=2).encode() + b"\n")


def probe(folder: Path) -> None:
    """See whether a file can be made in a folder, before any work is done for it; nothing is left behind.

    Raises:
        InputError: it cannot.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({(error.strerror or str(error)).lower()}): give another folder with --out."
        ) from error
    finally:
        # Empty folders that were made for the trial go again; what follows makes them when it has something to put there.
        for place in missing:
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
