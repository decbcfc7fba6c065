"""Running one of the experiments that Luring knows."""

from pathlib import Path
from typing import TYPE_CHECKING

from luring.cli.app import place_of, say, writable
from luring.cli.shown import show
from luring.errors import InputError

if TYPE_CHECKING:
    from luring.paper.experiments import Experiment
    from luring.schedule import Precision


def run(
    dataset: str,
    scale: str,
    seed: int,
    device: str,
    out: Path,
    *,
    precision: "Precision | None" = None,
    batch: int = 128,
) -> None:
    """Run it, or what is left of it, and show what came of it."""
    from luring import rows
    from luring.paper.experiments import EXPERIMENTS
    from luring.paper.reproduce import reproduce as reproduce_
    from luring.paper.research import TRIALS
    from luring.paper.toy import toy

    known = {**EXPERIMENTS, **TRIALS}
    if (dataset, scale) not in known:
        raise InputError(
            f"there is no scale '{scale}' of {dataset}: give one of {', '.join(s for d, s in known if d == dataset)}."
        )
    experiment: "Experiment" = known[dataset, scale]
    if batch < 1:
        raise InputError(f"the batch size is {batch}: give a number of images, 1 or more.")
    if precision is not None:
        if dataset == "toy":
            raise InputError("the toy has one precision, float32: leave --precision out.")
        experiment = experiment.trained_in(precision)
    place, folder = place_of(device), writable(out)
    found = rows.read(folder / "rows.jsonl")
    if found:
        say(f"{folder} holds {len(found)} rows: they are kept, what is missing is computed.")
    if dataset == "toy":
        toy(folder, seed=seed, device=place)
    else:
        reproduce_(experiment, folder, seed=seed, device=place, batch=batch)
    show(rows.read(folder / "rows.jsonl"), folder)
