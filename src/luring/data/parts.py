"""Train, validation and test part of a source: its own splits, or shares drawn at random from a seed."""

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from luring import rooms
from luring.data import cache
from luring.data.decoded import UNKNOWN, Decoded, Split, gather

VALIDATION = 0.17
"""Share of the training part held out for validation, as in the paper's experiments."""

TEST = 0.15
"""Share held out for testing where a source has no test part."""


def parted(source: Decoded, seed: int, folder: Path) -> tuple[Split, Split, Split]:
    """Train, validation and test part. Parts of a large source that are drawn at random are kept on the disk as it is."""
    train, test, validation = (source.splits.get(part) for part in ("train", "test", "validation"))
    assert train is not None
    on_disk = (test is None or validation is None) and rooms.large(train.images.nbytes)
    kept = folder / f"{hashlib.sha256(f'{source.digest} parts {seed}'.encode()).hexdigest()[:32]}.safetensors"
    if on_disk and (found := cache.read(kept)) is not None:
        return found.splits["train"], found.splits["validation"], found.splits["test"]
    if test is None:
        test, validation = validation, None
    if test is None:
        train, test = divided(train, TEST, seed, folder)
    if validation is None:
        train, validation = divided(train, VALIDATION, seed, folder)
    if on_disk:
        whole = gather({"train": train, "validation": validation, "test": test}, source.classes)
        found = cache.stored(kept, whole).splits
        return found["train"], found["validation"], found["test"]
    return train, validation, test


def hold_out(images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Images for training, and a seeded 17 % of them for validation."""
    unknown = torch.full((len(images),), UNKNOWN)
    train, validation = divided(Split(images, unknown), VALIDATION, seed)
    return train.images, validation.images


def divided(split: Split, share: float, seed: int, folder: Path | None = None) -> tuple[Split, Split]:
    """What is left, and a random share of a split; each keeps its order. `folder` is for what memory is not to hold."""
    n = len(split.labels)
    held = np.zeros(n, dtype=bool)
    held[np.random.RandomState(seed).permutation(n)[: max(1, round(n * share))]] = True
    place = folder or Path(tempfile.gettempdir())
    kept, out = torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))
    return (
        Split(rooms.rows(split.images, kept, place), split.labels[kept]),
        Split(rooms.rows(split.images, out, place), split.labels[out]),
    )
