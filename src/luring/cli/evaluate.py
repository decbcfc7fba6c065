"""`luring evaluate`."""

from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes, Positional

from luring.cli.app import AttackNames, Device, Parts, Seed, app, given, names, place_of, writable
from luring.cli.shown import show
from luring.errors import InputError


@app.command
def evaluate(
    bundle: Positional[Path],
    data: str,
    out: Path,
    attacks: AttackNames = "fgsm,mim,dim-ti",
    eps: tuple[float, ...] = (0.1,),
    step: float | None = None,
    steps: int | None = None,
    n: int = 1000,
    batch_size: int | Literal["auto"] = 128,
    parts: OmitArgPrefixes[Parts] = Parts(),  # noqa: B008
    label: str = "label",
    image: str = "image",
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Attack the decoy of a bundle, show the examples to its target, and write rows and report.

    Args:
        bundle: folder that 'luring fit' wrote.
        data: images to attack: their test part; as for 'luring fit'.
        out: folder for rows.jsonl and report.html; a second run with the same folder goes on where the first stopped.
        attacks: their names.
        eps: radii of the l∞ ball, images in [0, 1].
        step: length of a step, where it is not the preset's own (0.01 for most).
        steps: number of steps, where it is not the preset's own (100 for most).
        n: test images attacked, of those that M and M∘P classify correctly.
        batch_size: images attacked at a time; auto takes the largest power of two that fits into half of the free memory, and says which.
        parts: what the bundle does not hold.
        label: name of the label column.
        image: name of the image column.
        seed: of the choice of images and the attacks.
        device: where to compute.
    """
    from luring import bundle as bundle_room
    from luring.paper.evaluate import evaluate as evaluate_

    place, folder = place_of(device), writable(out)
    if n < 1:
        raise InputError(f"n is {n}: give a number of images, 1 or more.")
    loaded = bundle_room.load(bundle, **vars(parts))
    images = bundle_room.images_for(loaded, data, seed=seed, label=label, image=image)
    rows_ = evaluate_(
        loaded,
        images,
        folder,
        attacks=names(attacks),
        eps=eps,
        settings=given(step=step, steps=steps),
        n=n,
        batch=batch_size,
        seed=seed,
        device=place,
    )
    show(rows_, folder)
