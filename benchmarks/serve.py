"""What serving costs beside the bare network: `python benchmarks/serve.py BUNDLE`, a calibrated one.

Each server in turn: the same network in a bare loop over batches, then 64 clients, then four times as many; the server's memory before and
after. One row each goes to OUT/rows.jsonl.
"""

import argparse
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import torch

from luring import bundle, rows
from luring.guard import Detector

BATCH = 128


def bare(surface: str, folder: Path, seconds: float) -> float:
    """Images a second of the server's own network in a loop over batches, on all cores."""
    from luring.serve import decision, decoy

    loaded = bundle.load(folder)
    if surface == "decoy":
        network = decoy.served(loaded).network
    else:
        network = decision.served(loaded, Detector.load(folder, loaded.target, loaded.decoy), "flag").network
    images = np.random.default_rng(0).random((BATCH, *loaded.config["shape"]), np.float32)
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


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ready(port: int, seconds: float = 60) -> None:
    """Wait for a server."""
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5).close()
        except (OSError, urllib.error.URLError):
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


def loaded(port: int, surface: str, clients: int, seconds: float, shape: list[int]) -> dict[str, object]:
    """What so many clients see, asked from a process of their own."""
    client = [sys.executable, str(Path(__file__).with_name("load.py")), str(port), f"/v2/models/{surface}/infer"]
    options = ["--clients", clients, "--seconds", seconds, "--shape", *shape]
    return json.loads(subprocess.check_output([*client, *map(str, options)]))


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of rows.jsonl")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--images", type=int, default=16, help="in a request")
    given = parser.parse_args()
    config = json.loads((given.bundle / "config.json").read_text())
    shape = [given.images, *config["shape"]]
    for surface in ("decoy", "decision"):
        pace = bare(surface, given.bundle, given.seconds / 6)
        port = free_port()
        command = [sys.executable, "-m", "luring", "serve", surface, str(given.bundle), "--port", str(port)]
        server = subprocess.Popen([*command, "--log", "/dev/null"])
        try:
            ready(port)
            loaded(port, surface, given.clients, given.seconds / 6, shape)
            before = resident(server.pid)
            found = loaded(port, surface, given.clients, given.seconds, shape)
            after = resident(server.pid)
            more = loaded(port, surface, 4 * given.clients, given.seconds / 2, shape)
        finally:
            server.terminate()
            server.wait()
        images = float(found["per_second"]) * given.images  # type: ignore[arg-type]
        row = {
            "kind": "serving",
            "dataset": config["data"]["name"],
            "scale": "benchmark",
            "architecture": surface,
            "seed": 0,
            "n": sum(found["statuses"].values()),  # type: ignore[attr-defined]
            "settings": {
                "clients": given.clients,
                "images": given.images,
                "batch": BATCH,
                "threads": torch.get_num_threads(),
            },
            "bare_images_per_second": pace,
            "images_per_second": images,
            "of_bare": images / pace,
            "load": found,
            "load_times_4": more,
            "mib": [before, after],
            "seconds": given.seconds,
            **rows.provenance(),
        }
        print(
            json.dumps(
                {
                    key: row[key]
                    for key in ("architecture", "of_bare", "bare_images_per_second", "load", "load_times_4", "mib")
                },
                indent=1,
            )
        )
        rows.append(given.out / "rows.jsonl", row)


if __name__ == "__main__":
    main()
