"""A fitted decoy as a folder: `config.json`, `lure.safetensors`, `target.safetensors`; nothing in it is code.

`stack.safetensors` stands beside them where lure and classifier were trained as one: the classifier behind that lure is not the target.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from luring import answers, metrics, networks, rows
from luring.atomic import replacing
from luring.data import Dataset
from luring.errors import InputError
from luring.weights import digest, half_tensors, halved, write_tensors

FORMAT = 1
"""Of `config.json`: raised when an older Luring could not read it."""


@dataclass(frozen=True)
class Bundle:
    """What a folder holds.

    Attributes:
        target: M, in evaluation mode.
        lure: P, in evaluation mode.
        decoy: M∘P; for `stack` the lure with the classifier it was trained with.
        config: what `config.json` says.
    """

    target: nn.Module
    lure: nn.Module
    decoy: nn.Module
    config: Mapping[str, Any]


def describe(
    dataset: Dataset,
    target: nn.Module,
    lure: nn.Module,
    decoy: nn.Module,
    *,
    names: tuple[str, str],
    method: str,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The `config` of a bundle: what was fitted to what, how, what it costs, and how it does on the test images.

    Args:
        dataset: the images.
        target: M.
        lure: P.
        decoy: M∘P.
        names: of target and lure, as `save` asks for them.
        method: `luring`, or one of the baselines.
        settings: of the fit.
    """
    truth = dataset.test.labels
    m, mop = (answers.labels(model, dataset.test.images).cpu() for model in (target, decoy))
    return {
        "data": {"name": dataset.name, "digest": dataset.digest},
        "shape": list(dataset.shape),
        "classes": list(dataset.classes),
        "target": names[0],
        "lure": names[1],
        "method": method,
        "settings": dict(settings),
        "multiply_adds": {
            "target": networks.multiply_adds(target, dataset.shape),
            "lure": networks.multiply_adds(lure, dataset.shape),
        },
        "metrics": {
            "target_accuracy": metrics.accuracy(m, truth),
            "test_accuracy": metrics.accuracy(mop, truth),
            "agreement": metrics.agreement(m, mop, truth),
            "disagreement": metrics.disagreement(m, mop),
            "n": len(truth),
        },
        **rows.provenance(),
    }


def save(
    folder: Path,
    target: nn.Module,
    lure: nn.Module,
    config: Mapping[str, Any],
    *,
    stack: nn.Module | None = None,
    half: bool = False,
) -> None:
    """Write a bundle; `config.json` comes last, so a folder that has one is whole.

    Args:
        folder: made where it is missing; a bundle in it is replaced.
        target: M.
        lure: P.
        config: JSON values; `target` and `lure` name networks (`networks.TARGETS`, `networks.make_lure`), `shape` and `classes` say what for.
        stack: the classifier trained behind the lure, for the baseline Stack.
        half: store weights as float16, half as large; `config` should then describe `weights.halved` networks, which is what is loaded.

    Raises:
        InputError: a weight is too large for float16.
    """
    parts = {"target": target, "lure": lure} | ({"stack": stack} if stack is not None else {})
    if half:
        parts = {name: halved(network) for name, network in parts.items()}
    for name, network in parts.items():
        write_tensors(folder / f"{name}.safetensors", half_tensors(network) if half else network.state_dict())
    digests = {name: digest(network) for name, network in parts.items()}
    with replacing(folder / "config.json") as file:
        file.write(json.dumps({"format": FORMAT, **config, "digests": digests}, indent=2).encode() + b"\n")


def load(folder: Path, *, target: nn.Module | str | None = None, lure: nn.Module | str | None = None) -> Bundle:
    """Read a bundle.

    Args:
        folder: that `save` wrote.
        target: a network for the target's weights, or the `module:function` that gives it, where it is not one of Luring's own: code is
            never found through a file.
        lure: likewise for the lure's.

    Raises:
        InputError: no bundle, a newer format, weights that are not those of its `config.json`, or a network that is not Luring's own.
    """
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        if config["format"] > FORMAT:
            raise InputError(
                f"{folder} was written by a newer Luring (format {config['format']}, this one reads {FORMAT}): upgrade Luring."
            )
        shape = (int(config["shape"][0]), int(config["shape"][1]), int(config["shape"][2]))
        classes, digests = len(config["classes"]), dict(config["digests"])
        names = (str(config["target"]), str(config["lure"]))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} is not a bundle, it has no config.json: give a folder that 'luring fit' wrote."
        ) from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}/config.json is damaged ({error}): fit the bundle again.") from error
    target = _given(target) or networks.make_target(names[0], shape, classes)
    _fill(target, folder, "target", digests)
    lure = _given(lure) or networks.make_lure(names[1], target, shape)[0]
    _fill(lure, folder, "lure", digests)
    behind = target
    if "stack" in digests:
        behind = networks.make_target(names[0], shape, classes)
        _fill(behind, folder, "stack", digests)
    return Bundle(target, lure, networks.compose(lure, behind).eval(), config)


def _given(network: nn.Module | str | None) -> nn.Module | None:
    return networks.imported(network) if isinstance(network, str) else network


def _fill(network: nn.Module, folder: Path, name: str, digests: Mapping[str, str]) -> None:
    path = folder / f"{name}.safetensors"
    try:
        weights: dict[str, Tensor] = load_tensors(path.read_bytes())
        network.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(
            f"{path} does not hold the weights of its network ({str(error).splitlines()[0]}): fit the bundle again."
        ) from error
    if digest(network) != digests.get(name):
        raise InputError(f"{path} holds other weights than its config.json says: it was changed; fit the bundle again.")
    network.eval()
