"""A fitted decoy as a folder: `config.json`, `lure.safetensors`, and the target or what it is known by; nothing in it is code.

`target.safetensors` or `target.onnx` is the target, where the bundle holds it. `stack.safetensors` stands beside them where lure and classifier
were trained as one: the classifier behind that lure is not the target. See `docs/bundle.md`.
"""

import json
import math
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from luring import answers, augment, cost, data, metrics, networks, rows, scaling, targets
from luring.atomic import replacing, write_json
from luring.augment import Moves
from luring.data import Dataset, Scaling
from luring.errors import InputError, first_line
from luring.lures import Blended
from luring.schedule import Schedule
from luring.targets import Preprocessed, Target
from luring.targets.preprocessing import described, recalled
from luring.targets.target import digest_with
from luring.types import Shape
from luring.weights import digest, fill, half_tensors, halved, read_tensors, write_tensors

FORMAT = 2
"""Of `config.json`: raised when an older Luring could not read it. Format 1 knew Luring's own targets and `module:function` alone."""

LONGEST = 2**24
"""Bytes of a `config.json`, at most."""
SPARE = 2**20
"""Bytes that a weights file may be longer than its tensors, and a thousand more for each of them: names and shapes."""


@dataclass(frozen=True)
class Bundle:
    """What a folder holds.

    Attributes:
        target: M, in evaluation mode.
        lure: P, in evaluation mode.
        decoy: M∘P; for `stack` the lure with the classifier it was trained with.
        config: what `config.json` says.
        scaling: that pictures of other sizes are brought to the bundle's by; none where they must have it.
    """

    target: nn.Module
    lure: nn.Module
    decoy: nn.Module
    config: Mapping[str, Any]
    scaling: Scaling | None = None

    @property
    def behind(self) -> nn.Module:
        """The classifier behind the lure in the decoy: M, or for `stack` the one that the lure was trained with."""
        return self.decoy.target  # type: ignore[return-value]


def describe(
    dataset: Dataset,
    target: nn.Module,
    lure: nn.Module,
    decoy: nn.Module,
    *,
    names: tuple[str, str],
    method: str,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The `config` of a bundle: what was fitted to what, how, what it costs, and how it does on the test images.

    Args:
        dataset: the images.
        target: M.
        lure: P.
        decoy: M∘P.
        names: of target and lure, as `save` asks for them.
        method: `luring`, or one of the baselines.
        settings: of the fit.
    """
    return {
        "data": {"name": dataset.name, "digest": dataset.digest},
        "shape": list(dataset.shape),
        "classes": list(dataset.classes),
        "scaling": asdict(dataset.scaling) if dataset.scaling else None,
        "damaged": len(dataset.damaged),
        "target": names[0],
        "lure": names[1],
        "method": method,
        "settings": dict(settings),
        "multiply_adds": {
            "target": cost.multiply_adds(target, dataset.shape),
            "lure": cost.multiply_adds(lure, dataset.shape),
        },
        "metrics": measured(dataset, target, decoy),
        **rows.provenance(),
    }


def measured(dataset: Dataset, target: nn.Module, decoy: nn.Module) -> dict[str, float | int]:
    """The `metrics` of a bundle's `config`: how M and M∘P do on the test images."""
    truth = dataset.test.labels
    m, mop = (answers.labels(model, dataset.test.images).cpu() for model in (target, decoy))
    return {
        "target_accuracy": metrics.accuracy(m, truth),
        "test_accuracy": metrics.accuracy(mop, truth),
        "agreement": metrics.agreement(m, mop, truth),
        "disagreement": metrics.disagreement(m, mop),
        "n": len(truth),
    }


def save(
    folder: Path,
    target: nn.Module | Target,
    lure: nn.Module,
    config: Mapping[str, Any],
    *,
    stack: nn.Module | None = None,
    with_target: bool = True,
    half: bool = False,
) -> None:
    """Write a bundle; `config.json` comes last, so a folder that has one is whole.

    Args:
        folder: made where it is missing; a bundle in it is replaced.
        target: M; a bare module is taken for one of Luring's own, of the name in `config`.
        lure: P.
        config: JSON values; `target` and `lure` name networks (`luring.targets.load`, `networks.make_lure`), `shape` and `classes` say what for.
        stack: the classifier trained behind the lure, for the baseline Stack.
        with_target: put the target in, too; otherwise only what it is known by.
        half: store weights as float16, half as large; `config` should then describe `weights.halved` networks, which is what is loaded.

    Raises:
        InputError: the target is a `.pt2` program, which is never put into a bundle; or a weight is too large for float16.
    """
    found = target if isinstance(target, Target) else Target(target, "luring", str(config["target"]))
    if with_target and found.kind == "exported":
        raise InputError(f"{found.name} is not put into a bundle, for it may hold code: leave --with-target out.")
    if half:
        found, lure = replace(found, network=halved(found.network)), halved(lure)
        stack = halved(stack) if stack is not None else None
    parts = {"lure": lure} | ({"stack": stack} if stack is not None else {})
    if with_target and found.file is None:
        parts["target"] = found.classifier
    for name, network in parts.items():
        write_tensors(folder / f"{name}.safetensors", half_tensors(network) if half else network.state_dict())
    if with_target and found.file is not None:
        with replacing(folder / "target.onnx") as file, found.file.open("rb") as source:
            shutil.copyfileobj(source, file)
    digests = {name: digest(network) for name, network in parts.items()} | {"target": found.digest}
    said = {
        "kind": found.kind,
        "stored": with_target,
        "network": found.config,
        "preprocessing": described(found.preprocessing) if found.preprocessing else None,
    }
    whole = {"format": FORMAT, **config, "target": found.name, "found": said, "digests": digests}
    write_json(folder / "config.json", whole)


def fitted_by(
    recipe: str, asked: Mapping[str, Any], schedule: Schedule, seed: int, moves: Moves | None
) -> dict[str, Any]:
    """The `settings` of a lure's fit, as `recipes.stored` and `augment.stored` read them."""
    return {"recipe": recipe, **asked, "schedule": schedule.describe(), "seed": seed, **augment.described(moves)}


def files(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names that the parts of a bundle have in its folder, those that it holds."""
    return ("target.onnx", *(f"{part}.safetensors" for part in config["digests"]))


def load(
    folder: Path | str,
    *,
    target: nn.Module | Target | str | None = None,
    lure: nn.Module | str | None = None,
    weights: Path | None = None,
) -> Bundle:
    """Read a bundle.

    Args:
        folder: that `save` wrote, or the hub id of one, `owner/name`.
        target: the target, or the name that `luring.targets.load` finds it by, where the bundle does not hold it, or where it is not to be made
            from a file: code is never found through a bundle. A bare module gets the weights that the bundle holds.
        lure: a network for the lure's weights, or the `module:function` that gives it, where it is not one of Luring's own.
        weights: safetensors file with the target's weights, where the bundle does not hold them.

    Raises:
        InputError: no bundle, a newer format, weights that are not those of its `config.json`, another target than it was fitted to, or one
            that has to be given.
    """
    folder = _folder(folder)
    config = _config(folder)
    try:
        channels, height, width = map(int, config["shape"])
        shape, classes, digests = (channels, height, width), len(config["classes"]), dict(config["digests"])
        if not (1 <= channels <= 16 and 1 <= height <= 8192 and 1 <= width <= 8192 and 2 <= classes <= 100_000):
            raise ValueError(f"images {list(shape)}, {classes} classes")  # noqa: TRY301
        name = str(config["target"])
        lure_name, _, part = str(config["lure"]).partition("@")
        share = float(part) if part else None
        said: dict[str, Any] = dict(config.get("found") or {"kind": "luring", "stored": True, "preprocessing": None})
        found_scaling = scaling.read(config["scaling"]) if config.get("scaling") else None
        seen = recalled(said["preprocessing"]) if said["preprocessing"] is not None else None
        find = _Finder(folder, name, said, shape, classes, str(digests["target"]), weights)
        found = find(target)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}/config.json is damaged ({first_line(error)}): fit the bundle again.") from error
    if seen is not None and found.preprocessing is not None:
        found = found.seeing(seen)
    if said["stored"] and found.file is None and weights is None and not isinstance(target, Target):
        _fill(found.classifier, folder, "target")
    if found.digest != digests["target"]:
        where = f"{folder}/target.safetensors holds other weights than its config.json says: it was changed; fit the bundle again."
        raise InputError(where if target is None else _other(folder, name))
    p = networks.imported(lure) if isinstance(lure, str) else lure
    if p is not None:
        p = _held(p, share)
    else:
        fresh = lambda: _held(networks.make_lure(lure_name, found.network, shape)[0], share)  # noqa: E731
        p = _bounded(fresh, folder, "lure", auto=lure_name)
    _fill(p, folder, "lure", digests)
    if isinstance(p, Blended) and not (share and math.isclose(float(p.share), share, rel_tol=1e-5)):
        raise InputError(f"{folder}/lure.safetensors holds another share than its config.json says: it was changed.")
    behind = found.network
    if "stack" in digests:
        behind = _bounded(lambda: networks.make_target(name, shape, classes), folder, "stack")
        _fill(behind, folder, "stack", digests)
    return Bundle(found.network.eval(), p, networks.compose(p, behind).eval(), config, found_scaling)


def images_for(loaded: Bundle, name: str, *, seed: int = 0, label: str = "label", image: str = "image") -> Dataset:
    """A data set as a bundle takes it: its size, its classes, and its target's answers where there are no labels.

    Args:
        loaded: a bundle.
        name: as for `luring.data.load`; so are the others.
        seed: of the split.
        label: name of the column of labels.
        image: name of the column of images.

    Raises:
        InputError: as `luring.data.load`; or other images or classes than the bundle's.
    """
    taken = data.Taken(loaded.scaling, always=loaded.scaling is not None)
    found = data.load(name, seed=seed, label=label, image=image, taken=taken)
    shape = tuple(loaded.config["shape"])
    if found.shape != shape:
        raise InputError(
            f"the bundle is for images {list(shape)} (channels, height, width), {name} has {list(found.shape)}: give the data it was fitted to."
        )
    return data.matched(found, loaded.target, tuple(map(str, loaded.config["classes"])))


def taken_for(target: Target | None, *, size: int | None = None, damaged: float = 0.01) -> data.Taken:
    """How pictures are taken for a target: at a size that is asked for, or at its own where they have several, or a larger one.

    Args:
        target: none where it is made for the images.
        size: side that all pictures are brought to.
        damaged: share of them that may be left out.

    Raises:
        InputError: a share outside [0, 1], or no such size.
    """
    if not 0 <= damaged <= 1:
        raise InputError(f"the share of damaged pictures is {damaged:g}: give a number from 0 to 1.")
    own = target.preprocessing.scaling if target is not None and target.preprocessing is not None else None
    return data.Taken(Scaling(size, size) if size is not None else own, size is not None, float(damaged))


@dataclass(frozen=True)
class _Finder:
    """How the target of a bundle is found."""

    folder: Path
    name: str
    said: Mapping[str, Any]
    shape: Shape
    classes: int
    digest: str
    weights: Path | None

    def __call__(self, given: nn.Module | Target | str | None) -> Target:
        kind, stored = str(self.said["kind"]), bool(self.said["stored"])
        if isinstance(given, Target):
            return given
        if isinstance(given, nn.Module):
            inside = self.said["preprocessing"] is not None
            network = Preprocessed(given, recalled(self.said["preprocessing"])) if inside else given
            return Target(network, "factory" if inside else "luring", self.name)
        if given is None and not stored:
            raise InputError(
                f"{self.folder} does not hold its target: give --target {self.name}"
                + (", and its weights with --weights." if kind in ("timm", "factory") else ".")
            )
        if given is None or (stored and self.weights is None and kind in ("timm", "transformers")):
            return self._rebuilt(kind)
        if kind == "luring" and ":" in given:  # a bundle of format 1, or of a bare module
            return Target(networks.imported(given), "luring", self.name)
        if targets.kind_of(given) != kind:
            raise InputError(
                f"the target of {self.folder} is {self.name}, of the kind {kind}; {given} is of the kind {targets.kind_of(given)}: give the one it was fitted to."
            )
        if kind in ("exported", "onnx"):
            # Before it is opened: what is another file is not read.
            file = targets.file_digest(Path(given).expanduser())
            if digest_with(file, self.said["preprocessing"]) != self.digest:
                raise InputError(_other(self.folder, self.name))
        return targets.load(given, weights=self.weights, shape=self.shape, classes=self.classes)

    def _rebuilt(self, kind: str) -> Target:
        file = self.folder / "target.onnx"
        if kind == "onnx" and digest_with(targets.file_digest(file), self.said["preprocessing"]) != self.digest:
            raise InputError(f"{file} is not the file that its config.json says: it was changed; fit the bundle again.")
        make = lambda: targets.rebuild(kind, self.name, self.said, file, self.shape, self.classes)  # noqa: E731
        if kind in ("luring", "transformers"):
            with torch.device("meta"):
                _check_size(make().classifier, self.folder / "target.safetensors")
        found = make()
        if kind == "timm":
            _check_size(found.classifier, self.folder / "target.safetensors")
        return found


def _held(lure: nn.Module, share: float | None) -> nn.Module:
    """A lure held back by the share in its name, where it has one and is not held back already."""
    return lure if share is None or isinstance(lure, Blended) else Blended(lure, share)


def _other(folder: Path, name: str) -> str:
    return f"this is not the target that {folder} was fitted to ({name}), or its weights or preprocessing were changed since: give that one, or fit anew."


def _folder(name: Path | str) -> Path:
    """The folder itself, or what the hub has under that id: nothing but JSON and weights is fetched."""
    folder = Path(name).expanduser()
    if folder.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)) or str(name).startswith("."):
        return folder
    from huggingface_hub import snapshot_download

    try:
        kept = ["config.json", "guard.json", "*.safetensors", "target.onnx"]
        return Path(snapshot_download(str(name), allow_patterns=kept))
    except Exception as error:  # each version of the hub's client has its own
        raise InputError(
            f"{name} is no folder here, and the hub gives no bundle of that name ({first_line(error)}): check the name."
        ) from error


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        if path.is_file() and path.stat().st_size > LONGEST:
            raise InputError(f"{path} is longer than {LONGEST // 2**20} MiB: it is no bundle's.")
        config: dict[str, Any] = json.loads(path.read_text())
        if config["format"] > FORMAT:
            raise InputError(
                f"{folder} was written by a newer Luring (format {config['format']}, this one reads {FORMAT}): upgrade Luring."
            )
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{folder} is not a bundle, it has no config.json: give a folder that 'luring fit' wrote."
        ) from error
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged ({first_line(error)}): fit the bundle again.") from error
    return config


def _bounded(make: Callable[[], nn.Module], folder: Path, name: str, *, auto: str = "") -> nn.Module:
    """A network that is made only if the file of its weights is as long as they are."""
    if auto == "auto":
        raise InputError(f"{folder}/config.json names no lure: fit the bundle again.")
    with torch.device("meta"):
        _check_size(make(), folder / f"{name}.safetensors")
    return make()


def _check_size(network: nn.Module, path: Path) -> None:
    """Refuse weights before memory is taken for them or for the network."""
    state = network.state_dict()
    needed = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    least = sum(tensor.numel() * min(tensor.element_size(), 2) for tensor in state.values())  # in float16
    if not path.is_file() or not least <= path.stat().st_size <= needed + SPARE + 1000 * len(state):
        reason = "is missing" if not path.is_file() else f"is {path.stat().st_size:,} bytes long, not about {needed:,}"
        raise InputError(f"{path} does not hold the weights of its network (it {reason}): fit the bundle again.")


def _fill(network: nn.Module, folder: Path, name: str, digests: Mapping[str, str] | None = None) -> None:
    path = folder / f"{name}.safetensors"
    _check_size(network, path)
    fill(network, read_tensors(path), str(path))
    if digests is not None and digest(network) != digests.get(name):
        raise InputError(f"{path} holds other weights than its config.json says: it was changed; fit the bundle again.")
    network.eval()
