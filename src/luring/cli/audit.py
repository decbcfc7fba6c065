"""`luring audit`."""

import sys
from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes, Positional

from luring.cli.app import Device, Parts, Seed, app, names, place_of, writable
from luring.cli.shown import show


@app.command
def audit(
    bundle: Positional[Path],
    data: str,
    out: Path,
    budget: Literal["quick", "full"] = "quick",
    eps: float = 0.1,
    rivals: str | None = None,
    training: int | None = None,
    parts: OmitArgPrefixes[Parts] = Parts(),  # noqa: B008
    label: str = "label",
    image: str = "image",
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Attack the guard of a bundle by everything an expert would try, beside its rivals, and say what the lure is worth.

    Eight rungs: adversaries who know nothing of the lure, who train models of their own, who suspect it, who know everything, who see the decision, who
    want refusals; and checks of the audit itself. A failed check stands first on the page, and the exit code is then 1. The bundle's guard is taken
    as 'luring calibrate' left it; where there is none, one is set up as that command would.

    Args:
        bundle: folder that 'luring fit' wrote.
        data: the images it was fitted to; as for 'luring fit'.
        out: folder for rows.jsonl, report.html and the rivals' networks; a second run with the same folder goes on where the first stopped.
        budget: quick: few images, two rivals, minutes; full: more of everything and all rivals, about an hour on MNIST.
        eps: radius of the l-infinity ball, images in [0, 1].
        rivals: names with commas between, of base, twin, c_e, ae-kl, trapdoor, adversarial, adversarial-lure, where they are not the budget's.
        training: steps, of 64 images, that a rival or a surrogate is trained for, where they are not the budget's (quick 250, full 1000): colour
            images want more. A rival's lure takes two to four times as many.
        parts: what the bundle does not hold.
        label: name of the label column.
        image: name of the image column.
        seed: of the choice of images, the rivals and the attacks; splits are the ones of the same seed of 'luring fit'.
        device: where to compute.
    """
    from luring import bundle as bundle_room
    from luring.audit.budget import BUDGETS
    from luring.audit.run import audit as audit_

    spent = BUDGETS[budget].asked(None if rivals is None else names(rivals), training)
    place, folder = place_of(device), writable(out)
    loaded = bundle_room.load(bundle, **vars(parts))
    images = bundle_room.images_for(loaded, data, seed=seed, label=label, image=image)
    rows_ = audit_(loaded, bundle, images, folder, spent, scale=budget, eps=eps, seed=seed, device=place)
    show(rows_, folder)
    if any(not check["passed"] for row in rows_ if row["kind"] == "sanity" for check in row["checks"]):
        sys.exit(1)
