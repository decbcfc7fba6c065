"""`luring export`."""

from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes, Positional

from luring.cli.app import Parts, Seed, app, say, writable
from luring.errors import InputError


@app.command
def export(
    bundle: Positional[Path],
    out: Path,
    form: Literal["onnx", "pt2"] = "onnx",
    layout: Literal["plain", "triton"] = "plain",
    data: str | None = None,
    parts: OmitArgPrefixes[Parts] = Parts(),  # noqa: B008
    label: str = "label",
    image: str = "image",
    seed: Seed = 0,
) -> None:
    """Write the decoy and the decision of a bundle as files for other runtimes, each in a folder of its own.

    Each file is compared with the network it was written from before it takes its place: on the test images of --data, or on noise. The decision
    is written where the bundle has a guard, by 'luring calibrate'; whoever can query the decoy must not reach it.

    Args:
        bundle: folder that 'luring fit' wrote.
        out: folder for the folders decoy and decision.
        form: onnx (opset 18), or pt2: a torch.export program.
        layout: plain, or triton: two model repositories for Triton and KServe, one for each machine.
        data: images to compare on: their test part; as for 'luring fit'.
        parts: what the bundle does not hold.
        label: name of the label column.
        image: name of the image column.
        seed: of the split of the images.
    """
    import torch

    from luring import bundle as bundle_room
    from luring import export as export_room
    from luring.guard import Detector

    if (form, layout) == ("pt2", "triton"):
        raise InputError("the layout for Triton holds ONNX files: give --form onnx, or --layout plain.")
    loaded = bundle_room.load(bundle, **vars(parts))
    folder = writable(out)
    shape: tuple[int, int, int] = tuple(loaded.config["shape"])
    if data:
        images = bundle_room.images_for(loaded, data, seed=seed, label=label, image=image).test.images
    else:
        images = torch.rand(100, *shape, generator=torch.Generator().manual_seed(seed))
    detector = Detector.load(bundle, loaded.target, loaded.decoy) if (bundle / "guard.json").exists() else None
    for name in ("decoy", "decision"):
        inside = Path(name, "1", "model.onnx") if layout == "triton" else Path(f"{name}.{form}")
        file = folder / name / inside
        if name == "decoy":
            found = export_room.decoy(file, loaded.decoy, shape, images)
        elif detector is not None:
            found = export_room.decision(file, detector, shape, images)
        else:
            say("The bundle has no guard, so no decision was written: 'luring calibrate' gives it one.")
            break
        if layout == "triton":
            export_room.triton(folder / name, name, shape, len(loaded.config["classes"]))
        what = f"{found.n} test images" if data else f"{found.n} images of noise"
        say(
            f"{file} ({file.stat().st_size / 1e6:.1f} MB): the same labels on {what}, largest difference {found.largest:.1e}."
        )
