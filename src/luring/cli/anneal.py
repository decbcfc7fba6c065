"""`luring anneal`."""

from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

from luring.cli.app import Device, Parts, Seed, app, say_refitted
from luring.cli.training import Training, running
from luring.errors import InputError


@app.command
def anneal(
    bundle: Positional[Path],
    data: str,
    out: Path,
    lam: float | None = None,
    eps: float | None = None,
    align: float | None = None,
    steps: int = 3000,
    batch: int = 64,
    lr: float = 4e-4,
    parts: OmitArgPrefixes[Parts] = Parts(),  # noqa: B008
    label: str = "label",
    image: str = "image",
    seed: Seed = 0,
    device: Device = "auto",
    training: OmitArgPrefixes[Training] = Training(),  # noqa: B008
) -> None:
    """Fit a strong lure on, asked for less than before: it comes nearer to its target, and keeps most of its strength.

    For a bundle of 'luring fit --recipe strong' or faithful that refuses too many clean images; one that 'luring blend' held back is fitted on as it
    is, and may make up for what that took. Stop it at any moment; the same command goes on. A guard has to be set anew.

    Args:
        bundle: folder that 'luring fit' wrote, or 'luring blend'.
        data: the images it was fitted to; as for 'luring fit'.
        out: folder for the new bundle.
        lam: weight of the luring loss's gap; a fifth of the bundle's where it is not given.
        eps: the largest perturbation it is fitted against, images in [0, 1]; half of the bundle's where it is not given.
        align: in place of gap and perturbation, the weight of a penalty on the decoy's gradient where it points as the target's does, beside all that the
            target answers: 0.5, say. A lure that is turned away already stays so, and comes nearest to its target; a step takes three times as long as one of
            the recipe paper.
        steps: batches.
        batch: images a step.
        lr: highest learning rate (Adam; up over a tenth of the steps, then down along a cosine): well under that of the fit.
        parts: what the bundle does not hold.
        label: name of the label column.
        image: name of the image column.
        seed: of the order of the images; splits are the ones of the same seed of 'luring fit'.
        device: where to compute.
        training: how to train; without a move of the images they are moved as before.
    """
    from luring import anneal as room
    from luring import augment, successor
    from luring import bundle as bundle_room

    with running(training, device, out) as run:
        if steps < 1 or batch < 1 or lr <= 0:
            raise InputError("steps, batch and lr must all be above 0.")
        successor.new_folder(out)
        loaded = bundle_room.load(bundle, **vars(parts))
        asked = room.less(loaded.config, lam=lam, eps=eps, align=align)
        images = bundle_room.images_for(loaded, data, seed=seed, label=label, image=image)
        moves = training.moves() or augment.stored(loaded.config["settings"])
        schedule = training.schedule(steps, batch, lr)
        loaded.decoy.to(run.place)
        loaded.target.to(run.place)
        state = out / "lure.state"
        log = run.log("lure", schedule)
        room.fit(loaded, images, asked, schedule, moves=moves, seed=seed, state=state, log=log)
        if not run.main:
            return
        after = room.save(loaded, bundle, out, images, asked, schedule, moves=moves, seed=seed)
        state.unlink(missing_ok=True)
        say_refitted(loaded.config, after, out, data)
