"""`luring publish`."""

import tempfile
from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

from luring.cli.app import Parts, app, say, writable
from luring.errors import InputError


@app.command
def publish(
    bundle: Positional[Path],
    repo: str | None = None,
    data: str | None = None,
    out: Path | None = None,
    yes: bool = False,
    parts: OmitArgPrefixes[Parts] = Parts(),  # noqa: B008
) -> None:
    """Make a bundle ready for others, with a model card, and put it on the hub; without --yes nothing leaves this machine.

    Whoever has a bundle has its target M: publish one for research, never the one that protects a service.

    Args:
        bundle: folder that 'luring fit' or 'luring reproduce' wrote.
        repo: owner/name on the hub.
        data: the images it was fitted to: weights then go as float16, if accuracy and agreement on the test images move by 0.001 at most.
        out: folder to keep what is, or would be, uploaded.
        yes: upload it. Without, the files and the card are only shown.
        parts: what the bundle does not hold.
    """
    from luring import bundle as bundle_room
    from luring import publish as room

    if yes and repo is None:
        raise InputError("--yes uploads, but there is no --repo: give owner/name.")
    if repo is not None:
        room.check_repo(repo)
    found = bundle_room.load(bundle, **vars(parts))
    images = None
    if data is not None:
        images = bundle_room.images_for(found, data, seed=int(found.config["settings"].get("seed", 0)))
    with tempfile.TemporaryDirectory() as aside:
        folder = writable(out) if out is not None else Path(aside)
        config = room.stage(found, bundle, folder, images, **vars(parts))
        names = ("README.md", "config.json", *bundle_room.files(config))
        say((folder / "README.md").read_text(encoding="utf-8"))
        files = [folder / name for name in names if (folder / name).exists()]
        say(*(f"{file.stat().st_size:>12,} bytes  {file.name}" for file in files))
        if data is not None and "weights" not in config and config.get("found", {}).get("kind", "luring") == "luring":
            say("The weights stay in float32: in float16 accuracy or agreement would move by more than 0.001.")
        if yes and repo is not None:
            say(f"\nPublished: {room.upload(folder, repo)}")
        elif repo is not None:
            say(f"\nNothing was uploaded: the same command with --yes puts these files into {repo}.")
        else:
            say("\nNothing was uploaded: give --repo owner/name and --yes for that.")
