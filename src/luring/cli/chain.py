"""`luring chain`."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes, Positional

from luring.cli.anneal import anneal
from luring.cli.app import Device, Parts, Seed, app, say, writable
from luring.cli.blend import blend
from luring.cli.imitate import imitate
from luring.cli.training import Training
from luring.errors import InputError

SHARE = 0.5
"""That the annealed lure is held back to."""

LR = 0.4
"""Of the first fit's learning rate, where its lure is fitted on."""


@app.command
def chain(
    bundle: Positional[Path],
    data: str,
    out: Path,
    eps: float,
    lure_share: float = 0.25,
    parts: OmitArgPrefixes[Parts] = Parts(),  # noqa: B008
    label: str = "label",
    image: str = "image",
    seed: Seed = 0,
    device: Device = "auto",
    training: OmitArgPrefixes[Training] = Training(),  # noqa: B008
) -> None:
    """Make a strong lure cheap and bring it near its target: fit it on, hold it back, fit that on, imitate it, turn that away.

    For a bundle of 'luring fit --recipe faithful' on pictures in colour. These are 'luring anneal', 'luring blend', 'luring anneal', 'luring imitate' and 'luring
    anneal --align', one after the other, with settings that follow from the bundle's own; it takes two to three times as long as that fit. What each made stays
    in a folder 'stages-…' of it. Stop it at any moment; the same command goes on. A guard has to be set anew.

    Args:
        bundle: folder that 'luring fit' wrote.
        data: the images it was fitted to; as for 'luring fit'.
        out: folder for the new bundle.
        eps: the largest perturbation that it shall hold against, images in [0, 1].
        lure_share: of the target's multiply-adds that the new lure may cost.
        parts: what the bundle does not hold.
        label: name of the label column.
        image: name of the image column.
        seed: of everything; splits are the ones of the same seed of 'luring fit'.
        device: where to compute.
        training: how to train; without a move of the images they are moved as before.
    """
    from luring import anneal as annealing
    from luring import bundle as bundle_room
    from luring import networks, processes, recipes, successor
    from luring.rows import digest

    if processes.here(cpu=device == "cpu").count > 1:
        raise InputError("the chain runs in one process: give accelerate launch its commands one by one.")
    recipes.check_radius(eps)
    successor.new_folder(out)
    loaded = bundle_room.load(bundle, **vars(parts))
    config, before = loaded.config, loaded.config["settings"]
    if config["method"] != "luring" or before.get("static_eps") is None:
        raise InputError(
            f"{bundle} holds no lure that was fitted on adversarial examples: give one of 'luring fit --recipe faithful', or strong."
        )
    # Refused now, not after the hours of the bundles before it.
    networks.make_lure("auto", loaded.target, tuple(config["shape"]), share=lure_share, kind="residual")
    asked = {"lure": config["digests"]["lure"], "eps": eps, "lure_share": lure_share, "seed": seed, **vars(training)}
    # Named by what was asked for: nothing made for anything else is gone on with.
    stages = writable(out) / f"stages-{digest(asked)}"
    annealed, held, refitted, imitated = (stages / name for name in ("annealed", "held", "refitted", "imitated"))
    less, first = annealing.reduced(recipes.stored(before)), before["schedule"]
    same: dict[str, Any] = {"data": data, "label": label, "image": image, "seed": seed, "device": device}
    dear, cheap = same | {"parts": parts}, same | {"parts": replace(parts, lure=None), "training": training}

    def steps(part: float) -> int:
        return max(1, round(part * first["steps"]))

    fitted_on = dear | {"training": training, "batch": first["batch"], "lr": LR * first["lr"]}
    goals = {"lam": less["lam"], "eps": less["static_eps"]}
    turned = {"align": annealing.TURNED["align"], "steps": steps(1 / 5), "batch": 128, "lr": 1e-3}
    making: tuple[tuple[Path, partial[None]], ...] = (
        (annealed, partial(anneal, bundle, steps=steps(1 / 3), **fitted_on)),
        (held, partial(blend, annealed, share=SHARE, **dear)),
        (refitted, partial(anneal, held, steps=steps(1 / 4), **goals, **fitted_on)),
        (
            imitated,
            partial(imitate, refitted, eps=eps, lure_share=lure_share, steps=first["steps"], **dear, training=training),
        ),
        (out, partial(anneal, imitated, **turned, **cheap)),
    )
    for place, (folder, make) in enumerate(making, start=1):
        if not (folder / "config.json").exists():
            say(f"{place} of {len(making)}: {make.func.__name__}, into {folder}")
            make(out=folder)
