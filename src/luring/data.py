"""Image data sets: a hub id, a local folder, or a built-in name, all by `load`. See `docs/data.md`."""

import hashlib
import os
import re
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from luring import answers, decoded, processes, rooms
from luring.decoded import Decoded, Pictures, Split, Taken
from luring.errors import InputError
from luring.scaling import Scaling
from luring.types import Classifier, Images

__all__ = ["Dataset", "Pictures", "Scaling", "Split", "Taken", "check", "load", "matched", "to_float", "toy_zones"]

VALIDATION = 0.17
"""Share of the training part held out for validation, as in the paper's experiments."""

TEST = 0.15
"""Share held out for testing where a source has no test part."""

PARTS = ("train", "validation", "test")

ANSWERED = ", labels by M"
"""What the name of a data set without labels gets, when a target's answers take their place."""

BUILT_IN = ("digits", "toy")

KNOWN = {
    "cifar10": ("uoft-cs/cifar10", None, "img"),
    "fashion_mnist": ("zalando-datasets/fashion_mnist", None, "image"),
    "mnist": ("ylecun/mnist", None, "image"),
    "svhn": ("ufldl-stanford/svhn", "cropped_digits", "image"),
}
"""Names looked for under `LURING_DATA`, then on the hub: id, configuration, column of images there."""

ROUNDING = 1e-6


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
    cache = cache or _cache()
    with _one_at_a_time(cache):
        if name == "digits":
            source = _digits()
        elif name == "toy":
            source = _toy(seed)
        elif (folder := _folder(name)) is not None:
            source = _from_folder(folder, image, label, taken or Taken(), cache=cache, progress=progress)
        else:
            source = _from_hub(name, image, label, taken or Taken(), cache=cache, progress=progress)
        decoded.warn_of_damaged(name, source)
        train, validation, test = _parted(source, seed, cache)
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


def to_float(images: Pictures) -> Images:
    """Images in [0, 1]: uint8 becomes float32, divided by 255; floats are returned as they are, unchecked."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def check(images: Tensor) -> Pictures:
    """Look at every value once, where images enter.

    Args:
        images: [batch, channels, height, width], uint8, or floats in [0, 1].

    Returns:
        The same images; floats outside [0, 1] by no more than rounding (1e-6) are brought back into it.

    Raises:
        InputError: another shape or type, no image, a value that is NaN or outside [0, 1].
    """
    if images.ndim != 4 or images.numel() == 0:
        raise InputError(
            f"images have the shape {list(images.shape)}; give [batch, channels, height, width], none of them 0."
        )
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise InputError(f"images have the type {images.dtype}; give uint8, or floats in [0, 1].")
    wrong = ~((images >= -ROUNDING) & (images <= 1 + ROUNDING))  # this way round NaN is wrong too
    if wrong.any():
        index = int(wrong.nonzero()[0, 0])
        value = float(images[index][wrong[index]][0])
        raise InputError(f"image {index} has the value {value:g}; scale images to [0, 1] and remove NaN.")
    return images.clamp(0, 1)


def toy_zones() -> Bool[Tensor, "classes height width"]:
    """The zones of the toy set, [3, 12, 12]: where images of class 0, 1, 2 are not 0 (§3.3 of the paper).

    Top left, top right and bottom left quadrant; the bottom right one is neutral, there every image is 0.
    """
    zones = torch.zeros(3, 12, 12, dtype=torch.bool)
    zones[0, :6, :6] = zones[1, :6, 6:] = zones[2, 6:, :6] = True
    return zones


def _toy(seed: int) -> Decoded:
    # RandomState: its stream of numbers is frozen for good; a generator's is not.
    draw = np.random.RandomState(seed)
    zones = toy_zones()

    def split(n: int) -> Split:
        labels = torch.from_numpy(draw.permutation(n) % 3).long()
        values = torch.from_numpy(draw.random_sample((n, 12, 12)) * 0.4 + 0.3).float()
        return Split(check((values * zones[labels]).unsqueeze(1)), labels)

    return decoded.gather({"train": split(3000), "test": split(600)}, ("top left", "top right", "bottom left"))


def _digits() -> Decoded:
    from sklearn.datasets import load_digits  # takes a second

    bunch: Any = load_digits()
    images = torch.from_numpy(bunch.images).float().div(16).unsqueeze(1)
    split = Split(check(images), torch.from_numpy(bunch.target).long())
    return decoded.gather({"train": split}, tuple(map(str, range(10))))


@contextmanager
def _one_at_a_time(cache: Path) -> Generator[None]:
    """Of several processes of a run on one machine the first decodes, and the others find it done."""
    if processes.here().count == 1:
        yield
        return
    import fcntl  # not on Windows, where there is one process

    cache.mkdir(parents=True, exist_ok=True)
    held = os.open(cache, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _parted(source: Decoded, seed: int, cache: Path) -> tuple[Split, Split, Split]:
    """Train, validation and test part. Parts of a large source that are drawn at random are kept on the disk as it is."""
    train, test, validation = (source.splits.get(part) for part in ("train", "test", "validation"))
    assert train is not None
    on_disk = (test is None or validation is None) and rooms.large(train.images.nbytes)
    kept = cache / f"{hashlib.sha256(f'{source.digest} parts {seed}'.encode()).hexdigest()[:32]}.safetensors"
    if on_disk and (found := decoded.read(kept)) is not None:
        return found.splits["train"], found.splits["validation"], found.splits["test"]
    if test is None:
        test, validation = validation, None
    if test is None:
        train, test = _hold_out(train, TEST, seed, cache)
    if validation is None:
        train, validation = _hold_out(train, VALIDATION, seed, cache)
    if on_disk:
        whole = decoded.gather({"train": train, "validation": validation, "test": test}, source.classes)
        found = decoded.stored(kept, whole).splits
        return found["train"], found["validation"], found["test"]
    return train, validation, test


def hold_out(images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Images for training, and a seeded 17 % of them for validation."""
    unknown = torch.full((len(images),), decoded.UNKNOWN)
    train, validation = _hold_out(Split(images, unknown), VALIDATION, seed)
    return train.images, validation.images


def _hold_out(split: Split, share: float, seed: int, folder: Path | None = None) -> tuple[Split, Split]:
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


def _cache() -> Path:
    if own := os.environ.get("LURING_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "luring"


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


def _unknown(name: str, hub: str) -> InputError:
    root = os.environ.get("LURING_DATA")
    return InputError(
        f"unknown data set {name!r}: it is not built in ({', '.join(BUILT_IN)}), no folder here, none under "
        f"LURING_DATA ({root or 'which is not set'}), and {hub}; check the name (there are "
        f"{', '.join(sorted((*BUILT_IN, *KNOWN)))}), or give the path of a folder of images."
    )


def _contents(folder: Path) -> str:
    """SHA-256 over the names and contents of all files in a folder; times and sizes can stay the same."""
    sha = hashlib.sha256()
    files = [Path(at) / file for at, _, names in os.walk(folder, followlinks=True) for file in names]
    for file in sorted(files):
        if file.is_file():
            sha.update(os.fsencode(file.relative_to(folder)) + b"\0" + _sha256(file))
    return sha.hexdigest()


def _sha256(file: Path) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


def _kept(cache: Path, contents: str, image: str, label: str, taken: Taken) -> Path:
    """The file in the cache that a source has, if it has one."""
    parts = (str(decoded.FORMAT), contents, image, label, *([repr(taken)] if taken != Taken() else []))
    return cache / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}.safetensors"


def _from_folder(folder: Path, image: str, label: str, taken: Taken, *, cache: Path, progress: bool) -> Decoded:
    if re.search(r"[*?\[\]]", str(folder.absolute())):  # `datasets` would take it for a pattern, and find nothing
        raise InputError(f"the path {folder.absolute()} has one of the characters * ? [ ] in it; rename the folder.")
    try:
        contents = _contents(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error}); check its files and their permissions.") from error
    path = _kept(cache, contents, image, label, taken)
    if (kept := decoded.read(path)) is not None:
        return kept
    # Its own Arrow copy is found again by sizes and times; a folder of ours leaves none behind.
    place = rooms.roomier(cache)
    with (
        tempfile.TemporaryDirectory(prefix=".luring-", dir=place, ignore_cleanup_errors=True) as copy,
        _quiet() as datasets,
    ):
        try:
            found = datasets.load_dataset(str(folder.absolute()), cache_dir=copy)
        except FileNotFoundError as error:
            raise InputError(f"{folder} holds no images; give a folder of parquet files or of pictures.") from error
        except Exception as error:  # anything that damaged files bring about
            reason = _reason(error)
            if "corresponds to no data" in reason:
                raise InputError(f"{folder}: a split is empty ({reason}); add images to it or remove it.") from error
            raise InputError(f"{folder} cannot be read ({reason}); check its files.") from error
        source = decoded.decode(
            _parts(found, str(folder)),
            image=image,
            label=label,
            where=str(folder),
            progress=progress,
            taken=taken,
            folder=cache,
        )
    # Else it changed while it was read.
    return decoded.stored(path, source) if _contents(folder) == contents else source


def _from_hub(name: str, image: str, label: str, taken: Taken, *, cache: Path, progress: bool) -> Decoded:
    known = KNOWN.get(name)
    hub_id, config, column = known or (name, None, image)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", hub_id):
        raise _unknown(name, "not a hub id (owner/name)")
    if known and image == "image":
        image = column
    with _quiet() as datasets:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError

        offline = datasets.config.HF_HUB_OFFLINE
        unreachable = None
        try:
            # One question, not repeated: `datasets` alone tries for 23 seconds before it says that there is no hub.
            HfApi().dataset_info(hub_id, timeout=5)
        except RepositoryNotFoundError as error:
            raise _unknown(name, f"the hub has no public {hub_id}") from error
        except Exception as error:  # each version of the client has its own
            unreachable = _reason(error)
        try:
            # Without a hub, what was downloaded before will do.
            datasets.config.HF_HUB_OFFLINE = offline or unreachable is not None
            found = datasets.load_dataset(hub_id, config)
        except Exception as error:
            if unreachable is not None:
                raise _unknown(name, f"the hub could not be reached for {hub_id} ({unreachable})") from error
            raise InputError(
                f"{hub_id} could not be loaded from the hub ({_reason(error)}); "
                "save what you need of it as a folder and give that."
            ) from error
        finally:
            datasets.config.HF_HUB_OFFLINE = offline
        parts = _parts(found, hub_id)
        files = [(part, Path(file["filename"])) for part, rows in parts.items() for file in rows.cache_files]
        contents = repr([(part, _sha256(file).hex()) for part, file in files])
        path = _kept(cache, contents, image, label, taken)
        if (kept := decoded.read(path)) is not None:
            return kept
        source = decoded.decode(
            parts, image=image, label=label, where=hub_id, progress=progress, taken=taken, folder=cache
        )
    return decoded.stored(path, source)


def _parts(found: Any, where: str) -> dict[str, Any]:
    """The splits to be decoded, `train` first. A source of one split is training data, whatever the split is called."""
    if len(found) == 1:
        return {"train": next(iter(found.values()))}
    if "train" not in found:
        raise InputError(f"{where} has the splits {', '.join(map(repr, found))}; name one of them 'train'.")
    return {part: found[part] for part in PARTS if part in found}


def _reason(error: BaseException) -> str:
    """The first line of what lies at the bottom of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def _quiet() -> Generator[Any]:
    """The library `datasets`, which takes seconds to import, without its progress bars."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield datasets
    finally:
        if shown:
            datasets.enable_progress_bars()
