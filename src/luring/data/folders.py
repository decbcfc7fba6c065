"""A folder of pictures or of parquet files as a source."""

import hashlib
import os
import re
import tempfile
from pathlib import Path

from luring import rooms
from luring.data import cache, class_folders, library, pictures
from luring.data.decoded import Decoded
from luring.data.pictures import Taken
from luring.errors import InputError


def load(folder: Path, image: str, label: str, taken: Taken, *, kept: Path, progress: bool) -> Decoded:
    """What a folder holds, decoded, or as it lies in the cache under `kept`.

    Raises:
        InputError: it holds no images, or something in it cannot be used.
    """
    if re.search(r"[*?\[\]]", str(folder.absolute())):  # `datasets` would take it for a pattern, and find nothing
        raise InputError(f"the path {folder.absolute()} has one of the characters * ? [ ] in it; rename the folder.")
    try:
        contents = digest(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error}); check its files and their permissions.") from error
    path = cache.file(kept, contents, image, label, taken)
    if (found := cache.read(path)) is not None:
        return found
    # Its own Arrow copy is found again by sizes and times; a folder of ours leaves none behind.
    place = rooms.roomier(kept)
    with (
        tempfile.TemporaryDirectory(prefix=".luring-", dir=place, ignore_cleanup_errors=True) as copy,
        library.quiet() as datasets,
    ):
        try:
            read = datasets.load_dataset(str(folder.absolute()), cache_dir=copy)
        except FileNotFoundError as error:
            raise InputError(f"{folder} holds no images; give a folder of parquet files or of pictures.") from error
        except Exception as error:  # anything that damaged files bring about
            reason = library.reason(error)
            if "corresponds to no data" in reason:
                raise InputError(f"{folder}: a split is empty ({reason}); add images to it or remove it.") from error
            raise InputError(f"{folder} cannot be read ({reason}); check its files.") from error
        splits = library.parts(read, str(folder))
        source = pictures.decode(
            class_folders.trusted(splits, image, folder) if label == "label" else splits,
            image=image,
            label=label,
            where=str(folder),
            progress=progress,
            taken=taken,
            folder=kept,
        )
    # Else it changed while it was read.
    return cache.stored(path, source) if digest(folder) == contents else source


def digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all files in a folder; times and sizes can stay the same."""
    sha = hashlib.sha256()
    files = [Path(at) / file for at, _, names in os.walk(folder, followlinks=True) for file in names]
    for file in sorted(files):
        if file.is_file():
            sha.update(os.fsencode(file.relative_to(folder)) + b"\0" + file_digest(file))
    return sha.hexdigest()


def file_digest(file: Path) -> bytes:
    """SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()
