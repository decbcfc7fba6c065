"""`luring imitate`."""

from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

from luring.cli.app import Device, Parts, Seed, app, say, say_refitted
from luring.cli.training import Training, running
from luring.errors import InputError


@app.command
def imitate(
    bundle: Positional[Path],
    data: str,
    out: Path,
    eps: float,
    imitator: str = "auto",
    lure_share: float = 0.25,
    steps: int = 4000,
    batch: int = 128,
    lr: float = 4e-3,
    parts: OmitArgPrefixes[Parts] = Parts(),  # noqa: B008
    label: str = "label",
    image: str = "image",
    seed: Seed = 0,
    device: Device = "auto",
    training: OmitArgPrefixes[Training] = Training(),  # noqa: B008
) -> None:
    """Fit a cheaper lure that makes the images which a dear one makes, also where its own decoy is attacked.

    For a bundle of a strong lure that takes too long: one that costs little does not become strong by itself. Stop it at any moment; the same
    command goes on. A guard has to be set anew.

    Args:
        bundle: folder that 'luring fit' wrote, 'luring anneal' or 'luring blend'.
        data: the images it was fitted to; as for 'luring fit'.
        out: folder for the new bundle.
        eps: the largest perturbation of the attacks on its decoy that it learns from, images in [0, 1]: as far as it shall hold.
        imitator: the new lure: auto (as wide as --lure-share allows), residual-WIDTH, plain-WIDTH, mnist, svhn, cifar10.
        lure_share: of the target's multiply-adds that the lure auto may cost.
        steps: batches.
        batch: images a step.
        lr: highest learning rate (Adam; up over a tenth of the steps, then down along a cosine).
        parts: what the bundle does not hold.
        label: name of the label column.
        image: name of the image column.
        seed: of everything; splits are the ones of the same seed of 'luring fit'.
        device: where to compute.
        training: how to train; without a move of the images they are moved as before.
    """
    import torch

    from luring import augment, imitation, networks, recipes, successor
    from luring import bundle as bundle_room

    with running(training, device, out) as run:
        if steps < 1 or batch < 1 or lr <= 0:
            raise InputError("steps, batch and lr must all be above 0.")
        recipes.check_radius(eps)
        successor.new_folder(out)
        loaded = bundle_room.load(bundle, **vars(parts))
        successor.in_front(loaded.config)
        images = bundle_room.images_for(loaded, data, seed=seed, label=label, image=image)
        moves = training.moves() or augment.stored(loaded.config["settings"])
        schedule = training.schedule(steps, batch, lr)
        loaded.decoy.to(run.place)
        loaded.target.to(run.place)
        torch.manual_seed(seed)
        made, name = networks.make_lure(imitator, loaded.target, images.shape, share=lure_share, kind="residual")
        state = out / "lure.state"
        imitation.lure(
            made.to(run.place),
            loaded.lure,
            loaded.target,
            images.train.images,
            images.validation.images,
            eps=eps,
            moves=moves,
            truth=images.validation.labels,
            schedule=schedule,
            seed=seed,
            state=state,
            log=run.log("lure", schedule),
        )
        if not run.main:
            return
        after = imitation.save(loaded, bundle, out, images, made, name, schedule, eps=eps, moves=moves, seed=seed)
        state.unlink(missing_ok=True)
        costs = [
            config["multiply_adds"]["lure"] / config["multiply_adds"]["target"] for config in (loaded.config, after)
        ]
        say(f"The lure {name} makes {costs[1]:.2f} of the target's multiply-adds (before {costs[0]:.2f}).")
        say_refitted(loaded.config, after, out, data)
