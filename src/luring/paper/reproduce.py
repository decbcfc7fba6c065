"""Run an experiment: train, fit, attack, and write a row a cell as it is finished; what is there already is not done again."""

from pathlib import Path

from torch import nn

from luring import answers, data, networks, rows, transfer
from luring.attacks.chunks import BATCH
from luring.paper import cells
from luring.paper.experiments import Experiment
from luring.paper.pictures import pictures
from luring.paper.run import Run
from luring.transfer import Clean

COMPARED = ("c_e", "luring")


def reproduce(
    experiment: Experiment,
    out: Path,
    *,
    given: nn.Module | None = None,
    seed: int = 0,
    device: str = "cpu",
    batch: int = BATCH,
    show: bool = True,
) -> list[rows.Row]:
    """Run an experiment, or what is left of it, and give all its rows.

    Args:
        experiment: what to do.
        out: a folder: `rows.jsonl`, and the trained networks under `models`.
        given: M, where the experiment does not train it.
        seed: of splits, initial weights, training, choice of images and attacks.
        device: of the networks.
        batch: images attacked at a time; a cell's draws depend on it.
        show: show progress.

    Raises:
        InputError: `out` holds the same cells with other settings, or a damaged file.
    """
    run = Run(experiment, out, seed, device, show, batch)
    dataset = data.load(experiment.dataset, seed=seed, progress=show)
    run.source = {"train": len(dataset.train.labels) + len(dataset.validation.labels), "test": len(dataset.test.labels)}
    target = given or run.trained(
        "base", lambda: networks.make_target(experiment.target, dataset.shape, len(dataset.classes)), dataset
    )
    decoys: dict[str, nn.Module] = {"base": target}
    # Luring first: its bundle can be used while the others are fitted.
    for name in sorted(experiment.lures, key=lambda name: name != "luring"):
        decoys[name] = run.decoy(name, target, dataset)
        if name == "luring" and given is None:
            run.bundled(target, decoys[name], dataset)
    for name, decoy in decoys.items():
        cells.accuracy(run, name, target, decoy, dataset)
    weights = run.weights
    test = dataset.test
    clean = transfer.choose(list(decoys.values()), test.images, test.labels, n=experiment.n, seed=seed, ask=run.ask)
    pictures(run, target, decoys, clean, dataset.classes, weights)
    cells.converged(run, target, decoys, clean, weights)
    # Luring and the baseline it is measured by come first: a run stopped early holds their whole comparison.
    first = tuple(name for name in COMPARED if name in experiment.lures)
    groups = first, tuple(name for name in experiment.lures if name not in first)
    for names in groups:
        cells.table(run, experiment.attacks, names, target, decoys, clean)
    for attack in experiment.effect:
        for eps in experiment.eps:
            cells.effect(run, attack, eps, list(experiment.lures))
    if experiment.opposite:
        for name in experiment.lures:
            cells.opposite(run, name, target, decoys[name], clean)
    owns: dict[str, Clean] = {}
    for name in experiment.apart:
        decoys[name] = decoy = run.decoy(name, target, dataset)
        cells.accuracy(run, name, target, decoy, dataset)
        right = (answers.labels(decoy, clean.images).cpu() == clean.labels).nonzero().squeeze(1)
        if not len(right):
            continue  # nothing to attack; its line of Table 1 says why
        owns[name] = own = Clean(clean.images[right], clean.labels[right], clean.index[right])
        cells.table(run, experiment.attacks, [name], target, decoys, own)
        if experiment.opposite:
            cells.opposite(run, name, target, decoy, own)
    for names in groups:
        cells.table(run, experiment.extras, names, target, decoys, clean.first(experiment.extras_n))
    for name, own in owns.items():
        cells.table(run, experiment.extras, [name], target, decoys, own.first(experiment.extras_n))
    return rows.select(run.rows, dataset=experiment.dataset, scale=experiment.scale)
