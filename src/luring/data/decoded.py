"""A source once it is decoded: its splits, its classes and the digest of both."""

import hashlib
import json
import logging
from dataclasses import dataclass

from luring.data.values import Pictures
from luring.scaling import Scaling
from luring.types import Labels

log = logging.getLogger("luring")

PARTS = ("train", "validation", "test")

UNKNOWN = -1
"""The label of an image whose class nobody has said."""

NAMED = 5
"""Damaged pictures that a message names."""


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


def warn_of_damaged(where: str, decoded: Decoded) -> None:
    """Say which pictures were left out, where any were."""
    if decoded.damaged:
        total = len(decoded.damaged) + sum(len(split.labels) for split in decoded.splits.values())
        more = ", …" if len(decoded.damaged) > NAMED else ""
        log.warning(
            f"{where}: {len(decoded.damaged)} of {total} pictures cannot be decoded and were left out: "
            f"{', '.join(decoded.damaged[:NAMED])}{more}"
        )
