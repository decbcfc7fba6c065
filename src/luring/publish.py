"""A bundle made ready for others: weights as small as accuracy allows, a model card, and the upload to the hub."""

import copy
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from luring import bundle as bundles
from luring import networks
from luring.bundle import Bundle
from luring.data import KNOWN, Dataset
from luring.errors import InputError, first_line
from luring.weights import halved

TOLERANCE = 0.001
"""By how much accuracy and agreement may differ with weights in float16."""

COMPARED = ("target_accuracy", "test_accuracy", "agreement")


def stage(found: Bundle, folder: Path, out: Path, dataset: Dataset | None = None, **parts: Any) -> dict[str, Any]:
    """Write what is to be published: the bundle, in float16 where that costs no accuracy, and `README.md`, its model card.

    Nothing else goes with it, and no threshold of a guard: whoever has that knows what passes.

    Args:
        found: what `folder` holds.
        folder: a bundle.
        out: a folder; files of the same names in it are replaced.
        dataset: whose test images accuracy is measured on; `None` leaves the weights as they are.
        **parts: what `luring.bundle.load` needs beside `folder`.

    Returns:
        `config.json` as it was written.

    Raises:
        InputError: the data set is not the one that the bundle was fitted to, or `out` is the bundle itself.
    """
    if out.resolve() == folder.resolve():
        raise InputError(f"{out} is the bundle itself: give another folder with --out.")
    config = dict(found.config)
    # A target of another kind goes out as it came.
    own = config.get("found", {}).get("kind", "luring") == "luring"
    small = smaller(found, dataset) if dataset is not None and own else None
    if small is not None:
        config |= small
        bundles.save(out, found.target, found.lure, config, stack=_stack(found), half=True)
    else:
        out.mkdir(parents=True, exist_ok=True)
        for name in (*bundles.files(config), "config.json"):
            if (folder / name).exists():
                shutil.copyfile(folder / name, out / name)
    written = dict(bundles.load(out, **(_own(found) if own else parts)).config)
    (out / "README.md").write_text(card(written), encoding="utf-8")
    return written


def smaller(found: Bundle, dataset: Dataset) -> dict[str, Any] | None:
    """What `config` says of a bundle in float16; `None` where accuracy or agreement would move by more than `TOLERANCE`.

    Raises:
        InputError: the data set is not the one that the bundle was fitted to.
    """
    config = found.config
    if dataset.digest != config["data"]["digest"]:
        raise InputError(
            f"{dataset.name} has other images than the bundle was fitted to ({config['data']['name']}): give those with --data."
        )
    described = [bundles.measured(dataset, one.target, one.decoy) for one in (found, _halved(found))]
    differences = {name: round(described[1][name] - described[0][name], 9) for name in COMPARED}
    if max(map(abs, differences.values())) > TOLERANCE:
        return None
    return {"metrics": described[1], "weights": {"stored": "float16", "moved_by": differences}}


def card(config: Mapping[str, Any]) -> str:
    """The model card, from a bundle's `config` alone."""
    measured, costs, digests = config["metrics"], config["multiply_adds"], config["digests"]
    known = KNOWN.get(config["data"]["name"])
    channels, height, width = config["shape"]
    lines = [
        "---",
        "library_name: luring",
        "pipeline_tag: image-classification",
        "tags: [adversarial-robustness, luring]",
        *([f"datasets: [{known[0]}]"] if known else []),
        "---",
        "",
        f"# A decoy for {config['data']['name']}",
        "",
        "A lure P stands in front of a frozen classifier M. Adversarial examples crafted on the two together, M∘P, fool M less, or into another class"
        " (Bernhard, Moëllic and Dutertre 2020, *Luring of Adversarial Perturbations*).",
        "",
        "This is for research. **Whoever has this bundle has M**: do not publish the one that protects a service.",
        "",
        "```sh",
        f"luring evaluate FOLDER --data {config['data']['name']} --out results",
        "```",
        "",
        "FOLDER is this one. Weights are safetensors, all else is JSON: nothing in it is code.",
        "",
        "| | |",
        "|---|---|",
        f"| images | {height} by {width}, {'grey' if channels == 1 else f'{channels} channels'}, values in [0, 1] |",
        f"| classes | {', '.join(map(_plain, config['classes']))} |",
        f"| target M | {_plain(config['target'])}, {costs['target']:,} multiply-adds an image |",
        f"| lure P | {_plain(config['lure'])}, {costs['lure']:,} multiply-adds an image |",
        f"| fitted by | {_plain(config['method'])}; {_plain(_settings(config['settings']))} |",
        f"| weights stored as | {config.get('weights', {}).get('stored', 'float32')} |",
        "",
        f"On {measured['n']:,} test images:",
        "",
        "| | |",
        "|---|--:|",
        f"| accuracy of M | {measured['target_accuracy']:.4f} |",
        f"| accuracy of M∘P | {measured['test_accuracy']:.4f} |",
        f"| both agree and are right | {measured['agreement']:.4f} |",
        f"| they answer differently | {measured['disagreement']:.4f} |",
        "",
        f"Images: {_plain(config['data']['name'])}, SHA-256 `{config['data']['digest']}`. The terms that they were published under hold for what was learned from them.",
        "",
        *(f"Weights of the {name}: SHA-256 `{digest}`.\n" for name, digest in digests.items()),
        f"Made by Luring at commit `{config['commit']}` on {config['date']}.",
        "",
    ]
    return "\n".join(lines)


def upload(folder: Path, repo: str) -> str:
    """Put a staged folder on the hub, as one commit of a model repository that is made where it is missing.

    Args:
        folder: that `stage` wrote.
        repo: `owner/name`.

    Returns:
        Its address.

    Raises:
        InputError: the name is not `owner/name`, or the hub did not take it.
    """
    check_repo(repo)
    from huggingface_hub import HfApi

    try:
        hub = HfApi()
        address = hub.create_repo(repo, exist_ok=True)
        hub.upload_folder(repo_id=repo, folder_path=folder, commit_message="A bundle of Luring")
    except Exception as error:  # each version of the client has its own
        raise InputError(
            f"the hub did not take {repo} ({first_line(error)}): log in with 'hf auth login', look at the name and the network, and run the same command again."
        ) from error
    return str(address)


def check_repo(repo: str) -> None:
    """Refuse a name that is not `owner/name`."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise InputError(f"'{repo}' is not the name of a repository: give owner/name.")


def _halved(found: Bundle) -> Bundle:
    target, lure = halved(found.target), halved(found.lure)
    stack = _stack(found)
    behind = target if stack is None else halved(stack)
    return Bundle(target, lure, networks.compose(lure, behind).eval(), found.config)


def _stack(found: Bundle) -> nn.Module | None:
    return found.behind if found.behind is not found.target else None


def _own(found: Bundle) -> dict[str, Any]:
    """Networks to read the weights back into, where they are not Luring's own."""
    return {"target": copy.deepcopy(found.target), "lure": copy.deepcopy(found.lure)}


def _plain(text: object) -> str:
    """On one line, and no column of a table."""
    return " ".join(str(text).replace("|", "\\|").split())


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} ({_settings(value)})" if isinstance(value, Mapping) else f"{name} {value}"
        for name, value in settings.items()
    )
