"""Targets that `torch.export` wrote: `model.pt2`. PyTorch runs code that such a file holds, so only an operator names one, never a bundle."""

import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from luring.errors import InputError, first_line
from luring.scaling import Scaling
from luring.targets.preprocessing import Preprocessed, Preprocessing
from luring.targets.target import Target

PARTS = ("models", "data/weights", "data/constants", "data/sample_inputs")


class Fixed(nn.Module):
    """A network for batches of one size, or one that knows no modes, as a network for any batch, always in evaluation mode."""

    def __init__(self, inner: nn.Module, batch: int | None) -> None:
        super().__init__()
        self.inner, self.images_at_once = inner, batch

    def forward(self, images: Tensor) -> Tensor:
        """Images to logits; the last batch is filled up with its first image."""
        if self.images_at_once is None:
            return _one(self.inner(images))
        parts: list[Tensor] = []
        for part in images.split(self.images_at_once):
            missing = self.images_at_once - len(part)
            full = torch.cat([part, part[:1].expand(missing, -1, -1, -1)]) if missing else part
            parts.append(_one(self.inner(full))[: len(part)])
        return torch.cat(parts)

    def train(self, mode: bool = True) -> "Fixed":  # noqa: ARG002
        """Nothing: there is one mode."""
        return self


def load(path: Path) -> Target:
    """The program in a file.

    Raises:
        InputError: no such file, not a program, one that holds pickled objects or native code, or one of other inputs than images.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}: check the path.")
    _look(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.export.load(path)
            network: nn.Module = program.module()
    except Exception as error:  # whatever a damaged program brings about
        raise InputError(
            f"{path} cannot be loaded ({first_line(error)}): export it again with torch.export.save of this PyTorch, {torch.__version__}."
        ) from error
    inputs = program.graph_signature.user_inputs
    shapes = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    found = shapes.get(inputs[0]) if len(inputs) == 1 else None
    if not isinstance(found, Tensor) or found.ndim != 4 or found.dtype != torch.float32:
        raise InputError(
            f"{path} does not take one float32 tensor [batch, channels, height, width]: export the classifier alone."
        )
    # A symbol, which is no int, stands where any size will do.
    sides = [int(side) if type(side) is int else None for side in found.shape]
    batch, channels, height, width = sides
    scaling = Scaling(height, width) if height is not None and width is not None else None
    preprocessing = Preprocessing(scaling, channels if channels in (1, 3) else None)
    network = Preprocessed(Fixed(network, batch), preprocessing).eval()
    return Target(network, "exported", path.name, file=path)


def _look(path: Path) -> None:
    """Refuse what `torch.export.load` would unpickle or link, before it is called."""
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = next(filter(None, (_wrong(archive, name) for name in archive.namelist())), None)
    except Exception as error:  # damaged in one of many ways
        raise InputError(
            f"{path} is no program of torch.export.save, or not safe to read ({first_line(error)}): export it again."
        ) from error
    if wrong is not None:
        raise InputError(f"{path} holds {wrong}: export it again, with PyTorch's own operators and plain tensors.")


def _wrong(archive: zipfile.ZipFile, name: str) -> str | None:
    """What is wrong with a file of an archive."""
    inside = name.partition("/")[2]
    if "/" in inside and not inside.startswith((*PARTS, ".data/")):
        return f"{inside}, which is no part of such a program"
    if inside.endswith("_config.json"):
        said: dict[str, Any] = json.loads(archive.read(name))["config"]
        if any(part["use_pickle"] for part in said.values()):
            return f"pickled objects ({inside}), which run code when they are read"
    if inside.startswith("data/sample_inputs/"):
        # Where this fails, torch.export.load would try again with code allowed.
        torch.load(io.BytesIO(archive.read(name)), weights_only=True)
    return None


def _one(output: Any) -> Tensor:
    found: Any = output[0] if isinstance(output, tuple | list) and len(output) == 1 else output  # pyright: ignore[reportUnknownVariableType]
    return found
