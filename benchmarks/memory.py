"""How much memory an attack takes at its peak, beside the bare step: `python benchmarks/memory.py`, on Linux.

The unit is an image's worth: the float32 values of one image, for each image of the batch. One row a network and attack goes to OUT/rows.jsonl.
"""

import argparse
import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from attacks import EPS, NETWORKS, floor, ours

from luring import rows


def resident(which: str) -> int:
    """Bytes of this process in memory: `VmRSS` now, `VmHWM` at their highest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


def peak(run: Callable[[], object]) -> int:
    """Bytes by which the process grows at most while this runs."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the highest starts anew
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of rows.jsonl")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for network in NETWORKS:
        measure(network, given)


def measure(network: str, given: argparse.Namespace) -> None:
    """One network: every attack of ours beside the bare step, in rounds."""
    make, shape = NETWORKS[network]
    torch.manual_seed(0)
    model = make().eval().requires_grad_(False)
    x, y = torch.rand(given.batch, *shape), torch.randint(0, 10, (given.batch,))
    runs: dict[str, Callable[[], object]] = {"floor": lambda: floor(model, x, y, 2)}
    runs |= {attack: lambda run=run: run(x, y) for attack, run in ours(model, 2).items()}
    worth = x.numel() * x.element_size()
    found: dict[str, list[float]] = {attack: [] for attack in runs}
    start = time.perf_counter()
    for turn in range(given.rounds + 1):
        for attack, run in runs.items():
            taken = peak(run) / worth
            if turn:  # the first round also takes what is kept for good
                found[attack].append(taken)
    bare = statistics.median(found.pop("floor"))
    for attack, taken in found.items():
        over = [one - bare for one in taken]
        row = {
            "kind": "memory",
            "dataset": network,
            "scale": "benchmark",
            "architecture": "luring",
            "attack": attack,
            "eps": EPS,
            "seed": 0,
            "n": given.rounds,
            "settings": {"batch": given.batch, "steps": 2, "threads": given.threads, "shape": list(shape)},
            "floor": bare,
            "over_floor": statistics.median(over),
            "over_floor_range": [min(over), max(over)],
            "seconds": time.perf_counter() - start,
            **rows.provenance(),
        }
        rows.append(given.out / "rows.jsonl", row)
        print(
            f"{network:6} {attack:7} {bare:7.1f} images' worth the bare step, {row['over_floor']:+7.1f} the attack "
            f"({min(over):+.1f} to {max(over):+.1f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
