"""Pictures become tensors: the rows of a `datasets` source, decoded once."""

import io
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor

from luring import rooms
from luring.data import labels as labelling
from luring.data.decoded import Decoded, Split, gather
from luring.errors import InputError
from luring.picture import DamagedError, decoded_picture
from luring.scaling import Scaling

AT_ONCE = 32
"""Pictures held before they are decoded."""

ORIENTATION, SIDEWAYS = 0x0112, 5
"""EXIF's tag, and the first of its values that swap the sides."""


@dataclass(frozen=True)
class Taken:
    """What pictures are taken, and how.

    Attributes:
        scaling: what they are brought to one size by; none: they must have one.
        always: scale them also where all have one size, no larger than that of `scaling`.
        damaged: share of them that may be left out because they cannot be decoded.
    """

    scaling: Scaling | None = None
    always: bool = False
    damaged: float = 0.01


def decode(
    source: Mapping[str, Any],
    *,
    image: str,
    label: str,
    where: str,
    progress: bool,
    taken: Taken | None = None,
    folder: Path | None = None,
) -> Decoded:
    """Decode every picture of a source.

    If every picture is grey (modes L and 1) the images have 1 channel, otherwise all have 3 (RGB; transparency is
    dropped). Pictures are turned as their EXIF orientation says.

    Args:
        source: `datasets.Dataset` by split; `train` is one of them.
        image: name of the column of pictures.
        label: name of the column of labels: ClassLabel, integers (class indices) or strings (classes in sorted order). A source
            of pictures alone has no labels, and where `label` is `none` none are read; any other name must be there.
        where: the source, as error messages name it.
        progress: show a progress bar on standard error.
        taken: what pictures are taken, and how.
        folder: for images that memory is not to hold; the system's for temporary files where none is given.

    Raises:
        InputError: a column is missing or of another type, a label or a picture cannot be used, or there are too few.
    """
    taken = taken or Taken()
    columns = {column for rows in source.values() for column in rows.features}
    labelled = columns != {image} if label == "label" else label in columns or label != "none"
    for split, rows in source.items():
        if len(rows) == 0:
            raise InputError(f"{where}: the split {split!r} is empty; add images to it or remove it.")
        for column in (image, label) if labelled else (image,):
            if column not in rows.features:
                raise InputError(
                    f"{where}: there is no column {column!r} in the split {split!r}, which has "
                    f"{', '.join(map(repr, rows.features))}; name the columns of images and of labels, and for "
                    "a folder of pictures make a sub-folder for each class, two or more, or do without labels (--label none)."
                )
    labels, classes = labelling.labels(source, label, where) if labelled else labelling.none(source, where)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not progress,
    )
    with bar:
        task = bar.add_task(f"decoding {Path(where).name}", total=sum(map(len, source.values())))
        if taken.scaling is not None and not taken.always and _of_one_size(source, image, taken.scaling):
            taken = replace(taken, scaling=None)
        pictures, whole, damaged = _pictures(
            source, image, where, taken, folder or Path(tempfile.gettempdir()), lambda: bar.advance(task)
        )
    splits = {split: Split(pictures[split], labels[split][whole[split]]) for split in source}
    return replace(gather(splits, classes), scaling=taken.scaling, damaged=damaged)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:.0f} images/s")


def _cells(rows: Any, split: str, column: str, where: str) -> Iterator[tuple[str, bytes | Path]]:
    """The pictures of a split, by name, not decoded."""
    import datasets

    if not isinstance(rows.features[column], datasets.Image):
        raise InputError(
            f"{where}: the column {column!r} holds {rows.features[column]}, not images; name the column of images."
        )
    encoded = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False)).with_format("arrow")
    cells = (
        cell for at in range(0, len(rows), AT_ONCE) for cell in encoded[at : at + AT_ONCE].column(column).to_pylist()
    )
    for row, cell in enumerate(cells):
        path = cell and cell["path"]
        name = f"row {row} of the split {split!r}" + (f" ({path})" if path else "")
        if cell is None:
            raise InputError(f"{where}: {name} has no image; give it one or remove the row.")
        # The file of a cell without bytes is read where its errors have a name.
        yield name, cell["bytes"] if cell["bytes"] is not None else Path(cell["path"])


def _of_one_size(source: Mapping[str, Any], column: str, scaling: Scaling) -> bool:
    """Whether all pictures that can be read have one size, no larger than that of `scaling`; nothing is decoded."""
    sizes: set[tuple[int, int]] = set()
    for split, rows in source.items():
        for _, cell in _cells(rows, split, column, split):
            try:
                with (
                    warnings.catch_warnings(action="ignore"),
                    Image.open(io.BytesIO(cell) if isinstance(cell, bytes) else cell) as picture,
                ):
                    turned = picture.getexif().get(ORIENTATION, 1) >= SIDEWAYS
                    sizes.add((picture.height, picture.width) if turned else picture.size)
            except Exception:  # whatever a decoder makes of damaged bytes; it is named when it is decoded
                continue
            if len(sizes) > 1:
                return False
    return all(width <= scaling.width and height <= scaling.height for width, height in sizes)


def _pictures(
    source: Mapping[str, Any], column: str, where: str, taken: Taken, folder: Path, advance: Callable[[], None]
) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[str, ...]]:
    """Images by split, uint8, [batch, channels, height, width], all of one size, 1 channel if all are grey, else 3; which rows they are; what was left out."""
    arrays: dict[str, np.ndarray] = {}
    whole = {split: torch.ones(len(rows), dtype=torch.bool) for split, rows in source.items()}
    damaged: list[str] = []
    good = dict.fromkeys(source, 0)
    allowed = int(taken.damaged * sum(map(len, source.values())))
    first = ""
    for split, rows in source.items():
        for row, (name, cell) in enumerate(_cells(rows, split, column, where)):
            advance()
            try:
                picture = decoded_picture(cell, f"{where}: {name}", taken.scaling)
            except DamagedError as error:
                damaged.append(name)
                whole[split][row] = False
                if len(damaged) > allowed:
                    others = f", as {len(damaged) - 1} before it" if allowed else ""
                    raise InputError(
                        f"{str(error).rstrip('.')}{others}; at most {taken.damaged:.1%} of the pictures may be damaged (--damaged)."
                    ) from error
                continue
            size = picture.shape[:2]
            first = first or name
            if split not in arrays:
                arrays[split] = rooms.room((len(rows), picture.shape[2], *size), folder)
            expected = next(iter(arrays.values())).shape[2:]
            if size != expected:
                raise InputError(
                    f"{where}: images differ in size, {expected[1]} by {expected[0]} pixels (width by height) in "
                    f"{first} and {size[1]} by {size[0]} in {name}; bring them to one size, with --size for instance."
                )
            arrays[split] = rooms.widened(arrays[split], max(picture.shape[2], arrays[split].shape[1]), folder)
            arrays[split][good[split]] = picture.transpose(2, 0, 1)
            good[split] += 1
        if split not in arrays:
            raise InputError(f"{where}: no picture of the split {split!r} can be decoded; replace them.")
    channels = max(array.shape[1] for array in arrays.values())
    images = {
        split: torch.from_numpy(rooms.widened(array, channels, folder))[: good[split]]
        for split, array in arrays.items()
    }
    return images, whole, tuple(damaged)
