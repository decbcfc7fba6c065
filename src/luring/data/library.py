"""The library `datasets`, by which folders and the hub are read."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from luring.data.decoded import PARTS
from luring.errors import InputError, first_line


@contextmanager
def quiet() -> Generator[Any]:
    """The library, which takes seconds to import, without its progress bars."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield datasets
    finally:
        if shown:
            datasets.enable_progress_bars()


def parts(found: Any, where: str) -> dict[str, Any]:
    """The splits to be decoded, `train` first. A source of one split is training data, whatever the split is called."""
    if len(found) == 1:
        return {"train": next(iter(found.values()))}
    if "train" not in found:
        raise InputError(f"{where} has the splits {', '.join(map(repr, found))}; name one of them 'train'.")
    return {part: found[part] for part in PARTS if part in found}


def reason(error: BaseException) -> str:
    """The first line of what lies at the bottom of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
