"""What a step of each recipe costs beside one of the paper's: `python benchmarks/recipes.py`.

Every way of fitting a lure takes a few steps in its turn, with the same networks, images and moves, so that what else the machine does strikes all.
One row a way goes to OUT/rows.jsonl.
"""

import argparse
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from luring import anneal, imitation, networks, recipes, rows, training
from luring.augment import Moves
from luring.schedule import Schedule

NETWORKS = {
    "cifar10": ("cifar10-narrow", "residual-38-2", "cifar10-narrow", (3, 32, 32)),
    "mnist": ("mnist", "auto", "residual-32-2", (1, 28, 28)),
}
"""Target, lure, the dearer lure that it imitates, and the images' shape."""

EPS = 0.04
HELD = 8
"""Validation images: validation is no part of what is compared."""


def ways(
    target: nn.Module, lure: nn.Module, dear: nn.Module, images: Tensor, schedule: Schedule
) -> Mapping[str, Callable[[], float]]:
    """By name, what fits a lure for a few steps and gives their seconds."""
    common = {"moves": Moves(shift=0.125, mirror=True), "schedule": schedule, "show": False}

    def by(**asked: object) -> Callable[[], float]:
        return lambda: training.lure(lure, target, images, images[:HELD], **asked, **common).seconds  # pyright: ignore[reportArgumentType]

    static = {name: EPS for name, recipe in recipes.RECIPES.items() if recipe.static}
    return {
        **{name: by(**recipes.asked(name, eps=static.get(name))) for name in recipes.RECIPES},
        "turned": by(**anneal.TURNED),
        "imitated": lambda: imitation.lure(lure, dear, target, images, images[:HELD], eps=EPS, **common).seconds,  # pyright: ignore[reportArgumentType]
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of rows.jsonl")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for dataset, (target_name, lure_name, dear_name, shape) in NETWORKS.items():
        torch.manual_seed(0)
        target = networks.make_target(target_name, shape, 10)
        lure, lure_name = networks.make_lure(lure_name, target, shape)
        dear, _ = networks.make_lure(dear_name, target, shape)
        schedule = Schedule(given.steps, given.batch, lr=1e-5, precision=given.precision, validations=1)
        fits = ways(target, lure, dear, torch.rand(given.steps * given.batch, *shape), schedule)
        taken: dict[str, list[float]] = {name: [] for name in fits}
        for turn in range(given.rounds + 1):
            for name, fit in fits.items():
                seconds = fit()
                if turn:  # the first round also makes room in memory
                    taken[name].append(seconds)
        for name, seconds in taken.items():
            of_paper = [own / papers for own, papers in zip(seconds, taken["paper"], strict=True)]
            row = {
                "kind": "step_cost",
                "dataset": dataset,
                "scale": "benchmark",
                "architecture": name,
                "seed": 0,
                "n": given.rounds,
                "settings": {
                    "target": target_name,
                    "lure": lure_name,
                    "imitated": dear_name,
                    "steps": given.steps,
                    "batch": given.batch,
                    "threads": given.threads,
                    "precision": given.precision,
                },
                "of_paper": statistics.median(of_paper),
                "of_paper_range": [min(of_paper), max(of_paper)],
                "seconds": sum(seconds),
                **rows.provenance(),
            }
            rows.append(given.out / "rows.jsonl", row)
            print(
                f"{dataset:8} {name:9} {row['of_paper']:.2f} ({min(of_paper):.2f} to {max(of_paper):.2f})", flush=True
            )


if __name__ == "__main__":
    main()
