"""The commands' common table, and the options that several of them have."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import arg

from luring.errors import InputError
from luring.paper.words import ATTACKS

Seed = Annotated[
    int, arg(help="of splits, weights, training, choice of images and attacks: the same seed, the same numbers")
]
Device = Annotated[str, arg(help="cpu, cuda, cuda:1, …; auto takes a GPU where there is one")]

AttackNames = Annotated[str, arg(help=f"names with commas between, of {', '.join(ATTACKS)}")]

app = tyro.extras.SubcommandApp()


@dataclass(frozen=True)
class Parts:
    """What a bundle does not hold, as `luring.bundle.load` takes it.

    Attributes:
        target: the bundle's target, where the bundle does not hold it: as for 'luring fit'.
        lure: module:function of the bundle's lure, where it is not Luring's own.
        weights: safetensors file with the target's weights, where the bundle does not hold them.
    """

    target: str | None = None
    lure: str | None = None
    weights: Path | None = None


def names(attacks: str) -> tuple[str, ...]:
    """The names of a list with commas."""
    return tuple(name.strip() for name in attacks.split(","))


def given(**settings: float | int | None) -> dict[str, float | int]:
    """The settings that were given."""
    return {name: value for name, value in settings.items() if value is not None}


def say(*lines: str) -> None:
    """Print lines."""
    for line in lines:
        print(line)


def say_refitted(old: Mapping[str, Any], new: Mapping[str, Any], out: Path, data: str) -> None:
    """Say how the decoy of a bundle does that was made from another's, by what both `config.json` hold."""
    before, after = old["metrics"], new["metrics"]
    say(
        f"On {after['n']} test images: target {after['target_accuracy']:.3f}, decoy {after['test_accuracy']:.3f} (before {before['test_accuracy']:.3f}) right; "
        f"target and decoy answer differently on {after['disagreement']:.3f} (before {before['disagreement']:.3f}).",
        f"The bundle is in {out}. It has no guard: luring calibrate {out} --data {data}",
    )


def place_of(name: str) -> str:
    """The device of that name."""
    import torch

    # Batches come in few shapes: a GPU's kernels are worth a trial.
    torch.backends.cudnn.benchmark = True
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"there is no device '{name}' here: give cpu, or cuda where PyTorch sees a GPU.") from error
    return name


def writable(folder: Path) -> Path:
    """The folder, if a file can be made in it; made where it is missing, and taken away again if that is all that worked."""
    from luring.atomic import probe

    probe(folder)
    return folder
