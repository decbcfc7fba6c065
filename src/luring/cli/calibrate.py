"""`luring calibrate`."""

from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

from luring.cli.app import AttackNames, Device, Parts, Seed, app, given, names, place_of, say, writable
from luring.cli.shown import show
from luring.errors import InputError


@app.command
def calibrate(
    bundle: Positional[Path],
    data: str,
    fpr: float = 0.01,
    out: Path | None = None,
    attacks: AttackNames = "fgsm,mim,dim-ti",
    eps: tuple[float, ...] = (0.1,),
    step: float | None = None,
    steps: int | None = None,
    n: int = 1000,
    parts: OmitArgPrefixes[Parts] = Parts(),  # noqa: B008
    label: str = "label",
    image: str = "image",
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Set the guard of a bundle to a false-alarm rate on clean images, and measure what it notices.

    The guard compares what M and M∘P answer. It learns from training images, its threshold comes from validation images, its false alarms are
    counted on test images; then attacks are crafted on the decoy, of which it has seen none. It is written into the bundle: guard.json,
    guard.safetensors. Both belong to the decision, not to what is served as the decoy.

    Args:
        bundle: folder that 'luring fit' wrote; the guard is written into it.
        data: the images it was fitted to, or some like them; as for 'luring fit'.
        fpr: wanted false-alarm rate, the share of clean images that may be rejected.
        out: folder for rows.jsonl and report.html; BUNDLE/calibration where it is not given.
        attacks: their names.
        eps: radii of the l∞ ball, images in [0, 1].
        step: length of a step, where it is not the preset's own (0.01 for most).
        steps: number of steps, where it is not the preset's own (100 for most).
        n: test images attacked, of those that M and M∘P classify correctly.
        parts: what the bundle does not hold.
        label: name of the label column.
        image: name of the image column.
        seed: of the choice of images and the attacks; splits are the ones of the same seed of 'luring fit'.
        device: where to compute.
    """
    from luring import bundle as bundle_room
    from luring.paper.calibrate import calibrated, examine
    from luring.paper.evaluate import own

    place = place_of(device)
    if n < 1:
        raise InputError(f"n is {n}: give a number of images, 1 or more.")
    if not bundle.is_dir():
        raise InputError(
            f"{bundle} is no folder here, and the guard is written into the bundle: give a folder that 'luring fit' wrote, "
            "or fetch one from the hub first, with 'hf download OWNER/NAME --local-dir FOLDER'."
        )
    loaded = bundle_room.load(bundle, **vars(parts))
    folder = writable(out or bundle / "calibration")
    images = bundle_room.images_for(loaded, data, seed=seed, label=label, image=image)
    experiment = own(loaded, images, names(attacks), eps, given(step=step, steps=steps), n)
    detector = calibrated(loaded, images, fpr=fpr, device=place)
    detector.save(bundle)
    rows_ = examine(detector, loaded, images, folder, experiment, seed=seed, device=place)
    show(rows_, folder)
    say(f"The guard is in {bundle}: guard.json and guard.safetensors.")
