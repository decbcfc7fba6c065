"""`luring fit`."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, arg

from luring.cli.app import Device, Seed, app, say
from luring.cli.training import Training, running
from luring.errors import InputError
from luring.recipes import Name

Numbers = Annotated[tuple[float, ...] | None, arg(help="instead of the target's own: one number, or one a channel")]

TARGET_STEPS = 5000
"""Batches that one of Luring's own targets is trained for, where neither weights nor another number are given."""


@app.command
def fit(
    data: str,
    out: Path,
    target: str = "plain",
    weights: Path | None = None,
    with_target: bool = False,
    lure: str = "auto",
    lure_share: float = 0.25,
    method: Literal["luring", "luring_alt", "c_e", "auto", "stack"] = "luring",
    recipe: Name = "paper",
    eps: float | None = None,
    lam: float | None = None,
    gap_max: float | None = None,
    steps: int = 10000,
    target_steps: int | None = None,
    batch: int = 64,
    lr: float = 1e-3,
    size: int | None = None,
    input_size: int | None = None,
    mean: Numbers = None,
    std: Numbers = None,
    damaged: float = 0.01,
    anyway: bool = False,
    label: str = "label",
    image: str = "image",
    seed: Seed = 0,
    device: Device = "auto",
    training: OmitArgPrefixes[Training] = Training(),  # noqa: B008
) -> None:
    """Fit a lure to a classifier and write a bundle: safetensors and JSON.

    The target is measured first, and a question is asked where it does not seem to know the images. Luring's own targets (mnist, svhn, cifar10,
    plain) are trained first, unless their weights are given. Stop it at any moment; the same command goes on.

    Args:
        data: digits, toy, mnist, svhn, cifar10, fashion_mnist, a folder of pictures (with or without class folders) or parquet files, or a hub id.
        out: folder for the bundle.
        target: package.module:function giving a torch module, timm:NAME, hf:OWNER/NAME or the folder of a transformers model, a .pt2 or .onnx file; or
            mnist, svhn, cifar10 (the paper's), plain (small images).
        weights: safetensors file with the target's trained weights.
        with_target: put the target itself into the bundle; one that was trained here is always put in.
        lure: auto, mnist, svhn, cifar10 (the paper's, up to eight times their target's cost), plain-WIDTH, residual-WIDTH, or module:function.
        lure_share: of the target's multiply-adds that the lure auto may cost.
        method: luring (the paper's loss), luring_alt (its L'), or a baseline: c_e, auto, stack.
        recipe: paper; strong: far less of what fools the decoy fools the target; faithful: nearly as strong, and nearer to the target; or aligned,
            which turns the decoy's gradient away as well and takes three to four times as long as paper (docs/research.md).
        eps: of the recipes strong, faithful and aligned: the largest perturbation it is fitted against, images in [0, 1]; 0.1 where it is not given.
        lam: weight of the luring loss's gap, where it is not the recipe's own: 1, of faithful 0.1.
        gap_max: bound on that gap in logits, where it is not the recipe's own: none, of all but paper 15.
        steps: batches the lure is fitted for.
        target_steps: batches the target is trained for, from labels; 5000 for Luring's own without weights, else none.
        batch: images a step.
        lr: highest learning rate (Adam; up over a tenth of the steps, then down along a cosine).
        size: side that all pictures are brought to; without, pictures of several sizes or large ones get the target's own size.
        input_size: side of the images that the target was trained on, where its configuration does not say or another was used.
        mean: of the target's normalisation, images in [0, 1].
        std: of the target's normalisation.
        damaged: share of the pictures that may be left out because they cannot be decoded.
        anyway: go on where the target does not seem to know the images.
        label: name of the label column; none: without labels.
        image: name of the image column.
        seed: of everything.
        device: where to compute.
        training: how to train.
    """
    import torch

    from luring import answers, bundle, networks, recipes, targets
    from luring import data as data_room
    from luring import training as training_room

    with running(training, device, out) as run:
        if steps < 1 or (target_steps is not None and target_steps < 1) or batch < 1 or lr <= 0:
            raise InputError("steps, target-steps, batch and lr must all be above 0.")
        if with_target and targets.kind_of(target) == "exported":
            raise InputError(f"{target} is not put into a bundle, for it may hold code: leave --with-target out.")
        moves = training.moves()
        gap = recipes.asked(recipe, method=method, lam=lam, gap_max=gap_max, eps=eps)
        own = targets.kind_of(target) == "luring"
        torch.manual_seed(seed)
        found = None if own else targets.load(target, weights=weights, size=input_size, mean=mean, std=std)
        images = data_room.load(
            data, seed=seed, label=label, image=image, taken=bundle.taken_for(found, size=size, damaged=damaged)
        )
        torch.manual_seed(seed)
        if found is None:
            if not images.classes:
                raise InputError(
                    f"{data} has no labels to train the target '{target}' from: give a target that is trained, or pictures in a folder a class."
                )
            found = targets.load(
                target,
                weights=weights,
                shape=images.shape,
                classes=len(images.classes),
                size=input_size,
                mean=mean,
                std=std,
            )
        m = found.network.to(run.place)
        answers.logits(m, images.test.images[:2])
        labelled = bool(images.classes)
        images = data_room.matched(images, m, found.classes)
        schedule = training.schedule(steps, batch, lr)
        train_it = target_steps is not None or (own and weights is None)
        if train_it:
            if not labelled:
                raise InputError(f"{data} has no labels to train the target from: leave --target-steps out.")
            first = training.schedule(target_steps or TARGET_STEPS, batch, lr)
            training_room.classifier(
                m,
                images.train,
                images.validation,
                schedule=first,
                alter=moves,
                seed=seed,
                state=out / "target.state",
                log=run.log("target", first),
            )
        elif not anyway:
            truth = images.validation.labels if labelled else None
            sentence = targets.examine(found, images.validation.images, truth).sentence()
            if run.main:
                say(sentence)
        p, lure_name = (
            (networks.imported(lure), lure)
            if ":" in lure
            else networks.make_lure(lure, m, images.shape, share=lure_share, kind=recipes.RECIPES[recipe].lure)
        )
        p, behind = p.to(run.place), m
        if method == "stack":
            if found.kind not in ("luring", "factory"):
                raise InputError(
                    "stack trains a second target from the start: give one of Luring's own, or module:function."
                )
            behind = targets.load(target, shape=images.shape, classes=len(images.classes)).network.to(run.place)
            joint = networks.compose(p, behind)
            training_room.classifier(
                joint,
                images.train,
                images.validation,
                schedule=schedule,
                alter=moves,
                seed=seed,
                state=out / "lure.state",
                name="stack",
                log=run.log("stack", schedule),
            )
        else:
            training_room.lure(
                p,
                m,
                images.train.images,
                images.validation.images,
                method=method,
                **gap,
                moves=moves,
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
            settings=bundle.fitted_by(recipe, gap, schedule, seed, moves),
        )
        bundle.save(
            out, found, p, config, stack=behind if behind is not m else None, with_target=with_target or train_it
        )
        for state in ("target.state", "lure.state"):
            (out / state).unlink(missing_ok=True)
        measured, cost = config["metrics"], config["multiply_adds"]
        right = f"Target {measured['target_accuracy']:.3f}, decoy {measured['test_accuracy']:.3f} of {measured['n']} test images right"
        say(
            f"{right if labelled else str(measured['n']) + ' test images'}; "
            f"target and decoy answer differently on {measured['disagreement']:.3f}.",
            f"The lure costs {cost['lure'] / cost['target']:.2f} of its target: {cost['lure']:,} multiply-adds an image.",
            f"The bundle is in {out}. Next: luring evaluate {out} --data {data} --out {out / 'evaluation'}",
        )
