"""`luring reproduce`."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from luring.cli.app import Device, Seed, app
from luring.cli.experiment import run


@app.command
def reproduce(
    experiment: Positional[Literal["mnist", "svhn", "cifar10", "toy", "digits"]],
    scale: Literal["paper", "quick", "research", "demo"] = "paper",
    seed: Seed = 0,
    device: Device = "auto",
    out: Path | None = None,
    precision: Literal["float32", "bfloat16"] | None = None,
    batch_size: int = 128,
) -> None:
    """Recompute an experiment of the paper: its Tables 1 to 4, Figures 4, 5 and 6, beside the published numbers.

    Stop it at any moment; the same command goes on. Run it again with another --seed and the same --out for means and spreads.

    Args:
        experiment: mnist, svhn, cifar10 (need the images: the folder in LURING_DATA, or the hub), toy (the illustration of §3.3, Figures 2 and 3; a minute), or digits.
        scale: paper (mnist: hours on two cores; svhn, cifar10: a GPU), quick (narrower networks, a night on two cores; not to be compared with the paper), research (recipes
            beside the paper's: mnist, cifar10, digits), demo (digits' own).
        seed: of everything.
        device: where to compute.
        out: folder for the results; out/EXPERIMENT-SCALE where it is not given.
        precision: that the networks are trained in, where it is not the experiment's own: on some CPUs bfloat16 is slower than float32.
        batch_size: images attacked at a time: what suits a CPU's cache; a GPU is busier with 1000.
    """
    run(
        experiment,
        "demo" if experiment == "digits" and scale == "paper" else scale,
        seed,
        device,
        out or Path("out") / f"{experiment}-{scale}",
        precision=precision,
        batch=batch_size,
    )
