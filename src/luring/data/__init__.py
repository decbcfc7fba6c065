"""Image data sets: a hub id, a local folder, or a built-in name, all by `load`. See `docs/data.md`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from luring import answers
from luring.data import built_in, folders, hub
from luring.data import cache as caching
from luring.data.built_in import BUILT_IN, toy_zones
from luring.data.decoded import PARTS, Split, warn_of_damaged
from luring.data.hub import KNOWN
from luring.data.parts import hold_out, parted
from luring.data.pictures import Taken
from luring.data.values import Pictures, check, to_float
from luring.errors import InputError
from luring.scaling import Scaling
from luring.types import Classifier

__all__ = [
    "ANSWERED",
    "BUILT_IN",
    "KNOWN",
    "Dataset",
    "Pictures",
    "Scaling",
    "Split",
    "Taken",
    "check",
    "hold_out",
    "load",
    "matched",
    "to_float",
    "toy_zones",
]

ANSWERED = ", labels by M"
"""What the name of a data set without labels gets, when a target's answers take their place."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images in three disjoint parts.

    Attributes:
        name: as given to `load`.
        train: what networks are trained on.
        validation: what the best checkpoint is chosen by.
        test: what is reported.
        classes: names; a label is an index into them. None where the source has no labels (`matched` then takes a target's answers).
        digest: SHA-256 of the source's images, labels and class names, in hex; the same for every seed but for `toy`,
            whose images are drawn from the seed.
        scaling: that the pictures were brought to one size by; none where they had one.
        damaged: pictures that could not be decoded and were left out.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    digest: str
    scaling: Scaling | None = None
    damaged: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width


def load(
    name: str,
    *,
    seed: int = 0,
    label: str = "label",
    image: str = "image",
    taken: Taken | None = None,
    cache: Path | None = None,
    progress: bool = True,
) -> Dataset:
    """Load a data set: into memory, or, where its images take more than a GiB, so that they are read from the disk as they are needed.

    Pictures are decoded once and kept in `cache` under a digest of their source, which is taken anew each time.

    Args:
        name: `digits`, `toy`, `mnist`, `fashion_mnist`, `cifar10`, `svhn`, a folder, the name of a folder under
            `LURING_DATA`, or a hub id `owner/name`. These names come before folders here: write `./mnist` for a folder.
        seed: of the random splits and of `toy`, from 0 to 2³² - 1; the same seed gives the same parts on every machine.
        label: name of the column of labels; `none` where there are none. A folder of pictures without class folders has none.
        image: name of the column of images.
        taken: what pictures are taken, and how: their size, and how many may be damaged.
        cache: folder for decoded images; by default `LURING_CACHE`, then `luring` under `XDG_CACHE_HOME` or `~/.cache`.
        progress: show a progress bar while decoding.

    Returns:
        Images are uint8, or float32 in [0, 1] for `digits` and `toy`; `to_float` takes both.

    Raises:
        InputError: there is no such data set, or something in it cannot be used.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"the seed {seed} is out of range; choose one from 0 to {2**32 - 1}.")
    kept = cache or caching.place()
    with caching.one_at_a_time(kept):
        if name == "digits":
            source = built_in.digits()
        elif name == "toy":
            source = built_in.toy(seed)
        elif (folder := _folder(name)) is not None:
            source = folders.load(folder, image, label, taken or Taken(), kept=kept, progress=progress)
        else:
            source = hub.load(name, image, label, taken or Taken(), kept=kept, progress=progress)
        warn_of_damaged(name, source)
        train, validation, test = parted(source, seed, kept)
    return Dataset(name, train, validation, test, source.classes, source.digest, source.scaling, source.damaged)


def matched(dataset: Dataset, model: Classifier, names: Sequence[str] | None) -> Dataset:
    """Labels as a classifier counts them: by the names of the classes where it knows them; its own answers where there are none.

    Args:
        dataset: with or without labels.
        model: images to logits.
        names: of its classes, where they are known.

    Returns:
        Labels that are indices into the classifier's classes. Where they are its answers, the name of the data set says so.

    Raises:
        InputError: the classes are not the classifier's.
    """
    found = answers.logits(model, dataset.test.images[:1]).shape[1]
    if not dataset.classes:
        splits = [
            Split(split.images, answers.labels(model, split.images).cpu())
            for split in (dataset.train, dataset.validation, dataset.test)
        ]
        classes = tuple(names or map(str, range(found)))
        return replace(dataset, **dict(zip(PARTS, splits, strict=True)), name=dataset.name + ANSWERED, classes=classes)
    if names is not None and dataset.classes != tuple(names) and set(dataset.classes) <= set(names):
        place = torch.tensor([list(names).index(name) for name in dataset.classes])
        splits = [
            Split(split.images, place[split.labels]) for split in (dataset.train, dataset.validation, dataset.test)
        ]
        return replace(dataset, **dict(zip(PARTS, splits, strict=True)), classes=tuple(names))
    if len(dataset.classes) != found:
        raise InputError(
            f"{dataset.name} has {len(dataset.classes)} classes and the target answers with {found}: name the classes (the folders of pictures) "
            "as the target does, or give images without labels."
        )
    return dataset


def _folder(name: str) -> Path | None:
    """The folder that a name means; None where it has to be looked for on the hub."""
    path = Path(name).expanduser()
    if name and name not in KNOWN:
        if path.is_dir():
            return path
        if path.is_file():
            raise InputError(f"{name} is a file; give the folder it lies in.")
        if name.startswith(("/", ".", "~")) or name.count("/") > 1:
            raise InputError(f"there is no folder {name}; check the path.")
    root = os.environ.get("LURING_DATA")
    if name and root and (Path(root) / name).is_dir():
        return Path(root) / name
    return None
