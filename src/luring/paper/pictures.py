"""Pictures for the report: examples, what P makes of them, and where P looks (Figure 6)."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from luring import answers, transfer
from luring.frozen import frozen
from luring.paper.run import Run
from luring.transfer import Clean

AT_ONCE = 1024
"""Values of P's output differentiated together."""


def pictures(
    run: Run,
    target: nn.Module,
    decoys: Mapping[str, nn.Module],
    clean: Clean,
    classes: tuple[str, ...],
    weights: Mapping[str, str],
) -> None:
    """Rows with images: one row of pictures an image, and Figure 6."""
    experiment = run.experiment
    if not experiment.pictures:
        return
    eps = experiment.eps[len(experiment.eps) // 2]
    few, decoy = clean.first(experiment.pictures), decoys["luring"]
    attack = run.preset("mim", experiment.attacks["mim"], eps)
    settings = run.crafting(attack, experiment.attacks["mim"], "luring", few, weights)
    lure: nn.Module = decoy.lure  # type: ignore[assignment]
    crafted: list[Tensor] = []
    for place, index in enumerate(few.index.tolist()):

        def compute(place: int = place) -> dict[str, Any]:
            if not crafted:
                crafted.append(transfer.craft(attack, decoy, few))
            x, x_adv = few.images[place : place + 1], crafted[0][place : place + 1]
            shown = {"x": x, "p_x": through(lure, x), "x_adv": x_adv, "p_x_adv": through(lure, x_adv)}
            shown["perturbation"] = (x_adv - x) / (2 * eps) + 0.5
            both = {
                name: [int(answers.labels(model, shown[name])) for model in (target, decoy)] for name in ("x", "x_adv")
            }
            return {"images": {name: png(image[0]) for name, image in shown.items()}, "labels": both}

        names = {"kind": "picture", "architecture": "luring", "attack": "mim", "eps": eps, "index": index, "n": 1}
        shared = {"label": int(few.labels[place]), "classes": list(classes)}
        run.cell({**names, **shared}, settings, compute)
        for name in experiment.lures:
            part: nn.Module = decoys[name].lure  # type: ignore[assignment]
            run.cell(
                {"kind": "gradient", "architecture": name, "index": index, "n": 1, **shared},
                {"weights": weights[name]},
                lambda part=part, place=place: gradient(part, few.images[place : place + 1]),
            )


def through(lure: nn.Module, images: Tensor) -> Tensor:
    """P(x), on the CPU."""
    with frozen(lure), torch.no_grad():
        return lure(answers.prepare(images, lure)).cpu()


def gradient(lure: nn.Module, image: Tensor) -> dict[str, Any]:
    """Figure 6: how much P's output moves with each value of the image, the l2 norm over the output of ∂P/∂x_d."""
    with frozen(lure):
        x = answers.prepare(image, lure).requires_grad_()
        seen: Tensor = lure(x).flatten()
        squares = torch.zeros_like(x[0])
        for chosen in torch.eye(len(seen), device=x.device).split(AT_ONCE):
            (slopes,) = torch.autograd.grad(seen, x, chosen, retain_graph=True, is_grads_batched=True)
            squares += slopes[:, 0].square().sum(0)
        norm = squares.sqrt().cpu()
    total = float(norm.sum())
    background = float(norm[image[0] == 0].sum()) / total if total > 0 else float("nan")
    return {
        "images": {"x": png(image[0]), "gradient": png(norm / norm.max().clamp_min(1e-12))},
        "background": background,
    }


def png(image: Tensor) -> str:
    """A picture in [0, 1], [channels, height, width], as base64 of a PNG."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
