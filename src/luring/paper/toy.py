"""The illustration of §3.3: three zones, one layer, and what a lure makes of them (Figures 2 and 3, and the sets D⁰ and D')."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from luring import answers, attacks, data, rows
from luring.data import Dataset
from luring.frozen import frozen
from luring.paper.experiments import EXPERIMENTS
from luring.paper.pictures import png, through
from luring.paper.reproduce import reproduce
from luring.paper.run import Run
from luring.transfer import Clean, choose, craft, transfer
from luring.weights import digest

EPS = 0.5
"""Of the two cases of Figure 3; the paper does not say its own."""

LOOKED_AT = 100
"""Test images over which the sets of directions are taken."""

CASES: tuple[tuple[str, int, int | None], ...] = (("untargeted", 2, None), ("targeted", 0, 1))
"""Figure 3: name, class of the clean image, class wanted; the paper counts classes from 1."""


def toy_target(*, weight: float = 1 / 36) -> nn.Sequential:
    """M of §3.3, one layer without bias: for each class, `weight` in its zone and −`weight` in the others'; the neutral zone counts nothing."""
    zones = data.toy_zones().flatten(1)
    layer = nn.Linear(zones.shape[1], len(zones), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.where(zones, weight, -weight) * zones.any(0))
    return nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False)


def toy(out: Path, *, seed: int = 0, device: str = "cpu", show: bool = True) -> list[rows.Row]:
    """Run the illustration, or what is left of it: the cells of `reproduce`, and Figures 2 and 3 in numbers and pictures.

    Args:
        out: a folder: `rows.jsonl`, and the fitted lures under `models`.
        seed: of the images, the lures and the attacks.
        device: of the networks.
        show: show progress.
    """
    experiment = EXPERIMENTS["toy", "paper"]
    target = toy_target().to(device)
    reproduce(experiment, out, given=target, seed=seed, device=device, show=show)
    run = Run(experiment, out, seed, device, show)
    dataset = data.load("toy", seed=seed, progress=False)
    for name in experiment.lures:
        decoy = run.decoy(name, target, dataset)
        settings = {"weights": digest(decoy)}
        for label in range(len(dataset.classes)):
            run.cell(
                {
                    "kind": "zone",
                    "architecture": name,
                    "index": _first(dataset, label),
                    "n": 1,
                    **_shown(dataset, label),
                },
                settings,
                lambda label=label, decoy=decoy: _zone(decoy, dataset, label),
            )
        run.cell(
            {"kind": "directions", "architecture": name, "n": LOOKED_AT},
            settings,
            lambda decoy=decoy: _directions(decoy, target, dataset.test.images[:LOOKED_AT]),
        )
        for case, label, wanted in CASES:
            attack = attacks.preset("pgd", eps=EPS, step=0.025, steps=40, seed=seed, targeted=wanted is not None)
            run.cell(
                {"kind": "case", "architecture": name, "attack": case, "eps": EPS, **_shown(dataset, label)},
                {**settings, **attack.describe(), "wanted": wanted},
                lambda attack=attack, label=label, wanted=wanted, decoy=decoy: _case(
                    attack, target, decoy, dataset, label, wanted
                ),
            )
    return rows.select(run.rows, dataset="toy", scale="paper")


def _shown(dataset: Dataset, label: int) -> dict[str, Any]:
    return {"label": label, "classes": list(dataset.classes)}


def _first(dataset: Dataset, label: int) -> int:
    """The first test image of a class."""
    return int((dataset.test.labels == label).nonzero()[0])


def _zone(decoy: nn.Module, dataset: Dataset, label: int) -> dict[str, Any]:
    """Figure 2: the zone of a class (white; black the others', grey the neutral one), an image of it, and P's image of that."""
    zones = data.toy_zones()
    picture = torch.where(zones[label], 1.0, torch.where(zones.any(0), 0.0, 0.5))[None]
    x = dataset.test.images[_first(dataset, label)][None]
    of_class = dataset.test.images[dataset.test.labels == label]
    mapped = through(decoy.lure, of_class)  # type: ignore[arg-type]
    inside = mapped[:, 0, zones[label]].mean(), mapped[:, 0, ~zones[label]].mean()
    return {
        "images": {"zone": png(picture), "x": png(x[0]), "p_x": png(mapped[0])},
        "inside": float(inside[0]),
        "outside": float(inside[1]),
        "spread": float(mapped.std(0).mean()),
    }


def _directions(decoy: nn.Module, target: nn.Module, x: Tensor) -> dict[str, Any]:
    """The sets D⁰ and D' of the features f_ij(x) = x_ij of the three zones, and how M∘P's logits move against M's.

    D⁰ of a feature: other values than its own that f∘P depends on at every image. D': its own, where f∘P depends on it, but not as f
    does, with slope 1.
    """
    # In float64 a saturated sigmoid still has a slope.
    lure: nn.Module = copy.deepcopy(decoy.lure).double()  # type: ignore[assignment, operator, union-attr]
    zones = data.toy_zones()
    valid = zones.any(0).flatten()
    x = answers.prepare(x, lure).double()
    with frozen(lure):
        slopes = torch.stack([_jacobian(lure, one) for one in x])[:, valid].cpu()
    own = torch.arange(len(valid))[valid]
    depends = (slopes != 0).all(0)
    itself = torch.zeros_like(depends)
    itself[torch.arange(len(own)), own] = True
    zero = depends & ~itself
    slope = slopes[:, torch.arange(len(own)), own]
    other = depends[itself] & (slope != 1).all(0)
    weight: Tensor = target[1].weight.detach().cpu().double()  # type: ignore[index, union-attr]
    logits = torch.einsum("cf,nfd->ncd", weight[:, valid], slopes)
    against, used = (logits * weight < 0).double(), (logits != 0).double()
    side = zones.shape[-1]
    maps = slopes.new_zeros(side * side)
    maps[own] = slope.abs().mean(0)
    return {
        "features": len(own),
        "zero": float(zero.sum(1).double().mean()),
        "zero_neutral": float(zero[:, ~valid].sum(1).double().mean()),
        "other": float(other.double().mean()),
        "weaker": float((slope.abs() < 1).double().mean()),
        "opposite": float((slope < 0).double().mean()),
        "neutral_used": float(used[:, :, ~valid].mean()),
        "against": float(against[:, :, valid].mean()),
        "images": {
            "zero": png((zero.sum(0).double() / max(1, int(zero.sum(0).max()))).view(1, side, side)),
            "other": png((maps / maps.max().clamp_min(1e-12)).view(1, side, side)),
        },
    }


def _jacobian(lure: nn.Module, image: Tensor) -> Tensor:
    """∂P_f/∂x_d of one image, [values, values]."""
    found = torch.autograd.functional.jacobian(lure, image[None], vectorize=True)
    assert isinstance(found, Tensor)
    return found.reshape(image.numel(), image.numel())


def _case(
    attack: attacks.Attack, target: nn.Module, decoy: nn.Module, dataset: Dataset, label: int, wanted: int | None
) -> dict[str, Any]:
    """Figure 3: an image, its example crafted on M, its example crafted on M∘P, and P's image of that; and how often it goes so."""
    test = dataset.test
    of_class = test.labels == label
    clean = choose([target, decoy], test.images[of_class], test.labels[of_class], n=LOOKED_AT)
    goal = clean.labels if wanted is None else torch.full_like(clean.labels, wanted)
    made = {
        name: craft(attack, model, Clean(clean.images, goal, clean.index))
        for name, model in (("x_m", target), ("x_mop", decoy))
    }
    found = transfer(target, decoy, made["x_mop"], clean.labels)
    fooled = found.mop != clean.labels if wanted is None else found.mop == wanted
    lured = fooled & ((found.m == clean.labels) if wanted is None else (found.m != wanted))
    place = int(lured.nonzero()[0]) if bool(lured.any()) else 0
    images = {"x": clean.images, **made, "p_x_mop": through(decoy.lure, made["x_mop"])}  # type: ignore[arg-type]
    shown = {name: picture[place : place + 1] for name, picture in images.items()}
    return {
        "n": len(clean.labels),
        "fooled": float(fooled.double().mean()),
        "lured": float(lured.double().mean()),
        "m_answers": torch.bincount(found.m, minlength=len(dataset.classes)).tolist(),
        "example": int(of_class.nonzero()[clean.index[place], 0]),
        "images": {name: png(picture[0]) for name, picture in shown.items()},
        "labels": {
            name: [int(answers.labels(model, shown[name])) for model in (target, decoy)]
            for name in ("x", "x_m", "x_mop")
        },
    }
