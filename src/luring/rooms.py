"""Room for images: in memory where they are few, otherwise on the disk, from where the system brings in what is looked at and forgets it again."""

import json
import mmap
import os
import shutil
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from luring.errors import InputError

IN_MEMORY = 2**30
"""Bytes of images up to which they are held in memory."""

CHUNK = 2**26
"""Bytes copied at a time."""


def large(size: int) -> bool:
    """Whether this many bytes belong on the disk."""
    return size > IN_MEMORY


def room(shape: tuple[int, ...], folder: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Bytes to be filled: an array, or, where it is large, a file without a name that lasts as long as the array.

    Args:
        shape: of the array.
        folder: where a file goes, if one can be made there; the system's folder for temporary files otherwise.

    Raises:
        InputError: the disk has no room for it.
    """
    size = int(np.prod(shape, dtype=np.int64))
    if not large(size):
        return np.empty(shape, dtype=np.uint8)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    except OSError:
        file = tempfile.TemporaryFile()  # noqa: SIM115
    with file:
        try:
            # A disk that is full later, while the mapping is written to, would end the process without a word.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise InputError(
                f"{size / 2**30:.1f} GiB of decoded images do not fit on the disk of {folder} ({(error.strerror or str(error)).lower()}): "
                "make room there, or name another folder in LURING_CACHE."
            ) from error
        return np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)


def widened(
    array: np.ndarray[Any, np.dtype[np.uint8]], channels: int, folder: Path
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Images [n, 1, height, width] with their one channel repeated; others as they are."""
    if array.shape[1] == channels:
        return array
    wide = room((len(array), channels, *array.shape[2:]), folder)
    for part in _parts(len(array), wide[:1].nbytes):
        wide[part] = array[part]
    return wide


def rows(images: Tensor, index: Tensor, folder: Path) -> Tensor:
    """A copy of some of the images, in the order of `index`."""
    if not large(len(index) * images[:1].nbytes):
        return images[index]
    found = torch.from_numpy(room((len(index), *images.shape[1:]), folder))
    for part in _parts(len(index), images[:1].nbytes):
        found[part] = images[index[part]]
    return found


def mapped(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, left on the disk; what is written into them stays in memory and never reaches it.

    Args:
        path: a file that `safetensors` has opened without complaint.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
        if sys.platform == "win32":
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        else:
            # No memory is set aside for a copy of all of it, which may be more than there is.
            unreserved = 0x4000 if sys.platform == "linux" else 0
            content = mmap.mmap(
                file.fileno(), 0, flags=mmap.MAP_PRIVATE | unreserved, prot=mmap.PROT_READ | mmap.PROT_WRITE
            )
    kinds = {"U8": np.uint8, "I64": np.int64, "F32": np.float32}
    found: dict[str, Tensor] = {}
    for name, about in header.items():
        if name != "__metadata__":
            kind, shape, (start, _) = np.dtype(kinds[about["dtype"]]), about["shape"], about["data_offsets"]
            count = int(np.prod(shape, dtype=np.int64))
            flat = np.frombuffer(content, kind, count, 8 + length + start)
            found[name] = torch.from_numpy(flat.reshape(shape))
    return found


def roomier(folder: Path) -> Path:
    """The folder, or the system's for temporary files if the folder cannot be made or its disk has less room."""
    temporary = Path(tempfile.gettempdir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return max(folder, temporary, key=lambda place: shutil.disk_usage(place).free)
    except OSError:
        return temporary


def _parts(count: int, size: int) -> list[slice]:
    """Slices of so many items of that size, a chunk each."""
    step = max(1, CHUNK // max(1, size))
    return [slice(at, min(at + step, count)) for at in range(0, count, step)]
