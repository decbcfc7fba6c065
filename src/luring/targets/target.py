"""A target: a classifier that was trained elsewhere, with the way it is found again."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from torch import nn

from luring.errors import InputError
from luring.targets.preprocessing import Preprocessed, Preprocessing, described
from luring.weights import digest

Kind: TypeAlias = Literal["luring", "factory", "timm", "transformers", "exported", "onnx"]


@dataclass(frozen=True)
class Target:
    """A frozen classifier.

    Attributes:
        network: images in [0, 1], [batch, channels, height, width], of any size that it takes, to logits; its preprocessing is inside.
        kind: how it was found: one of Luring's own networks, or one of the five kinds.
        name: its name as it was given, a file without its folders.
        classes: their names, where the model says them.
        config: JSON that makes the same network again, but for its weights; for kinds where a name is not enough.
        file: that it was read from, where that file is the target (`.pt2`, `.onnx`).
    """

    network: nn.Module
    kind: Kind
    name: str
    classes: tuple[str, ...] | None = None
    config: Mapping[str, Any] | None = None
    file: Path | None = None

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What stands before the classifier; none for Luring's own networks, which take images as they are."""
        return self.network.preprocessing if isinstance(self.network, Preprocessed) else None

    @property
    def classifier(self) -> nn.Module:
        """The network behind the preprocessing, whose weights a weights file holds."""
        return self.network.classifier if isinstance(self.network, Preprocessed) else self.network

    @property
    def digest(self) -> str:
        """SHA-256 of the weights (of the file, where the file is the target) and of the preprocessing, in hex."""
        if self.kind == "luring":
            return digest(self.network)
        weights = file_digest(self.file) if self.file is not None else digest(self.classifier)
        return digest_with(weights, described(self.preprocessing) if self.preprocessing else None)

    def seeing(self, preprocessing: Preprocessing) -> "Target":
        """The same classifier behind another preprocessing."""
        weight = next(self.classifier.parameters(), None)
        network = Preprocessed(self.classifier, preprocessing).to(weight.device if weight is not None else "cpu")
        return replace(self, network=network.eval())


def digest_with(weights: str, preprocessing: Mapping[str, Any] | None) -> str:
    """SHA-256 of the digest of weights or a file, and of what `described` says of the preprocessing."""
    return hashlib.sha256(json.dumps([weights, preprocessing], sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({(error.strerror or str(error)).lower()}): check the path."
        ) from error
