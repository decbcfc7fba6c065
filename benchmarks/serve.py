"""What serving costs: `python benchmarks/serve.py BUNDLE`, a calibrated one, on Linux.

Each server in turn: the same network in a bare loop over batches before and after, 64 clients, four times as many, the server's memory, and ten
thousand idle connections. Then the guard beside the bare target, turn by turn, and the exported files. One row each goes to OUT/rows.jsonl.
"""

import argparse
import asyncio
import contextlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from luring import bundle, data, export, networks, rows
from luring.cost import multiply_adds
from luring.guard import Detector
from luring.serve import decision, decoy

BATCH = 128


def network_of(surface: str, loaded: bundle.Bundle, folder: Path) -> Callable[[np.ndarray], object]:
    """What a server asks for each batch."""
    if surface == "decoy":
        return decoy.served(loaded).network
    return decision.served(loaded, Detector.load(folder, loaded.target, loaded.decoy), "flag").network


def bare(network: Callable[[np.ndarray], object], shape: list[int], seconds: float) -> float:
    """Images a second in a loop over batches, on all cores."""
    images = np.random.default_rng(0).random((BATCH, *shape), np.float32)
    for _ in range(3):
        network(images)
    done, start = 0, time.monotonic()
    while time.monotonic() - start < seconds:
        network(images)
        done += BATCH
    return done / (time.monotonic() - start)


def resident(process: int) -> int:
    """MiB of a process and its children."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    own = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(own.split()[1]) // 1024 + sum(resident(int(child)) for child in children)


@contextlib.contextmanager
def server(surface: str, folder: Path) -> Iterator[tuple[int, int]]:
    """A server that is ready: its process id and port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "luring", "serve", surface, str(folder), "--port", str(port)]
    process = subprocess.Popen([*command, "--log", os.devnull])
    try:
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5).close()
                break
            except (OSError, urllib.error.URLError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def load(port: int, surface: str, clients: int, seconds: float, shape: list[int]) -> dict[str, object]:
    """What so many clients see, asked from a process of their own."""
    client = [sys.executable, str(Path(__file__).with_name("load.py")), str(port), f"/v2/models/{surface}/infer"]
    options = ["--clients", clients, "--seconds", seconds, "--shape", *shape]
    return json.loads(subprocess.check_output([*client, *map(str, options)]))


def idle(port: int, surface: str, wanted: int, shape: list[int]) -> dict[str, object]:
    """What one client sees while so many connections are open and say nothing."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def held() -> dict[str, object]:
        made = [await asyncio.open_connection("127.0.0.1", port) for _ in range(wanted)]
        try:
            seen = await asyncio.to_thread(load, port, surface, 1, 3.0, shape)
        finally:
            for _, writer in made:
                writer.close()
        return {"connections": len(made), **seen}

    return asyncio.run(held())


def serving(surface: str, given: argparse.Namespace) -> dict[str, object]:
    """The row of a server."""
    loaded = bundle.load(given.bundle)
    config = loaded.config
    network = network_of(surface, loaded, given.bundle)
    shape = [given.images, *config["shape"]]
    with server(surface, given.bundle) as (process, port):
        load(port, surface, given.clients, given.seconds / 6, shape)
        paces = [bare(network, config["shape"], given.seconds / 6)]
        memory = [resident(process)]
        found = load(port, surface, given.clients, given.seconds, shape)
        memory.append(resident(process))
        paces.append(bare(network, config["shape"], given.seconds / 6))
        more = load(port, surface, 4 * given.clients, given.seconds / 2, shape)
        memory.append(resident(process))
        silent = idle(port, surface, given.idle, [1, *config["shape"]])
    images = float(found["per_second"]) * given.images  # type: ignore[arg-type]
    pace = statistics.fmean(paces)
    return {
        "kind": "serving",
        "architecture": surface,
        "n": sum(found["statuses"].values()),  # type: ignore[attr-defined]
        "settings": {
            "clients": given.clients,
            "images": given.images,
            "batch": BATCH,
            "threads": torch.get_num_threads(),
        },
        "bare_images_per_second": paces,
        "images_per_second": images,
        "of_bare": images / pace,
        "load": found,
        "load_times_4": more,
        "idle": silent,
        "mib": memory,
        "seconds": given.seconds,
    }


def cost(name: str, given: argparse.Namespace) -> dict[str, object]:
    """The row of the guard's cost beside the bare target, with a lure of that name; its weights do not matter for the time."""
    kept = bundle.load(given.bundle)
    shape = tuple(kept.config["shape"])
    lure, named = networks.make_lure(name, kept.target, shape)
    pair = networks.compose(lure.eval(), kept.target).eval()
    loaded = bundle.Bundle(kept.target, lure, pair, kept.config)
    torch.manual_seed(0)
    detector = Detector(kept.target, pair).fit(torch.rand(500, *shape))
    detector.infer_threshold(torch.rand(500, *shape), 0.05)
    guard = decision.served(loaded, detector, "flag").network

    def target(images: np.ndarray) -> object:
        with torch.inference_mode():
            return kept.target(torch.from_numpy(images)).argmax(1).numpy()

    found: dict[str, object] = {}
    began = time.monotonic()
    for batch, times in ((1, 20), (BATCH, 1)):
        images = np.random.default_rng(0).random((batch, *shape), np.float32)
        took: dict[str, list[float]] = {"target": [], "guard": []}
        for _ in range(given.rounds):
            for which, network in (("target", target), ("guard", guard)):
                start = time.perf_counter()
                for _ in range(times):
                    network(images)
                took[which].append((time.perf_counter() - start) / times)
        ratios = [guarded / alone for alone, guarded in zip(took["target"][2:], took["guard"][2:], strict=True)]
        found[f"batch_{batch}"] = {
            "target": statistics.median(took["target"][2:]),
            "guard": statistics.median(took["guard"][2:]),
            "of_target": statistics.median(ratios),
            "of_target_range": [min(ratios), max(ratios)],
        }
    adds = [multiply_adds(network, shape) for network in (kept.target, lure)]
    return {
        "kind": "guard_cost",
        "architecture": named,
        "n": given.rounds,
        "settings": {"lure": name, "multiply_adds": adds, "threads": torch.get_num_threads()},
        **found,
        "seconds": time.monotonic() - began,
    }


def exported(form: str, given: argparse.Namespace) -> dict[str, object]:
    """The row of the two files of a form: how large they are, and how near to the networks on the test images."""
    loaded = bundle.load(given.bundle)
    shape = tuple(loaded.config["shape"])
    images = data.load(given.data).test.images
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder, f"{name}.{form}") for name in ("decoy", "decision")}
        parity = {
            "decoy": export.decoy(files["decoy"], loaded.decoy, shape, images),
            "decision": export.decision(
                files["decision"], Detector.load(given.bundle, loaded.target, loaded.decoy), shape, images
            ),
        }
        found = {
            name: {
                "bytes": file.stat().st_size,
                "largest_difference": parity[name].largest,
                "labels_same": parity[name].labels,
            }
            for name, file in files.items()
        }
    settings = {"opset": export.OPSET} if form == "onnx" else {}
    seconds = time.monotonic() - began
    return {
        "kind": "export",
        "architecture": form,
        "n": len(images),
        "settings": settings,
        **found,
        "seconds": seconds,
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of rows.jsonl")
    parser.add_argument("--surfaces", nargs="*", default=["decoy", "decision"])
    parser.add_argument("--lures", nargs="*", default=["mnist", "auto"], help="whose guard is timed")
    parser.add_argument("--data", help="images that the exported files are compared on: their test part")
    parser.add_argument("--forms", nargs="*", default=["onnx", "pt2"], help="to export, where --data is given")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--images", type=int, default=16, help="in a request")
    parser.add_argument("--idle", type=int, default=10_000, help="connections that say nothing")
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    name = json.loads((given.bundle / "config.json").read_text())["data"]["name"]
    wanted = [(serving, one) for one in given.surfaces] + [(cost, one) for one in given.lures]
    wanted += [(exported, one) for one in given.forms if given.data]
    for measure, which in wanted:
        before = os.getloadavg()[0]
        row = measure(which, given)
        shared = {"dataset": name, "scale": "benchmark", "seed": 0, "load_average_before": before}
        row = {"kind": row.pop("kind"), **shared, **row, **rows.provenance()}
        print(json.dumps({key: row[key] for key in row if key not in rows.provenance()}, indent=1), flush=True)
        rows.append(given.out / "rows.jsonl", row)


if __name__ == "__main__":
    main()
