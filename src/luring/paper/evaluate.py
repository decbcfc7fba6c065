"""Evaluate a bundle: the cells of `reproduce`, for a lure that is there already."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from luring import answers, rows, transfer
from luring.attacks import preset
from luring.attacks.chunks import BATCH, BatchSize, fitting
from luring.bundle import Bundle
from luring.data import Dataset
from luring.errors import InputError
from luring.paper import cells
from luring.paper.experiments import Attacked, Experiment, Lure
from luring.paper.run import Run
from luring.training import Schedule
from luring.weights import digest


def evaluate(
    bundle: Bundle,
    dataset: Dataset,
    out: Path,
    *,
    attacks: Sequence[str],
    eps: Sequence[float],
    settings: Mapping[str, float | int],
    n: int = 1000,
    batch: BatchSize = BATCH,
    seed: int = 0,
    device: str = "cpu",
    show: bool = True,
) -> list[rows.Row]:
    """Attack a bundle's decoy and show the examples to its target, a row a cell.

    Args:
        bundle: that `luring.bundle.load` gave.
        dataset: whose test part is attacked.
        out: folder for `rows.jsonl`.
        attacks: names of presets.
        eps: radii of the l∞ ball.
        settings: of the attacks (`step`, `steps`), for those that have them.
        n: test images attacked.
        batch: images attacked at a time, or `auto`: as many as fit.
        seed: of their choice and of the attacks.
        device: of the networks.
        show: show progress.

    Raises:
        InputError: no such attack, or a data set of other images or classes than the bundle's.
    """
    experiment = own(bundle, dataset, attacks, eps, settings, n)
    method, chosen = str(bundle.config["method"]), experiment.attacks
    target, decoy = bundle.target.to(device), bundle.decoy.to(device)
    if batch == "auto":
        batch = fitting(decoy, answers.prepare(dataset.test.images[:n], decoy))
    run = Run(experiment, out, seed, device, show, batch)
    weights = {"base": bundle.config["digests"]["target"], method: digest(bundle.decoy)}
    for name, network in (("base", target), (method, decoy)):
        trained = bundle.config["settings"] if name == method else {"target": bundle.config["target"]}
        run.cell(
            {"kind": "accuracy", "architecture": name, "n": len(dataset.test.labels)},
            {**trained, "weights": weights[name]},
            lambda name=name, network=network: cells.measure_accuracy(
                run, name, target, network, dataset.test, weights[name]
            ),
        )
    test = dataset.test
    clean = transfer.choose([target, decoy], test.images, test.labels, n=n, seed=seed, ask=run.ask)
    for name, attacked in chosen.items():
        for radius in eps:
            cells.transferred(run, name, attacked, radius, method, target, decoy, clean, weights)
    return rows.select(run.rows, dataset=dataset.name, scale="custom")


def own(
    bundle: Bundle,
    dataset: Dataset,
    attacks: Sequence[str],
    eps: Sequence[float],
    settings: Mapping[str, float | int],
    n: int,
) -> Experiment:
    """A bundle's decoy and these attacks as an experiment; arguments and errors as for `evaluate`."""
    check_shape(bundle, dataset)
    chosen: dict[str, Attacked] = {}
    for name in attacks:
        known = dict(preset(name, eps=0.0).settings)
        chosen[name] = Attacked({setting: value for setting, value in settings.items() if setting in known})
    for radius in eps:
        if not 0 <= radius <= 1:
            raise InputError(f"eps is {radius:g}: give a radius from 0 to 1, in units of images in [0, 1].")
    method = str(bundle.config["method"])
    return Experiment(
        dataset.name,
        "custom",
        str(bundle.config["target"]),
        str(bundle.config["lure"]),
        Schedule(1),
        {method: Lure(Schedule(1))},
        chosen,
        tuple(eps),
        n,
    )


def check_shape(bundle: Bundle, dataset: Dataset) -> None:
    """Refuse images of another shape than the bundle's."""
    shape = tuple(bundle.config["shape"])
    if dataset.shape != shape:
        raise InputError(
            f"the bundle is for images {list(shape)} (channels, height, width), {dataset.name} has {list(dataset.shape)}: give the data it was fitted to."
        )
