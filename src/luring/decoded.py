"""Pictures, decoded once: the rows of a `datasets` source become tensors, and the tensors one file in a cache.

The file is safetensors with JSON in its header, so nothing in it can run. Its name is a digest of the source, its
header holds a digest of what is in it, and it appears under its name only when it is whole.
"""

import hashlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from luring import rooms
from luring.errors import InputError
from luring.picture import DamagedError, decoded_picture
from luring.scaling import Scaling
from luring.scaling import read as read_scaling
from luring.types import Images, Labels

log = logging.getLogger("luring")

Pictures: TypeAlias = UInt8[Tensor, "batch channels height width"] | Images
"""Images as they are kept: one byte a value, 0 to 255, or floats in [0, 1]."""

UNKNOWN = -1
"""The label of an image whose class nobody has said."""

AT_ONCE = 32
"""Pictures held before they are decoded."""

NAMED = 5
"""Damaged pictures that a message names."""

FORMAT = 1
"""Goes up when the same source would give other tensors: older files are then no longer found."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels, in the order of the source.

    Attributes:
        images: [batch, channels, height, width], uint8 (0 to 255) or float32 in [0, 1].
        labels: [batch], int64, indices into the data set's classes; -1 throughout where the source has no labels.
    """

    images: Pictures
    labels: Labels


@dataclass(frozen=True, eq=False)
class Decoded:
    """A source in memory.

    Attributes:
        splits: `train` always; `validation` and `test` where the source has them.
        classes: names; a label is an index into them. None where the source has no labels.
        digest: SHA-256 of all the above, in hex.
        scaling: that the pictures were brought to one size by; none where they had one.
        damaged: pictures that could not be decoded and were left out.
    """

    splits: dict[str, Split]
    classes: tuple[str, ...]
    digest: str
    scaling: Scaling | None = None
    damaged: tuple[str, ...] = ()


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
            f"decoded images could not be kept in {path.parent} and will be decoded again next time: {_line(error)}",
            RuntimeWarning,
            stacklevel=2,
        )


def stored(path: Path, decoded: Decoded) -> Decoded:
    """The same, kept by `write`; of what memory does not hold, the copy that was kept, so that the other's room on the disk is free again."""
    write(path, decoded)
    if any(rooms.large(split.images.nbytes) for split in decoded.splits.values()):
        return read(path) or decoded
    return decoded


def _line(error: BaseException) -> str:
    """The first line of what an error says, or its name."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


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
    labels, classes = _labels(source, label, where) if labelled else _none(source, where)
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


def warn_of_damaged(where: str, decoded: Decoded) -> None:
    """Say which pictures were left out, where any were."""
    if decoded.damaged:
        total = len(decoded.damaged) + sum(len(split.labels) for split in decoded.splits.values())
        more = ", …" if len(decoded.damaged) > NAMED else ""
        log.warning(
            f"{where}: {len(decoded.damaged)} of {total} pictures cannot be decoded and were left out: "
            f"{', '.join(decoded.damaged[:NAMED])}{more}"
        )


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


def _none(source: Mapping[str, Any], where: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Labels and classes where there are none."""
    if len(source["train"]) < 3:
        raise InputError(f"{where}: the split 'train' has {len(source['train'])} images; at least 3 are needed.")
    return {split: torch.full((len(rows),), UNKNOWN) for split, rows in source.items()}, ()


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


ORIENTATION, SIDEWAYS = 0x0112, 5
"""EXIF's tag, and the first of its values that swap the sides."""


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
