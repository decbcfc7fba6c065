"""Whether the folders that pictures lie in name their classes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luring.errors import InputError


def trusted(source: Mapping[str, Any], image: str, folder: Path) -> dict[str, Any]:
    """The splits of a folder, with labels from class folders only where there are class folders.

    `datasets` takes the last folder of each picture for its class. Where all pictures of each split lie in one folder that is the split's own
    (`train/1.png`, `test/1.png`), or the only class there is: then there are no labels.

    Args:
        source: `datasets.Dataset` by split; `train` is one of them.
        image: name of the column of pictures.
        folder: that was read.

    Raises:
        InputError: some pictures lie deeper than others, or in class folders that 'train' has not, so that labels would be lost.
    """
    splits = dict(source)
    if not all(_by_folders(rows, image) for rows in splits.values()):
        return splits
    places = {split: _places(rows, image) for split, rows in splits.items()}
    files = {place: file for found in places.values() for place, file in found.items()}
    shallow, deep = (pick(files, key=lambda place: len(place.parts)) for pick in (min, max))
    if len(shallow.parts) != len(deep.parts):
        raise InputError(
            f"{folder}: {_within(folder, files[deep])} lies in more folders than {_within(folder, files[shallow])}, so the folders do not name "
            "the classes; put each picture, in every split, into the folder of its class, or do without labels (--label none)."
        )
    several = [split for split, found in places.items() if len(found) > 1]
    if several and "train" not in several:
        raise InputError(
            f"{folder}: all pictures of the split 'train' lie in one folder and those of {several[0]!r} in {len(places[several[0]])}; "
            "make a folder for each class in 'train', two or more, or do without labels (--label none)."
        )
    if not several:
        return {split: rows.select_columns([image]) for split, rows in splits.items()}
    return splits


def _by_folders(rows: Any, image: str) -> bool:
    """Whether this is a folder of pictures, without a table that says more of them."""
    from datasets import ClassLabel  # takes seconds, and a cached source does without

    others = {column: kind for column, kind in rows.features.items() if column != image}
    named = not others or (list(others) == ["label"] and isinstance(others["label"], ClassLabel))
    return rows.info.builder_name == "imagefolder" and image in rows.features and named


def _places(rows: Any, image: str) -> dict[Path, Path]:
    """The folders that pictures lie in, with a picture of each."""
    from datasets import Image

    encoded = rows.select_columns([image]).cast_column(image, Image(decode=False)).with_format("arrow")
    files = (Path(cell["path"]) for table in encoded.iter(1000) for cell in table.column(image).to_pylist())
    return {file.parent: file for file in files}


def _within(folder: Path, file: Path) -> str:
    return os.path.relpath(file, folder.absolute())
