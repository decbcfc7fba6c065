"""Pictures, decoded once: the rows of a `datasets` source become tensors, and the tensors one file in a cache.

The file is safetensors with JSON in its header, so nothing in it can run. Its name is a digest of the source, its
header holds a digest of what is in it, and it appears under its name only when it is whole.
"""

import hashlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from luring.errors import InputError
from luring.types import Images, Labels

Pictures: TypeAlias = UInt8[Tensor, "batch channels height width"] | Images
"""Images as they are kept: one byte a value, 0 to 255, or floats in [0, 1]."""

FORMAT = 1
"""Goes up when the same source would give other tensors: older files are then no longer found."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels, in the order of the source.

    Attributes:
        images: [batch, channels, height, width], uint8 (0 to 255) or float32 in [0, 1].
        labels: [batch], int64, indices into the data set's classes.
    """

    images: Pictures
    labels: Labels


@dataclass(frozen=True, eq=False)
class Decoded:
    """A source in memory.

    Attributes:
        splits: `train` always; `validation` and `test` where the source has them.
        classes: names; a label is an index into them.
        digest: SHA-256 of all the above, in hex.
    """

    splits: dict[str, Split]
    classes: tuple[str, ...]
    digest: str


def gather(splits: dict[str, Split], classes: tuple[str, ...]) -> Decoded:
    """Put a source together and take its digest, the same on every machine."""
    sha = hashlib.sha256(json.dumps(classes).encode())
    for name, split in sorted(splits.items()):
        for tensor in (split.images, split.labels):
            sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            sha.update(tensor.contiguous().numpy().data.cast("B"))
    return Decoded(splits, classes, sha.hexdigest())


def read(path: Path) -> Decoded | None:
    """What `write` put there; None where there is no file, and, with a warning, where it is damaged."""
    if not path.exists():
        return None
    try:
        with safe_open(str(path), "pt") as file:
            about = json.loads(file.metadata()["luring"])
            splits = {
                name: Split(file.get_tensor(f"{name}.images"), file.get_tensor(f"{name}.labels"))
                for name in about["splits"]
            }
        decoded = gather(splits, tuple(about["classes"]))
        reason = None if decoded.digest == about["digest"] else "its content does not match its digest"
    except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        decoded, reason = None, _line(error)
    if reason is None:
        return decoded
    warnings.warn(f"{path} cannot be used and is made anew: {reason}", RuntimeWarning, stacklevel=2)
    return None


def write(path: Path, decoded: Decoded) -> None:
    """Keep a source as one file, whole or not at all. Where it cannot be kept there is a warning, and no error."""
    tensors: dict[str, Tensor] = {}
    for name, split in decoded.splits.items():
        tensors |= {f"{name}.images": split.images, f"{name}.labels": split.labels}
    about = {"splits": list(decoded.splits), "classes": decoded.classes, "digest": decoded.digest}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
            unfinished = Path(folder) / path.name
            save_file(tensors, unfinished, metadata={"luring": json.dumps(about)})
            unfinished.replace(path)
    except (OSError, SafetensorError) as error:
        warnings.warn(
            f"decoded images could not be kept in {path.parent} and will be decoded again next time: {_line(error)}",
            RuntimeWarning,
            stacklevel=2,
        )


def _line(error: BaseException) -> str:
    """The first line of what an error says, or its name."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def decode(source: Mapping[str, Any], *, image: str, label: str, where: str, progress: bool) -> Decoded:
    """Decode every picture of a source.

    If every picture is grey (modes L and 1) the images have 1 channel, otherwise all have 3 (RGB; transparency is
    dropped). Pictures are turned as their EXIF orientation says.

    Args:
        source: `datasets.Dataset` by split; `train` is one of them.
        image: name of the column of pictures.
        label: name of the column of labels: ClassLabel, integers (class indices) or strings (classes in sorted order).
        where: the source, as error messages name it.
        progress: show a progress bar on standard error.

    Raises:
        InputError: a column is missing or of another type, a label or a picture cannot be used, or there are too few.
    """
    for split, rows in source.items():
        if len(rows) == 0:
            raise InputError(f"{where}: the split {split!r} is empty; add images to it or remove it.")
        for column in (image, label):
            if column not in rows.features:
                raise InputError(
                    f"{where}: there is no column {column!r} in the split {split!r}, which has "
                    f"{', '.join(map(repr, rows.features))}; name the columns of images and of labels, and for "
                    "a folder of pictures make a sub-folder for each class, two or more."
                )
    labels, classes = _labels(source, label, where)
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
        pictures = _pictures(source, image, where, lambda: bar.advance(task))
    return gather({split: Split(pictures[split], labels[split]) for split in source}, classes)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:.0f} images/s")


def _labels(source: Mapping[str, Any], column: str, where: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Labels by split, int64, and the names of the classes."""
    values: dict[str, list[Any]] = {}
    for split, rows in source.items():
        values[split] = rows.select_columns([column]).with_format("arrow")[:].column(column).to_pylist()
        if None in values[split]:
            raise InputError(
                f"{where}: row {values[split].index(None)} of the split {split!r} has no label in {column!r}; "
                "give it one or remove the row."
            )
    classes = _classes(source, values, column, where)
    index: Mapping[str, int] = {name: i for i, name in enumerate(classes)}
    labels = {
        split: torch.tensor([index[v] if isinstance(v, str) else v for v in some], dtype=torch.int64)
        for split, some in values.items()
    }
    for split, some in labels.items():
        if int(some.min()) < 0:
            row = int((some < 0).nonzero()[0])
            raise InputError(
                f"{where}: row {row} of the split {split!r} has the label {int(some[row])}; labels count from 0, "
                "so correct it or remove the row (-1 often stands for 'not labelled')."
            )
    seen = set(labels["train"].tolist())
    if len(seen) < 2 or len(labels["train"]) < 3:
        raise InputError(
            f"{where}: the split 'train' has {len(labels['train'])} images of {len(seen)} class(es); "
            "at least 3 images and 2 classes are needed."
        )
    for split, some in labels.items():
        for strange in sorted(set(some.tolist()) - seen):
            raise InputError(
                f"{where}: the class {classes[strange]!r} is in the split {split!r} and not in 'train', where it could "
                "be learned; add images of it to 'train' or remove it."
            )
    return labels, classes


def _classes(source: Mapping[str, Any], values: Mapping[str, list[Any]], column: str, where: str) -> tuple[str, ...]:
    from datasets import ClassLabel, Value  # takes seconds, and a cached source does without

    kinds = [rows.features[column] for rows in source.values()]
    if all(isinstance(kind, ClassLabel) for kind in kinds):
        if any(kind.names != kinds[0].names for kind in kinds):
            raise InputError(
                f"{where}: the splits name the classes in {column!r} differently; give them the same names."
            )
        return tuple(kinds[0].names)
    if all(isinstance(kind, Value) and kind.dtype in ("string", "large_string") for kind in kinds):
        return tuple(sorted({value for some in values.values() for value in some}))
    if all(isinstance(kind, Value) and kind.dtype.lstrip("u").startswith("int") for kind in kinds):
        highest, total = max(map(max, values.values())), sum(map(len, values.values()))
        if highest >= total:
            raise InputError(
                f"{where}: {column!r} goes up to {highest} in {total} images, so it does not hold class indices, which "
                "count from 0; name another column or number the classes anew."
            )
        return tuple(map(str, range(highest + 1)))
    raise InputError(
        f"{where}: the column {column!r} holds {kinds[0]}, which are no labels; "
        "name a column of class labels, integers or strings."
    )


def _pictures(source: Mapping[str, Any], column: str, where: str, advance: Callable[[], None]) -> dict[str, Tensor]:
    """Images by split, uint8, [batch, channels, height, width]; all of one size, 1 channel if all are grey, else 3."""
    import datasets

    arrays: dict[str, np.ndarray] = {}
    first = ""
    for split, rows in source.items():
        if not isinstance(rows.features[column], datasets.Image):
            raise InputError(
                f"{where}: the column {column!r} holds {rows.features[column]}, not images; name the column of images."
            )
        encoded = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False)).with_format("arrow")
        cells = (cell for at in range(0, len(rows), 256) for cell in encoded[at : at + 256].column(column).to_pylist())
        for row, cell in enumerate(cells):
            path = cell and cell["path"]
            name = f"row {row} of the split {split!r}" + (f" ({path})" if path else "")
            if cell is None:
                raise InputError(f"{where}: {name} has no image; give it one or remove the row.")
            # The file of a cell without bytes is read where its errors have a name.
            picture = decoded_picture(
                cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]), f"{where}: {name}"
            )
            size = picture.shape[:2]
            first = first or name
            if split not in arrays:
                arrays[split] = np.empty((len(rows), *size, 1), dtype=np.uint8)
            expected = next(iter(arrays.values())).shape[1:3]
            if size != expected:
                raise InputError(
                    f"{where}: images differ in size, {expected[1]} by {expected[0]} pixels (width by height) in "
                    f"{first} and {size[1]} by {size[0]} in {name}; bring them to one size."
                )
            if picture.shape[2] > arrays[split].shape[3]:
                arrays[split] = arrays[split].repeat(3, axis=3)
            arrays[split][row] = picture
            advance()
    channels = max(array.shape[3] for array in arrays.values())
    return {
        split: torch.from_numpy(array).permute(0, 3, 1, 2).expand(-1, channels, -1, -1).contiguous()
        for split, array in arrays.items()
    }


def decoded_picture(source: bytes | Path, name: str, kinds: tuple[str, ...] | None = None) -> np.ndarray:
    """One picture as uint8, [height, width, 1 or 3], turned as its EXIF orientation says.

    Args:
        source: a file, or what is in it.
        name: what messages call it.
        kinds: that Pillow may take it for; all that it knows where none are given.

    Raises:
        InputError: it cannot be decoded, or has more than 8 bits a value.
    """
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
        with Image.open(io.BytesIO(data), formats=kinds) as picture:
            # Pillow cuts 16-bit colours to 8 without a word; only the layout of the file's data tells.
            layouts = [
                part.args if isinstance(part.args, str) else str((part.args or [""])[0]) for part in picture.tile
            ]
            deep = picture.mode[0] in "IF" or any(";16" in layout for layout in layouts)
            values = None if deep else _values(picture)
    except Exception as error:  # whatever a decoder makes of damaged bytes
        raise InputError(f"{name} cannot be decoded ({_line(error)}); replace or remove it.") from error
    if values is None:
        raise InputError(f"{name} has more than 8 bits a value; convert it to 8-bit grey or RGB.")
    return values


PICTURES = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Kinds of picture that are taken from people nobody knows: Pillow hands some others to programs outside of it."""


def fitting_picture(source: bytes | Path, name: str, shape: tuple[int, int, int]) -> np.ndarray:
    """One picture of a classifier's own size, uint8, [channels, height, width]; grey is repeated where the classifier takes colour.

    The size is looked at before anything is decoded: a small file may claim to be a large picture.

    Args:
        source: a file, or what is in it.
        name: what messages call it.
        shape: of the classifier's images.

    Raises:
        InputError: it cannot be decoded, is of another size, moves, or is in colour where the classifier takes grey.
    """
    channels, height, width = shape
    data = source.read_bytes() if isinstance(source, Path) else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, which are refused here
            with Image.open(io.BytesIO(data), formats=PICTURES) as picture:
                size = picture.size
                fits = size in ((width, height), (height, width))
                several = fits and _has_another(picture)
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{name} claims to be far larger than the {width} by {height} pixels that the classifier takes; scale it."
        ) from error
    except Exception as error:  # whatever a decoder makes of damaged bytes
        raise InputError(
            f"{name} is no picture of a kind that is read here ({', '.join(PICTURES)}), or damaged; replace or remove it."
        ) from error
    if several:
        raise InputError(f"{name} has several pictures in it; give one that does not move.")
    if fits:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which is not used
            found = decoded_picture(data, name, PICTURES).transpose(2, 0, 1)
        size = found.shape[2], found.shape[1]
        if size == (width, height):
            if len(found) > channels:
                raise InputError(f"{name} is in colour, the classifier takes grey; convert it.")
            return np.broadcast_to(found, shape)
    raise InputError(f"{name} is {size[0]} by {size[1]} pixels, the classifier takes {width} by {height}; scale it.")


def _has_another(picture: Image.Image) -> bool:
    """Whether there is a second frame; counting all of them may take long."""
    try:
        picture.seek(1)
    except EOFError:
        return False
    return True


def _values(picture: Image.Image) -> np.ndarray:
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode in ("L", "1"):
        return np.asarray(picture.convert("L"))[:, :, None]
    if picture.mode == "P":
        picture = picture.convert("RGBA")  # straight to RGB, Pillow warns where the palette has transparency
    return np.asarray(picture.convert("RGB"))
