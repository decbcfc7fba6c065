"""The command line: one thin function a command. Heavy libraries are imported when a command runs, so that `--help` is quick."""

import importlib
import json
import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional, arg

from luring.errors import InputError
from luring.heap import keep_freed_memory
from luring.paper.words import ATTACKS

if TYPE_CHECKING:
    from torch import nn

    from luring.check import Verdict
    from luring.paper.experiments import Experiment

Seed = Annotated[
    int, arg(help="of splits, weights, training, choice of images and attacks: the same seed, the same numbers")
]
Device = Annotated[str, arg(help="cpu, cuda, cuda:1, …; auto takes a GPU where there is one")]

AttackNames = Annotated[str, arg(help=f"names with commas between, of {', '.join(ATTACKS)}")]

app = tyro.extras.SubcommandApp()


@app.command
def demo(seed: Seed = 0, device: Device = "auto", out: Path = Path("luring-demo")) -> None:
    """Fit lures to a small classifier of handwritten digits, attack them, and show what came of it: one minute on two cores.

    Trains a target M, fits Stack, C_E and Luring in front of it, attacks each decoy with FGSM, MIM and DIM-TI at three eps, and shows
    the examples to M. Everything lies in the output folder: rows.jsonl (every number with its settings), report.html, the networks.
    The luring loss is used with a bounded gap (lam 0.3, gap at most 15 logits), which costs less accuracy than the paper's.

    Args:
        seed: of everything.
        device: where to compute.
        out: folder for the results; a second run with the same folder goes on where the first stopped.
    """
    _run("digits", "demo", seed, device, out)
    _say(
        "\nRead each line so: examples that fool the decoy M∘P (its accuracy near 0) leave M right, or the two disagree: that is DAC.",
        "\nNext: 'luring reproduce mnist --scale quick' (the paper's networks), 'luring fit --help' (your own images).",
    )


@app.command
def reproduce(
    experiment: Positional[Literal["mnist", "toy", "digits"]],
    scale: Literal["paper", "quick", "demo"] = "paper",
    seed: Seed = 0,
    device: Device = "auto",
    out: Path | None = None,
) -> None:
    """Recompute an experiment of the paper: its Tables 1 and 2, Figures 4, 5 and 6, beside the published numbers.

    Stop it at any moment; the same command goes on. Run it again with another --seed and the same --out for means and spreads.

    Args:
        experiment: mnist (needs the images: the folder in LURING_DATA, or the hub), toy (the illustration of §3.3, Figures 2 and 3; a minute), or digits.
        scale: paper (about two hours on two cores), quick (minutes; not to be compared with the paper), demo (digits only).
        seed: of everything.
        device: where to compute.
        out: folder for the results; out/EXPERIMENT-SCALE where it is not given.
    """
    _run(
        experiment,
        "demo" if experiment == "digits" else scale,
        seed,
        device,
        out or Path("out") / f"{experiment}-{scale}",
    )


@app.command
def fit(
    data: str,
    out: Path,
    target: str = "plain",
    target_weights: Path | None = None,
    lure: str = "sized",
    method: Literal["luring", "luring_alt", "c_e", "auto", "stack"] = "luring",
    lam: float = 1.0,
    gap_max: float | None = None,
    steps: int = 10000,
    target_steps: int = 5000,
    batch: int = 64,
    lr: float = 1e-3,
    label: str = "label",
    image: str = "image",
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Fit a lure to a classifier and write both as a bundle: safetensors and JSON.

    The target is trained first, unless its weights are given. Stop it at any moment; the same command goes on.

    Args:
        data: digits, toy, mnist, svhn, cifar10, fashion_mnist, a folder of pictures or parquet files, or a hub id.
        out: folder for the bundle.
        target: mnist, svhn, cifar10 (the paper's), plain (small images), or module:function giving a torch module.
        target_weights: safetensors file with the target's trained weights.
        lure: mnist, svhn, cifar10 (the paper's), sized (costs at most half its target), plain-WIDTH, or module:function.
        method: luring (the paper's loss), luring_alt (its L'), or a baseline: c_e, auto, stack.
        lam: weight of the luring loss's gap.
        gap_max: bound on that gap in logits, for accuracy's sake; without one it is the paper's loss.
        steps: batches the lure is fitted for.
        target_steps: batches the target is trained for.
        batch: images a step.
        lr: highest learning rate (Adam; up over a tenth of the steps, then down along a cosine).
        label: name of the label column.
        image: name of the image column.
        seed: of everything.
        device: where to compute.
    """
    import torch

    from luring import answers, bundle, networks
    from luring import data as data_room
    from luring import fit as fit_room

    place, folder = _device(device), _writable(out)
    if steps < 1 or target_steps < 1 or batch < 1 or lr <= 0:
        raise InputError("steps, target-steps, batch and lr must all be above 0.")
    images = data_room.load(data, seed=seed, label=label, image=image)
    torch.manual_seed(seed)
    m = _module(target) if ":" in target else networks.make_target(target, images.shape, len(images.classes))
    m = m.to(place)
    answers.logits(m, images.test.images[:2])
    schedule = fit_room.Schedule(steps, batch, lr)
    if target_weights is not None:
        _weights(m, target_weights)
    else:
        first = fit_room.Schedule(target_steps, batch, lr)
        fit_room.classifier(
            m, images.train, images.validation, schedule=first, seed=seed, state=folder / "target.state"
        )
    p, lure_name = (_module(lure), lure) if ":" in lure else networks.make_lure(lure, m, images.shape)
    p, behind = p.to(place), m
    if method == "stack":
        behind = (
            _module(target).to(place)
            if ":" in target
            else networks.make_target(target, images.shape, len(images.classes))
        )
        behind = behind.to(place)
        joint = networks.compose(p, behind)
        fit_room.classifier(
            joint,
            images.train,
            images.validation,
            schedule=schedule,
            seed=seed,
            state=folder / "lure.state",
            name="stack",
        )
    else:
        fit_room.lure(
            p,
            m,
            images.train.images,
            images.validation.images,
            method=method,
            lam=lam,
            gap_max=gap_max,
            truth=images.validation.labels,
            schedule=schedule,
            seed=seed,
            state=folder / "lure.state",
        )
    config = bundle.describe(
        images,
        m,
        p,
        networks.compose(p, behind),
        names=(target, lure_name),
        method=method,
        settings={"lam": lam, "gap_max": gap_max, "schedule": asdict(schedule), "seed": seed},
    )
    bundle.save(folder, m, p, config, stack=behind if behind is not m else None)
    for state in ("target.state", "lure.state"):
        (folder / state).unlink(missing_ok=True)
    measured = config["metrics"]
    _say(
        f"Target {measured['target_accuracy']:.3f}, decoy {measured['test_accuracy']:.3f} of {measured['n']} test images right; "
        f"they answer differently on {measured['disagreement']:.3f}.",
        f"The bundle is in {folder}. Next: luring evaluate {folder} --data {data} --out {folder / 'evaluation'}",
    )


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
    target: str | None = None,
    lure: str | None = None,
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
        target: module:function of the bundle's target, where it is not Luring's own.
        lure: module:function of the bundle's lure, likewise.
        label: name of the label column.
        image: name of the image column.
        seed: of the choice of images and the attacks.
        device: where to compute.
    """
    from luring import bundle as bundle_room
    from luring import data as data_room
    from luring.paper.evaluate import evaluate as evaluate_

    place, folder = _device(device), _writable(out)
    if n < 1:
        raise InputError(f"n is {n}: give a number of images, 1 or more.")
    loaded = bundle_room.load(bundle, target=_module(target) if target else None, lure=_module(lure) if lure else None)
    images = data_room.load(data, seed=seed, label=label, image=image)
    rows_ = evaluate_(
        loaded,
        images,
        folder,
        attacks=_names(attacks),
        eps=eps,
        settings=_given(step=step, steps=steps),
        n=n,
        batch=batch_size,
        seed=seed,
        device=place,
    )
    _show(rows_, folder)


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
    target: str | None = None,
    lure: str | None = None,
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
        target: module:function of the bundle's target, where it is not Luring's own.
        lure: module:function of the bundle's lure, likewise.
        label: name of the label column.
        image: name of the image column.
        seed: of the choice of images and the attacks; splits are the ones of the same seed of 'luring fit'.
        device: where to compute.
    """
    from luring import bundle as bundle_room
    from luring import data as data_room
    from luring.paper.calibrate import calibrated, examine
    from luring.paper.evaluate import own

    place = _device(device)
    if n < 1:
        raise InputError(f"n is {n}: give a number of images, 1 or more.")
    loaded = bundle_room.load(bundle, target=_module(target) if target else None, lure=_module(lure) if lure else None)
    folder = _writable(out or bundle / "calibration")
    images = data_room.load(data, seed=seed, label=label, image=image)
    experiment = own(loaded, images, _names(attacks), eps, _given(step=step, steps=steps), n)
    detector = calibrated(loaded, images, fpr=fpr, device=place)
    detector.save(bundle)
    rows_ = examine(detector, loaded, images, folder, experiment, seed=seed, device=place)
    _show(rows_, folder)
    _say(f"The guard is in {bundle}: guard.json and guard.safetensors.")


@app.command
def check(
    bundle: Positional[Path],
    pictures: Positional[Path],
    as_json: Annotated[bool, arg(name="json")] = False,
    target: str | None = None,
    lure: str | None = None,
    device: Device = "auto",
) -> None:
    """Let the guard of a bundle look at picture files: M's answer, the score and the verdict for each.

    The exit code is 1 where a file was flagged or could not be looked at, and 0 where all were let through.

    Args:
        bundle: folder with a guard, by 'luring calibrate'.
        pictures: a picture, or a folder: every picture in it and in the folders in it.
        as_json: one JSON object a line instead of a table.
        target: module:function of the bundle's target, where it is not Luring's own.
        lure: module:function of the bundle's lure, likewise.
        device: where to compute.
    """
    from luring import bundle as bundle_room
    from luring.check import verdicts
    from luring.guard import Detector

    place = _device(device)
    loaded = bundle_room.load(bundle, target=_module(target) if target else None, lure=_module(lure) if lure else None)
    detector = Detector.load(bundle, loaded.target.to(place), loaded.decoy.to(place))
    found = verdicts(detector, pictures, shape=tuple(loaded.config["shape"]), classes=loaded.config["classes"])
    if not (_print_lines if as_json else _print_table)(found):
        sys.exit(1)


@app.command
def report(folder: Positional[Path]) -> None:
    """Draw report.html anew from a folder's rows.jsonl, or from those of the folders in it.

    Args:
        folder: with rows.jsonl, or with folders that have one.
    """
    from luring import rows

    files = [folder / "rows.jsonl"] if (folder / "rows.jsonl").exists() else sorted(folder.glob("*/rows.jsonl"))
    if not files:
        raise InputError(f"{folder} has no rows.jsonl, nor has a folder in it: give the --out of an earlier run.")
    _show([row for file in files for row in rows.read(file)], folder)


def _run(dataset: str, scale: str, seed: int, device: str, out: Path) -> None:
    from luring import rows
    from luring.paper.experiments import EXPERIMENTS
    from luring.paper.reproduce import reproduce as reproduce_
    from luring.paper.toy import toy

    if (dataset, scale) not in EXPERIMENTS:
        raise InputError(
            f"there is no scale '{scale}' of {dataset}: give one of {', '.join(s for d, s in EXPERIMENTS if d == dataset)}."
        )
    experiment: Experiment = EXPERIMENTS[dataset, scale]
    place, folder = _device(device), _writable(out)
    found = rows.read(folder / "rows.jsonl")
    if found:
        _say(f"{folder} holds {len(found)} rows: they are kept, what is missing is computed.")
    if dataset == "toy":
        toy(folder, seed=seed, device=place)
    else:
        reproduce_(experiment, folder, seed=seed, device=place)
    _show(rows.read(folder / "rows.jsonl"), folder)


def _show(rows: list[dict[str, object]], folder: Path) -> None:
    """Write the page, print the tables and the findings, and say where the page is."""
    from luring.paper import printed, report, summary, tables

    report.write(rows, folder / "report.html", title="Luring of adversarial perturbations, recomputed")
    console = Console()
    console.print(printed.terminal(rows))
    for section in tables.sections(rows):
        found = summary.findings(section)
        for line in [summary.verdicts(found)] * bool(found) + [
            f"{finding.verdict}: {finding.text}" for finding in found
        ]:
            console.print(escape(line), highlight=False)
    _say(f"\nThe page is {(folder / 'report.html').resolve()}")


def _print_lines(found: "Iterable[Verdict]") -> bool:
    """Each verdict as JSON, as soon as it is there; whether all were let through."""
    passed = True
    for verdict in found:
        print(json.dumps(asdict(verdict), ensure_ascii=False), flush=True)
        passed = passed and verdict.verdict == "pass"
    return passed


def _print_table(found: "Iterable[Verdict]") -> bool:
    """All verdicts as a table; whether all were let through."""
    verdicts = list(found)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("File", "Verdict", "M answers", "Score"):
        table.add_column(name, justify="right" if name == "Score" else "left", overflow="fold")
    for one in verdicts:
        score = "" if one.score is None else f"{one.score:.3g}"
        table.add_row(*map(Text, (one.file, one.verdict, one.answer or one.reason or "", score)))
    Console().print(table)
    counts = Counter(one.verdict for one in verdicts)
    _say(f"{counts['pass']} passed, {counts['flagged']} flagged, {counts['unreadable']} unreadable.")
    return counts["pass"] == len(verdicts)


def _names(attacks: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in attacks.split(","))


def _given(**settings: float | int | None) -> dict[str, float | int]:
    """The settings that were given."""
    return {name: value for name, value in settings.items() if value is not None}


def _say(*lines: str) -> None:
    for line in lines:
        print(line)


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"there is no device '{name}' here: give cpu, or cuda where PyTorch sees a GPU.") from error
    return name


def _writable(folder: Path) -> Path:
    """The folder, if a file can be made in it; made where it is missing, and taken away again if that is all that worked."""
    from luring.atomic import probe

    probe(folder)
    return folder


def _module(name: str) -> "nn.Module":
    """The module that a `module:function` gives; the current folder is looked in as well."""
    from torch import nn

    where, _, what = name.partition(":")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    try:
        made = getattr(importlib.import_module(where), what)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"'{name}' gives no network ({error}): give module:function, a function without arguments that returns one."
        ) from error
    finally:
        sys.path.pop(0)
    if not isinstance(made, nn.Module):
        raise InputError(f"'{name}' gives a {type(made).__name__}, not a torch module: let it return one.")
    return made


def _weights(network: "nn.Module", path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        network.load_state_dict(load(path.read_bytes()))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} does not hold the target's weights ({reason}): give a safetensors file of its state_dict."
        ) from error


def main() -> None:
    """Run the command line; a person's mistake is one sentence and exit code 2, a stop at the keyboard exit code 130."""
    warnings.showwarning = _warn
    keep_freed_memory()
    said = logging.StreamHandler()
    said.setFormatter(logging.Formatter("luring: %(message)s"))
    logging.getLogger("luring").addHandler(said)
    logging.getLogger("luring").setLevel(logging.INFO)
    try:
        app.cli(
            prog="luring",
            description="Protect a trained image classifier with a lure in front of it, and measure what that is worth.",
        )
    except InputError as error:
        sys.exit(_refuse(str(error)))
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        sys.exit(_refuse(f"{name}{(error.strerror or str(error)).lower()}; nothing half-written was left."))
    except KeyboardInterrupt:
        print("\nluring: stopped; the same command goes on from here.", file=sys.stderr)
        sys.exit(130)


def _warn(message: Warning | str, *_where: object) -> None:
    print(f"luring: {message}", file=sys.stderr)


def _refuse(sentence: str) -> int:
    print(f"luring: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
