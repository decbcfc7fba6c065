"""A bundle made from another: the same target, another lure. A guard is not written: it knew another decoy."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from luring import bundle, networks, rows
from luring.atomic import write_json
from luring.bundle import Bundle
from luring.data import Dataset
from luring.errors import InputError
from luring.weights import digest, write_tensors


def new_folder(out: Path) -> None:
    """Refuse a folder for another bundle that has one.

    Raises:
        InputError: `out` holds a bundle already.
    """
    if (out / "config.json").exists():
        raise InputError(f"{out} holds a bundle already: give another folder with --out.")


def in_front(config: Mapping[str, Any]) -> None:
    """Refuse a bundle whose lure is not in front of its target.

    Raises:
        InputError: it is Stack's.
    """
    if config["method"] == "stack":
        raise InputError("the lure of this bundle has a classifier of its own behind it, not its target: give another.")


def save(
    found: Bundle,
    folder: Path,
    out: Path,
    lure: nn.Module,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    dataset: Dataset,
) -> dict[str, Any]:
    """Write it; `config.json` comes last.

    Args:
        found: what `folder` holds.
        folder: a bundle.
        out: a folder for the other.
        lure: P.
        tensors: its weights, as they are stored.
        config: what its `config.json` says otherwise than the first one's, but for digests and metrics; how weights are stored where it is not float32.
        dataset: whose test images say how the new decoy does.

    Returns:
        Its `config.json`.

    Raises:
        InputError: `out` holds a bundle already.
    """
    new_folder(out)
    old = {name: value for name, value in found.config.items() if name != "weights"}
    digests = old["digests"] | {"lure": digest(lure)}
    now = bundle.measured(dataset, found.target, networks.compose(lure, found.behind).eval())
    new = {**old, **config, "digests": digests, "metrics": now, **rows.provenance()}
    out.mkdir(parents=True, exist_ok=True)
    for name in bundle.files(old):
        if name != "lure.safetensors" and (folder / name).exists():
            shutil.copyfile(folder / name, out / name)
    write_tensors(out / "lure.safetensors", tensors)
    write_json(out / "config.json", new)
    return new
