"""`luring blend`."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional

from luring.cli.app import Device, Parts, Seed, app, place_of, say, say_refitted, writable
from luring.errors import InputError


@app.command
def blend(
    bundle: Positional[Path],
    data: str,
    share: float | None = None,
    out: Path | None = None,
    shares: tuple[float, ...] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5),
    eps: float = 0.1,
    steps: int = 20,
    n: int = 200,
    parts: OmitArgPrefixes[Parts] = Parts(),  # noqa: B008
    label: str = "label",
    image: str = "image",
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Hold a fitted lure back: blend its image with the one it was given, for fewer wrong answers and less strength.

    Without --share a table says on validation images what each share is worth: how often M∘P is right, how often M and M∘P differ, and what MIM
    leaves. With --share and --out a bundle of that share is written, and measured on test images. Nothing is trained; a guard has to be set anew.

    Args:
        bundle: folder that 'luring fit' wrote.
        data: the images it was fitted to; as for 'luring fit'.
        share: of the lure's own image in what the target sees, above 0; 1 is the lure as it was fitted.
        out: folder for the bundle of that share.
        shares: that the table compares.
        eps: radius of MIM, images in [0, 1]; a step is two of --steps parts of it.
        steps: of MIM.
        n: validation images attacked, of those that M and M∘P at every share classify correctly.
        parts: what the bundle does not hold.
        label: name of the label column.
        image: name of the image column.
        seed: of the choice of images; splits are the ones of the same seed of 'luring fit'.
        device: where to compute.
    """
    from luring import blend as room
    from luring import bundle as bundle_room
    from luring.attacks import preset

    if (share is None) != (out is None):
        raise InputError("a bundle of another share needs both: give --share and --out, or neither for the table.")
    if n < 1 or steps < 1 or not shares:
        raise InputError("n and steps must be above 0, and shares hold one number at least.")
    place = place_of(device)
    loaded = bundle_room.load(bundle, **vars(parts))
    images = bundle_room.images_for(loaded, data, seed=seed, label=label, image=image)
    loaded.decoy.to(place)
    loaded.target.to(place)
    if share is not None and out is not None:
        after = room.save(loaded, bundle, writable(out), share, images)
        say_refitted(loaded.config, after, out, data)
        return
    attack = preset("mim", eps=eps, step=2 * eps / steps, steps=steps, seed=seed)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("Share", "M∘P right", "M and M∘P differ", "AC_M∘P, MIM", "DAC, MIM"):
        table.add_column(name, justify="right")
    found = room.curve(loaded, images, shares, attack, n=n, seed=seed)
    for one in found:
        figures = (one.accuracy, one.disagreement, one.ac_mop, one.dac)
        table.add_row(f"{one.share:g}", *(f"{figure:.3f}" for figure in figures))
    Console().print(table)
    say(
        f"{len(images.validation.labels)} validation images, MIM up to {eps:g} on {found[0].n} of them that M and every M∘P have right. Next: luring blend {bundle} --data {data} --share S --out FOLDER"
    )
