"""Clients that ask a server without a pause, each over one connection: `python benchmarks/load.py PORT PATH --clients 64`.

One process, as little work a request as can be: it shares the cores with the server. Prints one JSON object.
"""

import argparse
import asyncio
import json
import time
from collections import Counter

import numpy as np
import uvloop

IDLE_AFTER_REFUSAL = 0.05


def request(path: str, shape: tuple[int, ...], token: str | None = None, seed: int = 0) -> bytes:
    """A V2 request with its tensor in binary: images of noise."""
    data = np.random.default_rng(seed).random(shape, np.float32).tobytes()
    tensor = {"name": "images", "datatype": "FP32", "shape": list(shape), "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/octet-stream",
        f"Inference-Header-Content-Length: {len(head)}",
        f"Content-Length: {len(head) + len(data)}",
        *([f"Authorization: Bearer {token}"] if token else []),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + head + data


class Client(asyncio.Protocol):
    """One connection: the next request goes out when the answer to the last is whole."""

    def __init__(self, asked: bytes, end: float, statuses: Counter[int], seconds: dict[int, list[float]]) -> None:
        self.asked, self.end, self.statuses, self.seconds = asked, end, statuses, seconds
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.held = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        """Send a request, or end."""
        if time.monotonic() >= self.end or self.transport.is_closing():
            self.transport.close()
            return
        self.sent = time.monotonic()
        self.transport.write(self.asked)

    def data_received(self, data: bytes) -> None:
        """Collect an answer, and ask again when it is whole."""
        self.held += data
        top, found, body = self.held.partition(b"\r\n\r\n")
        if not found:
            return
        headers = dict(line.lower().split(b": ", 1) for line in top.split(b"\r\n")[1:])
        if len(body) < int(headers[b"content-length"]):
            return
        self.held = b""
        status = int(top[9:12])
        self.statuses[status] += 1
        self.seconds.setdefault(status, []).append(time.monotonic() - self.sent)
        if status == 200:
            self.ask()
        else:
            asyncio.get_running_loop().call_later(IDLE_AFTER_REFUSAL, self.ask)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note a connection that broke."""
        if exc is not None:
            self.statuses[0] += 1
        self.done.set_result(None)


async def load(port: int, asked: bytes, clients: int, seconds: float) -> dict[str, object]:
    """Ask for so long, and count."""
    statuses: Counter[int] = Counter()
    took: dict[int, list[float]] = {}
    started = time.monotonic()
    made = [
        (
            await asyncio.get_running_loop().create_connection(
                lambda: Client(asked, started + seconds, statuses, took), "127.0.0.1", port
            )
        )[1]
        for _ in range(clients)
    ]
    await asyncio.gather(*(client.done for client in made))
    lasted = time.monotonic() - started
    good = np.array(took.get(200, [float("nan")]))
    return {
        "seconds": lasted,
        "statuses": {str(status): n for status, n in sorted(statuses.items())},
        "per_second": statuses[200] / lasted,
        "p50": float(np.quantile(good, 0.5)),
        "p99": float(np.quantile(good, 0.99)),
        "longest": float(good.max()),
    }


def main() -> None:
    """Ask, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("path", help="/v2/models/decoy/infer, say")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--shape", type=int, nargs=4, default=[16, 1, 28, 28], help="of the images of a request")
    parser.add_argument("--token")
    given = parser.parse_args()
    asked = request(given.path, tuple(given.shape), given.token)
    print(json.dumps(uvloop.run(load(given.port, asked, given.clients, given.seconds))))


if __name__ == "__main__":
    main()
