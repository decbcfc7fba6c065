"""A server as a process of its own, and what asks it; images that its guard flags and others."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import numpy as np

from luring import bundle, data
from luring.guard import Detector

TOKEN = "a-token-of-the-tests-that-no-log-may-hold"
MODULES = {"decoy": "luring.serve.decoy", "decision": "luring.serve.decision"}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ask(port, path, body=None, *, method=None, token=None, kind="application/json", headers=None, timeout=30):
    """Status, headers and body, over a connection of its own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=timeout)
    headers = {"content-type": kind} | ({"authorization": f"Bearer {token}"} if token else {}) | (headers or {})
    with contextlib.closing(connection):
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def ready(port, seconds=60, process=None):
    end = time.monotonic() + seconds
    while True:
        try:
            if ask(port, "/v2/health/ready", timeout=5)[0] == 200:
                return
        except OSError:
            assert process is None or process.poll() is None, "the server ended"
            assert time.monotonic() < end, "the server is not ready in time"
        time.sleep(0.05)


def launch(folder, surface, *options, environment=None, log=None, port=None):
    """A server's process and its port; it may not be ready yet."""
    port = port or free_port()
    command = [sys.executable, "-m", "luring", "serve", surface, str(folder), "--port", str(port), *map(str, options)]
    with (log or Path(os.devnull)).open("ab") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {}),
        )
    return process, port


@contextlib.contextmanager
def serving(folder, surface, *options, environment=None, log=None):
    """A server that is ready, for as long as the block lasts."""
    process, port = launch(folder, surface, *options, environment=environment, log=log)
    try:
        ready(port, process=process)
        yield process, port
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def children(process):
    """Process ids of the children, workers and what multiprocessing adds."""
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def worker(process):
    """The one worker: the child that was started to serve."""
    (found,) = [one for one in children(process) if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]
    return found


def resident(process):
    """Bytes of memory that a process holds."""
    line = next(one for one in Path(f"/proc/{process}/status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def known(folder):
    """The networks of a bundle, its detector, and 260 images, [n, 1, 8, 8] float32, with whether the guard flags each."""
    loaded = bundle.load(folder)
    detector = Detector.load(folder, loaded.target, loaded.decoy)
    images = data.load("digits").test.images
    images = images if images.is_floating_point() else images / 255
    flagged = detector.predict(images)["data"]["is_adversarial"]
    assert 5 < flagged.sum() < 100
    return loaded, detector, images, flagged


def lists(images):
    """A body for `/predict`."""
    return json.dumps({"images": images.tolist()}).encode()


def binary(images):
    """Body and headers of a V2 request with its tensor in binary, answered in binary."""
    packed = np.ascontiguousarray(images, dtype="<f4").tobytes()
    tensor = {"name": "images", "datatype": "FP32", "shape": list(images.shape)}
    request = {
        "inputs": [tensor | {"parameters": {"binary_data_size": len(packed)}}],
        "parameters": {"binary_data_output": True},
    }
    head = json.dumps(request).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    return head + packed, headers


def unpacked(headers, body):
    """What a V2 answer says, and its one binary tensor as float32."""
    length = int(headers["inference-header-content-length"])
    return json.loads(body[:length]), np.frombuffer(body[length:], dtype="<f4")
