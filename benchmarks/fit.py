"""How fast `luring.training.lure` trains, beside bare forward and backward passes, and how its memory grows: `python benchmarks/fit.py`.

The bare steps go through M∘P with M frozen, on one batch that lies ready, with no optimiser, no validation and nothing saved; they and the loop
take turns, so that what else the machine does strikes both. One row a network, precision and place of the images goes to OUT/rows.jsonl, and
one for the memory over a long run.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from memory import resident
from safetensors.torch import save_file
from torch import Tensor, nn

from luring import answers, losses, networks, rooms, rows, training
from luring.frozen import frozen
from luring.heap import keep_freed_memory
from luring.schedule import Schedule

Pair = tuple[nn.Module, nn.Module]
Shape = tuple[int, int, int]

HELD = 8
"""Validation images: a round is short, and validation is no part of what is compared."""


def sized(name: str, shape: Shape) -> Pair:
    """A target, and a lure of a quarter of its cost."""
    target = networks.make_target(name, shape, 10)
    return networks.make_lure("auto", target, shape)[0], target


def paper(name: str, shape: Shape) -> Pair:
    """A target and a lure of the paper."""
    target = networks.make_target(name, shape, 10)
    return networks.make_lure(name, target, shape)[0], target


NETWORKS: Mapping[str, tuple[Callable[[], Pair], Shape, int]] = {
    "plain, lure auto": (lambda: sized("plain", (1, 8, 8)), (1, 8, 8), 100),
    "mnist, lure auto": (lambda: sized("mnist", (1, 28, 28)), (1, 28, 28), 20),
    "mnist, its lure": (lambda: paper("mnist", (1, 28, 28)), (1, 28, 28), 20),
    "cifar10, lure auto": (lambda: sized("cifar10", (3, 32, 32)), (3, 32, 32), 6),
    "cifar10, its lure": (lambda: paper("cifar10", (3, 32, 32)), (3, 32, 32), 6),
}
"""Lure and target, the images' shape, and steps a round; the first is so small that what surrounds the passes shows most, the last needs a GPU."""

ON_CPU = tuple(NETWORKS)[:-1]


def bare(lure: nn.Module, target: nn.Module, images: Tensor, steps: int, precision: str) -> float:
    """Images a second of forward and backward passes alone."""
    x = answers.prepare(images, lure)
    first, second = answers.logits(target, images).topk(2, dim=1).indices.unbind(1)
    lure.train()
    with frozen(target):
        start = time.perf_counter()
        for _ in range(steps):
            with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                value = losses.luring(target(lure(x)).float(), first, second)
            lure.zero_grad()
            value.backward()
        if x.device.type == "cuda":
            torch.cuda.synchronize()
    return steps * len(images) / (time.perf_counter() - start)


def loop(lure: nn.Module, target: nn.Module, images: Tensor, held: Tensor, schedule: Schedule) -> training.Fitted:
    """The same by `luring.training.lure`, which validates once, at the end."""
    return training.lure(lure, target, images, held, schedule=schedule, show=False)


def measure(name: str, precision: str, place: str, given: argparse.Namespace) -> None:
    """One network: bare steps and the loop in turns."""
    make, shape, steps = NETWORKS[name]
    device = torch.device(given.device)
    steps *= 5 if device.type == "cuda" else 1
    torch.manual_seed(0)
    lure, target = (network.to(device, memory_format=torch.channels_last) for network in make())
    count = given.images if place == "memory" else 4 * given.images
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8)
    schedule = Schedule(steps, given.batch, shape="constant", lr=1e-4, precision=precision, validations=1)  # pyright: ignore[reportArgumentType]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        file = Path(folder) / "images.safetensors"
        if place == "disk":
            save_file({"images": images}, file)
            rooms.IN_MEMORY = 0  # what is larger is fetched ahead
        ready, held = images[: given.batch].to(device), images[-HELD:].clone()
        if place == "disk":
            del images
        rates: list[tuple[float, float, float]] = []
        for turn in range(given.rounds + 1):
            if place == "disk":
                _forget(file)
            train = rooms.mapped(file)["images"] if place == "disk" else images
            first, second = [
                lambda: bare(lure, target, ready, steps, precision),
                lambda train=train: loop(lure, target, train, held, schedule),
            ][:: 1 if turn % 2 else -1]
            found = [first(), second()][:: 1 if turn % 2 else -1]
            if turn:  # the first round also makes room in memory
                rates.append((found[0], found[1].images_per_second, found[1].waiting))
    rooms.IN_MEMORY = 2**30
    of_bare = [ours / floor for floor, ours, _ in rates]
    row = {
        "kind": "fitting",
        "dataset": name,
        "scale": "benchmark",
        "architecture": "luring",
        "attack": ", ".join([precision, place, *([given.device] if given.device != "cpu" else [])]),
        "seed": 0,
        "n": given.rounds,
        "settings": {"precision": precision, "place": place, "batch": given.batch, "steps": steps, "shape": list(shape)}
        | {"threads": torch.get_num_threads(), "device": given.device, "images": count},
        "bare_images_per_second": statistics.median(rate for rate, _, _ in rates),
        "images_per_second": statistics.median(rate for _, rate, _ in rates),
        "of_bare": statistics.median(of_bare),
        "of_bare_range": [min(of_bare), max(of_bare)],
        "waiting": statistics.median(share for *_, share in rates),
        "waiting_range": [min(share for *_, share in rates), max(share for *_, share in rates)],
        "seconds": time.perf_counter() - start,
        **rows.provenance(),
    }
    rows.append(given.out / "rows.jsonl", row)
    print(
        f"{name:20} {precision:8} {place:6} {row['images_per_second']:8.0f} images/s, {row['of_bare']:.2f} of the bare passes "
        f"({min(of_bare):.2f} to {max(of_bare):.2f}), {row['waiting']:.1%} waiting",
        flush=True,
    )


def _forget(file: Path) -> None:
    """Have the system drop what it keeps of a file in memory, so that the disk is read."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def endure(given: argparse.Namespace) -> None:
    """The memory of a process over a long run of the smallest network."""
    keep_freed_memory()  # as the command line does
    make, shape, _ = NETWORKS["plain, lure auto"]
    torch.manual_seed(0)
    lure, target = make()
    images = torch.randint(0, 256, (given.images, *shape), dtype=torch.uint8)
    held = images[:HELD].clone()
    seen: list[tuple[int, int]] = []
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        training.lure(
            lure,
            target,
            images,
            held,
            schedule=Schedule(given.long, given.batch),
            state=Path(folder) / "state",
            show=False,
            log=lambda _, step: seen.append((step, resident("VmRSS"))),
        )
    early = [size for step, size in seen if given.long // 10 <= step <= given.long // 5]
    late = [size for step, size in seen if step >= given.long * 9 // 10]
    row = {
        "kind": "endurance",
        "dataset": "plain, lure auto",
        "scale": "benchmark",
        "architecture": "luring",
        "seed": 0,
        "n": given.long,
        "settings": {"batch": given.batch, "threads": torch.get_num_threads(), "images": given.images},
        "resident": statistics.median(early),
        "grown": statistics.median(late) - statistics.median(early),
        "seconds": time.perf_counter() - start,
        **rows.provenance(),
    }
    rows.append(given.out / "rows.jsonl", row)
    print(f"{given.long} steps: {row['resident'] / 2**20:.1f} MiB, grown by {row['grown'] / 2**10:.0f} KiB", flush=True)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of rows.jsonl")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="for images on the disk")
    parser.add_argument("--networks", nargs="*", default=ON_CPU)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--long", type=int, default=10_000, help="steps of the run whose memory is measured; 0: none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.backends.cudnn.benchmark = True  # as the command line has it
    for name in given.networks:
        for precision, place in (("float32", "memory"), ("bfloat16", "memory"), ("float32", "disk")):
            measure(name, precision, place, given)
    if given.long:
        endure(given)


if __name__ == "__main__":
    main()
