"""Targets: classifiers that were trained elsewhere, of five kinds, and Luring's own. See `docs/targets.md`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from luring import networks
from luring.errors import InputError
from luring.networks import TARGETS, Shape
from luring.targets import exported, factory, onnx_files, timm_models, transformers_models
from luring.targets.examined import examine
from luring.targets.preprocessing import Preprocessed, Preprocessing, first_channels, overridden, recalled
from luring.targets.target import Kind, Target, file_digest
from luring.weights import fill, read_tensors

__all__ = [
    "Kind",
    "Preprocessed",
    "Preprocessing",
    "Target",
    "examine",
    "file_digest",
    "first_channels",
    "kind_of",
    "load",
    "rebuild",
]


def kind_of(name: str) -> Kind:
    """Which kind a name is of.

    Raises:
        InputError: none.
    """
    if name in TARGETS:
        return "luring"
    if name.startswith("timm:"):
        return "timm"
    if name.startswith("hf:") or (Path(name).expanduser() / "config.json").is_file():
        return "transformers"
    if name.endswith(".pt2"):
        return "exported"
    if name.endswith(".onnx"):
        return "onnx"
    if ":" in name:
        return "factory"
    raise InputError(
        f"there is no target '{name}': give one of {', '.join(TARGETS)}, module:function, timm:NAME, hf:OWNER/NAME or the folder of a "
        "transformers model, or a file that ends in .pt2 or .onnx."
    )


def load(
    name: str,
    *,
    weights: Path | None = None,
    shape: Shape | None = None,
    classes: int | None = None,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Target:
    """Find a target by its name.

    Args:
        name: `mnist`, `svhn`, `cifar10`, `plain` (Luring's own, with fresh weights unless a file is given), `package.module:function`,
            `timm:NAME`, `hf:OWNER/NAME` or the folder of a transformers model, a `.pt2` or `.onnx` file.
        weights: safetensors file of the network's state_dict.
        shape: of the images, for Luring's own.
        classes: how many, for Luring's own.
        size: side of the images that the classifier was trained on, in pixels, where its configuration does not say or another was used.
        mean: of its normalisation, likewise, images in [0, 1].
        std: likewise.

    Returns:
        A network in evaluation mode from images in [0, 1], of any size, to logits.

    Raises:
        InputError: it cannot be found or made, or the weights are another network's.
    """
    kind = kind_of(name)
    if kind in ("exported", "onnx") and weights is not None:
        raise InputError(f"{name} holds its own weights: leave --weights out.")
    tensors = read_tensors(weights) if weights is not None else None
    if kind == "luring":
        if shape is None or classes is None:
            raise InputError(f"the target '{name}' needs the shape of the images and the number of classes.")
        found = Target(networks.make_target(name, shape, classes).eval(), "luring", name)
    else:
        found = _found(kind, name, tensors)
    if tensors is not None:
        fill(_holder(found), tensors, str(weights))
    if kind == "luring" or found.preprocessing is None:
        if size is not None or mean is not None or std is not None:
            raise InputError(f"the target '{name}' takes images as they are: leave size, mean and std out.")
        return found
    return found.seeing(overridden(found.preprocessing, size=size, mean=mean, std=std))


def _found(kind: Kind, name: str, tensors: Mapping[str, Tensor] | None) -> Target:
    if kind == "factory":
        return factory.load(name)
    if kind == "timm":
        return timm_models.load(name, tensors)
    if kind == "transformers":
        return transformers_models.load(name, bare=tensors is not None)
    return (exported if kind == "exported" else onnx_files).load(Path(name).expanduser())


def rebuild(kind: str, name: str, config: Mapping[str, Any], file: Path, shape: Shape, classes: int) -> Target:
    """The target that a bundle holds, with fresh weights where the file does not hold them.

    Args:
        kind: as `Target.kind`, from a file that somebody may have changed; so are the next two.
        name: as `Target.name`.
        config: what `describe` of the bundle wrote: `network` and `preprocessing`.
        file: an ONNX file in the bundle, looked at for that kind only.
        shape: of the images.
        classes: how many.

    Raises:
        InputError: a kind that is never made from a file, or one that cannot be made.
        ValueError, KeyError, TypeError: the config is damaged.
    """
    if kind == "luring":
        return Target(networks.make_target(name, shape, classes).eval(), "luring", name)
    if kind == "timm":
        found = timm_models.rebuilt(name, config["network"])
    elif kind == "transformers":
        found = transformers_models.rebuilt(name, config["network"])
    elif kind == "onnx":
        found = onnx_files.load(file)
    else:
        raise InputError(f"a target of the kind {kind!r} is never made from a bundle: give it with --target.")
    return found.seeing(recalled(config["preprocessing"]))


def _holder(target: Target) -> nn.Module:
    """What the weights file's names belong to."""
    inner = target.classifier
    return inner.model if isinstance(inner, transformers_models.Logits) else inner
