"""`luring fit`."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import OmitArgPrefixes

from luring.cli.app import Device, Seed, app, say
from luring.cli.training import Training, running
from luring.errors import InputError

if TYPE_CHECKING:
    from torch import nn


@app.command
def fit(
    data: str,
    out: Path,
    target: str = "plain",
    target_weights: Path | None = None,
    lure: str = "sized",
    method: Literal["luring", "luring_alt", "c_e", "auto", "stack"] = "luring",
    lam: float = 1.0,
    gap_max: float | None = None,
    steps: int = 10000,
    target_steps: int = 5000,
    batch: int = 64,
    lr: float = 1e-3,
    label: str = "label",
    image: str = "image",
    seed: Seed = 0,
    device: Device = "auto",
    training: OmitArgPrefixes[Training] = Training(),  # noqa: B008
) -> None:
    """Fit a lure to a classifier and write both as a bundle: safetensors and JSON.

    The target is trained first, unless its weights are given. Stop it at any moment; the same command goes on.

    Args:
        data: digits, toy, mnist, svhn, cifar10, fashion_mnist, a folder of pictures or parquet files, or a hub id.
        out: folder for the bundle.
        target: mnist, svhn, cifar10 (the paper's), plain (small images), or module:function giving a torch module.
        target_weights: safetensors file with the target's trained weights.
        lure: mnist, svhn, cifar10 (the paper's), sized (costs at most half its target), plain-WIDTH, or module:function.
        method: luring (the paper's loss), luring_alt (its L'), or a baseline: c_e, auto, stack.
        lam: weight of the luring loss's gap.
        gap_max: bound on that gap in logits, for accuracy's sake; without one it is the paper's loss.
        steps: batches the lure is fitted for.
        target_steps: batches the target is trained for.
        batch: images a step.
        lr: highest learning rate (Adam; up over a tenth of the steps, then down along a cosine).
        label: name of the label column.
        image: name of the image column.
        seed: of everything.
        device: where to compute.
        training: how to train.
    """
    import torch

    from luring import answers, bundle, networks
    from luring import data as data_room
    from luring import fit as fit_room

    with running(training, device, out) as run:
        if steps < 1 or target_steps < 1 or batch < 1 or lr <= 0:
            raise InputError("steps, target-steps, batch and lr must all be above 0.")
        images = data_room.load(data, seed=seed, label=label, image=image)
        torch.manual_seed(seed)
        m = (
            networks.imported(target)
            if ":" in target
            else networks.make_target(target, images.shape, len(images.classes))
        )
        m = m.to(run.place)
        answers.logits(m, images.test.images[:2])
        schedule = training.schedule(steps, batch, lr)
        if target_weights is not None:
            _weights(m, target_weights)
        else:
            first = training.schedule(target_steps, batch, lr)
            fit_room.classifier(
                m,
                images.train,
                images.validation,
                schedule=first,
                seed=seed,
                state=out / "target.state",
                log=run.log("target", first),
            )
        p, lure_name = (networks.imported(lure), lure) if ":" in lure else networks.make_lure(lure, m, images.shape)
        p, behind = p.to(run.place), m
        if method == "stack":
            behind = (
                networks.imported(target).to(run.place)
                if ":" in target
                else networks.make_target(target, images.shape, len(images.classes))
            )
            behind = behind.to(run.place)
            joint = networks.compose(p, behind)
            fit_room.classifier(
                joint,
                images.train,
                images.validation,
                schedule=schedule,
                seed=seed,
                state=out / "lure.state",
                name="stack",
                log=run.log("stack", schedule),
            )
        else:
            fit_room.lure(
                p,
                m,
                images.train.images,
                images.validation.images,
                method=method,
                lam=lam,
                gap_max=gap_max,
                truth=images.validation.labels,
                schedule=schedule,
                seed=seed,
                state=out / "lure.state",
                log=run.log("lure", schedule),
            )
        if not run.main:
            return
        config = bundle.describe(
            images,
            m,
            p,
            networks.compose(p, behind),
            names=(target, lure_name),
            method=method,
            settings={"lam": lam, "gap_max": gap_max, "schedule": schedule.describe(), "seed": seed},
        )
        bundle.save(out, m, p, config, stack=behind if behind is not m else None)
        for state in ("target.state", "lure.state"):
            (out / state).unlink(missing_ok=True)
        measured = config["metrics"]
        say(
            f"Target {measured['target_accuracy']:.3f}, decoy {measured['test_accuracy']:.3f} of {measured['n']} test images right; "
            f"they answer differently on {measured['disagreement']:.3f}.",
            f"The bundle is in {out}. Next: luring evaluate {out} --data {data} --out {out / 'evaluation'}",
        )


def _weights(network: "nn.Module", path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        network.load_state_dict(load(path.read_bytes()))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} does not hold the target's weights ({reason}): give a safetensors file of its state_dict."
        ) from error
