"""A lure held back after its fit: its image blended with the one it was given. It gives strength for accuracy, and nothing is trained.

The share of the lure's image is a buffer of `luring.lures.Blended`; in a bundle it stands behind an @ in the lure's name as well.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from luring import answers, metrics, networks, successor, transfer
from luring.attacks import Attack
from luring.bundle import Bundle
from luring.data import Dataset
from luring.lures import Blended, whole
from luring.weights import read_tensors


@dataclass(frozen=True)
class Held:
    """What a lure is worth at one share.

    Attributes:
        share: of the lure's image; 1 is the lure as it was fitted.
        accuracy: of M∘P on the validation images, by their labels or, without, by M's.
        disagreement: share of the validation images that M and M∘P answer differently.
        ac_mop: what the attack leaves M∘P right on.
        dac: detection adversarial accuracy under it.
        n: images attacked.
    """

    share: float
    accuracy: float
    disagreement: float
    ac_mop: float
    dac: float
    n: int


def curve(
    found: Bundle,
    dataset: Dataset,
    shares: Iterable[float],
    attack: Attack,
    *,
    n: int = 200,
    seed: int = 0,
    show: bool = True,
) -> list[Held]:
    """What the lure of a bundle is worth at each share, measured on validation images alone: test images judge what was chosen.

    Args:
        found: the bundle; of one that is blended already, P itself is blended.
        dataset: its images.
        shares: of the lure's image, above 0 and at most 1.
        attack: on M∘P; its examples are shown to M.
        n: validation images attacked, of those that M and M∘P at every share classify correctly.
        seed: of their choice.
        show: show progress.

    Raises:
        InputError: a share out of range, or no image that both classify correctly.
    """
    held_out, target, ask = dataset.validation, found.target, answers.remembering(show=show)
    decoys = {share: networks.compose(at(found.lure, share), found.behind).eval() for share in shares}
    asked = [target, *decoys.values()]
    clean = transfer.choose(asked, held_out.images, held_out.labels, n=n, seed=seed, ask=ask)
    of_target, *of_decoys = (ask(model, held_out.images).argmax(1).cpu() for model in asked)
    measured: list[Held] = []
    for (share, decoy), said in zip(decoys.items(), of_decoys, strict=True):
        examples = transfer.craft(attack, decoy, clean, show=show)
        rates = transfer.transfer(target, decoy, examples, clean.labels).measures()
        right, apart = metrics.accuracy(said, held_out.labels), metrics.disagreement(of_target, said)
        measured.append(Held(share, right, apart, rates["ac_mop"], rates["dac"], len(clean.labels)))
    return measured


def at(lure: nn.Module, share: float) -> nn.Module:
    """A lure at a share of its image: P itself at 1.

    Raises:
        InputError: the share is not above 0, or above 1.
    """
    fitted = whole(lure)
    if share == 1:
        return fitted
    device = next((weight.device for weight in fitted.parameters()), torch.device("cpu"))
    return Blended(fitted, share).to(device).eval()


def save(found: Bundle, folder: Path, out: Path, share: float, dataset: Dataset) -> dict[str, Any]:
    """Write a bundle with its lure at another share; target and settings are the other's. A guard is not: it knew another decoy.

    Args:
        found: what `folder` holds.
        folder: a bundle.
        out: a folder for the other.
        share: of the lure's image.
        dataset: whose test images say how the new decoy does.

    Returns:
        Its `config.json`.

    Raises:
        InputError: a share out of range, or `out` holds a bundle already.
    """
    lure = at(found.lure, share)
    named = str(found.config["lure"]).partition("@")[0] + (f"@{share:g}" if share < 1 else "")
    settings = {setting: value for setting, value in found.config["settings"].items() if setting != "share"}
    config: dict[str, Any] = {"lure": named, "settings": settings | ({"share": share} if share < 1 else {})}
    if "weights" in found.config:  # by how much halving them moved the figures was measured on the other decoy
        config["weights"] = {"stored": found.config["weights"]["stored"]}
    tensors = _tensors(folder / "lure.safetensors", lure)
    return successor.save(found, folder, out, lure, tensors, config, dataset)


def _tensors(file: Path, lure: nn.Module) -> dict[str, Tensor]:
    """The weights of P as they are stored, named and completed as the lure's."""
    stored = {name.removeprefix("lure."): tensor for name, tensor in read_tensors(file).items() if name != "share"}
    return (
        {"share": lure.share.cpu(), **{f"lure.{name}": stored[name] for name in stored}}
        if isinstance(lure, Blended)
        else stored
    )
