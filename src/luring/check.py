"""The guard's verdict on picture files, without a server."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from luring.errors import InputError
from luring.guard import Detector
from luring.picture import fitting_picture
from luring.scaling import Scaling
from luring.types import Shape

BATCH = 128


@dataclass(frozen=True)
class Verdict:
    """On one file.

    Attributes:
        file: its path.
        verdict: `pass`, `flagged`, or `unreadable`: no picture, or not one of the classifier's size.
        answer: M's class, by name; none where it is unreadable.
        score: the detector's; likewise.
        reason: why it is unreadable.
    """

    file: str
    verdict: Literal["pass", "flagged", "unreadable"]
    answer: str | None = None
    score: float | None = None
    reason: str | None = None


def verdicts(
    detector: Detector, pictures: Path, *, shape: Shape, classes: Sequence[str], scaling: Scaling | None = None
) -> Iterator[Verdict]:
    """Look at a picture, or at all in a folder and in the folders in it, in the order of their names.

    Args:
        detector: with a threshold.
        pictures: a file, or a folder, where every file with the suffix of a picture is looked at.
        shape: of the images that M takes.
        classes: names of its classes.
        scaling: that pictures of other sizes are brought to M's by; without, they are unreadable.

    Raises:
        InputError: no such file, or no picture in the folder.
    """
    if pictures.is_dir():
        known = Image.registered_extensions()
        files = sorted(file for file in pictures.rglob("*") if file.suffix.lower() in known and file.is_file())
    else:
        files = [pictures] if pictures.exists() else []
    if not files:
        raise InputError(f"{pictures} is no picture and holds none: give a picture, or a folder of pictures.")
    return _verdicts(detector, iter(files), shape, classes, scaling)


def _verdicts(
    detector: Detector, files: Iterator[Path], shape: Shape, classes: Sequence[str], scaling: Scaling | None
) -> Iterator[Verdict]:
    while batch := list(islice(files, BATCH)):
        read = {file: _read(file, shape, scaling) for file in batch}
        arrays = [array for array in read.values() if not isinstance(array, str)]
        looked_at = iter(_looked_at(detector, arrays, classes) if arrays else ())
        for file, found in read.items():
            if isinstance(found, str):
                yield Verdict(str(file), "unreadable", reason=found)
            else:
                answer, score, flagged = next(looked_at)
                yield Verdict(str(file), "flagged" if flagged else "pass", answer, score)


def _looked_at(
    detector: Detector, arrays: Sequence[np.ndarray], classes: Sequence[str]
) -> Iterator[tuple[str, float, bool]]:
    found = detector.predict(torch.from_numpy(np.stack(arrays)))["data"]
    labels, scores, flagged = (found[name].tolist() for name in ("label", "instance_score", "is_adversarial"))
    return zip([classes[int(label)] for label in labels], scores, flagged, strict=True)


def _read(file: Path, shape: Shape, scaling: Scaling | None) -> np.ndarray | str:
    """The picture as bytes, [channels, height, width], or why there is none."""
    try:
        return fitting_picture(file, "it", shape, scaling)
    except InputError as error:
        return str(error)
