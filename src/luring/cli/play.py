"""`luring play`."""

from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

from luring.cli.app import Device, Parts, Seed, app, place_of
from luring.errors import InputError


@app.command
def play(
    bundle: Positional[Path],
    data: str | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    eps: float = 0.15,
    parts: OmitArgPrefixes[Parts] = Parts(),  # noqa: B008
    label: str = "label",
    image: str = "image",
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Attack the decoy of a bundle in a browser, step by step, and see who is fooled: it, the classifier behind it, the guard.

    It shows the classifier's own label and the guard's verdict: it is for the operator's own machine, and listens on nothing else by itself.

    Args:
        bundle: folder that 'luring fit' wrote; with a guard, by 'luring calibrate', the verdict is the guard's.
        data: images to choose from: their test part; as for 'luring fit'. Without it, those the bundle was fitted with, if they are built in.
        host: address to listen on.
        port: to listen on.
        eps: that is set at first.
        parts: what the bundle does not hold.
        label: name of the label column.
        image: name of the image column.
        seed: of the split of the images.
        device: where to compute.
    """
    from luring import bundle as bundle_room
    from luring import data as data_room
    from luring.serve.attempt import detector_of
    from luring.serve.play import Playground, serve

    if not 0 <= eps <= 1:
        raise InputError(f"--eps is {eps:g}: give a number from 0 to 1.")
    if not 0 <= port < 65536:
        raise InputError(f"--port is {port}: give a number from 1 to 65535.")
    place = place_of(device)
    loaded = bundle_room.load(bundle, **vars(parts))
    for network in (loaded.target, loaded.lure, loaded.decoy):
        network.to(place)
    detector, own = detector_of(bundle, loaded)
    name = data or loaded.config["data"]["name"]
    test = None
    if data is not None or name in data_room.BUILT_IN:
        test = bundle_room.images_for(loaded, name, seed=seed, label=label, image=image).test
    serve(Playground(loaded, detector, own, test, eps), host, port)
