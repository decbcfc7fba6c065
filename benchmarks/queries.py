"""How much of an attack by queries is spent in the model: `python benchmarks/queries.py`.

One row a network and attack goes to OUT/rows.jsonl.
"""

import argparse
import time
from pathlib import Path

import torch
from attacks import EPS, NETWORKS
from torch import Tensor, nn

from luring import rows
from luring.attacks import ATTACKS

BUDGETS = {
    "square": 60,
    "spsa": 257,
    "nes": 202,
    "zoo": 257,
    "parsimonious": 120,
    "hop-skip-jump": 400,
    "boundary": 120,
}


class Timed(nn.Module):
    """A model that counts what it is shown and how long it takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.seconds, self.shown = model, 0.0, 0

    def forward(self, images: Tensor) -> Tensor:
        """The model's logits."""
        start = time.perf_counter()
        logits = self.model(images)
        self.seconds += time.perf_counter() - start
        self.shown += len(images)
        return logits


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of rows.jsonl")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--network", choices=NETWORKS, action="append", help="one or more; both where none is given")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for network in given.network or NETWORKS:
        make, shape = NETWORKS[network]
        torch.manual_seed(0)
        model = make().eval().requires_grad_(False)
        x = torch.rand(given.batch, *shape)
        y = model(x).argmax(1)
        for attack, budget in BUDGETS.items():
            draws = {"generator": torch.Generator().manual_seed(0)} if ATTACKS[attack].draws else {}
            asked = Timed(model).eval()
            start = time.perf_counter()
            ATTACKS[attack].function(asked, x, y, eps=EPS, budget=budget, **draws)
            seconds = time.perf_counter() - start
            row = {
                "kind": "queries",
                "dataset": network,
                "scale": "benchmark",
                "architecture": "luring",
                "attack": attack,
                "eps": EPS,
                "seed": 0,
                "n": given.batch,
                "settings": {"budget": budget, "threads": given.threads, "shape": list(shape)},
                "in_model": asked.seconds / seconds,
                "queries": asked.shown,
                "queries_per_second": asked.shown / seconds,
                "seconds": seconds,
                **rows.provenance(),
            }
            rows.append(given.out / "rows.jsonl", row)
            print(
                f"{network:6} {attack:14} {row['in_model']:6.1%} in the model, {row['queries_per_second']:8.0f} queries/s",
                flush=True,
            )


if __name__ == "__main__":
    main()
