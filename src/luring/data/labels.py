"""Labels and class names of a `datasets` source."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from luring.data.decoded import UNKNOWN
from luring.errors import InputError


def labels(source: Mapping[str, Any], column: str, where: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Labels by split, int64, and the names of the classes.

    Args:
        source: `datasets.Dataset` by split; `train` is one of them.
        column: of ClassLabel, integers (class indices) or strings (classes in sorted order).
        where: the source, as error messages name it.

    Raises:
        InputError: a label cannot be used, or there are too few.
    """
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
    found = {
        split: torch.tensor([index[v] if isinstance(v, str) else v for v in some], dtype=torch.int64)
        for split, some in values.items()
    }
    for split, some in found.items():
        if int(some.min()) < 0:
            row = int((some < 0).nonzero()[0])
            raise InputError(
                f"{where}: row {row} of the split {split!r} has the label {int(some[row])}; labels count from 0, "
                "so correct it or remove the row (-1 often stands for 'not labelled')."
            )
    seen = set(found["train"].tolist())
    if len(seen) < 2 or len(found["train"]) < 3:
        raise InputError(
            f"{where}: the split 'train' has {len(found['train'])} images of {len(seen)} class(es); "
            "at least 3 images and 2 classes are needed."
        )
    for split, some in found.items():
        for strange in sorted(set(some.tolist()) - seen):
            raise InputError(
                f"{where}: the class {classes[strange]!r} is in the split {split!r} and not in 'train', where it could "
                "be learned; add images of it to 'train' or remove it."
            )
    return found, classes


def none(source: Mapping[str, Any], where: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The same where there are none: -1 throughout, and no classes."""
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
