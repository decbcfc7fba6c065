"""Servers as real processes, and what goes wrong around them: killed workers, full disks, clients that are slow, silent, gone or too many."""

import concurrent.futures
import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from luring import answers, bundle
from serving import TOKEN, ask, binary, children, known, launch, lists, ready, resident, serving, unpacked, worker

PATH = "/v2/models/decoy/infer"
SECONDS = 2.0
IDLE = 1000
"""Connections left open; `benchmarks/serve.py --idle` opens ten thousand."""


@pytest.fixture(scope="module")
def all_known(calibrated):
    return known(calibrated)


@pytest.fixture(scope="module")
def server(calibrated, tmp_path_factory):
    """A decoy server with little time and room, whose log goes to a full disk."""
    errors = tmp_path_factory.mktemp("faults") / "errors"
    options = ("--timeout", SECONDS, "--batch-size", 64, "--queue", 64, "--log", "/dev/full")
    with serving(calibrated, "decoy", *options, log=errors) as (process, port):
        yield process, port, errors


def head(length, port):
    return (
        f"POST {PATH} HTTP/1.1\r\nhost: localhost:{port}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


def read_all(connection):
    with contextlib.suppress(ConnectionResetError):
        return b"".join(iter(lambda: connection.recv(65536), b""))
    return b""


def restarts(port):
    """Workers that were replaced, as `/metrics` has it."""
    (line,) = re.findall(rb"^luring_worker_restarts_total ([\d.]+)$", ask(port, "/metrics")[2], re.MULTILINE)
    return float(line)


def v2(images):
    tensor = {"name": "images", "datatype": "FP32", "shape": list(images.shape), "data": images.flatten().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def test_a_full_disk_stops_no_answer_and_is_said_once(server, all_known):
    _, port, errors = server
    for _ in range(5):
        assert ask(port, "/predict", lists(all_known[2][:1]))[0] == 200
    assert errors.read_text().count("the log cannot be written (no space left on device)") == 1


def test_a_body_that_is_half_sent_or_slow(server, all_known):
    _, port, _ = server
    whole = v2(all_known[2][:1])
    begun = time.monotonic()
    stays, leaves, trickles = (socket.create_connection(("127.0.0.1", port)) for _ in range(3))
    for connection in (stays, leaves, trickles):
        connection.sendall(head(len(whole), port) + whole[: len(whole) // 2])
    leaves.close()
    with contextlib.suppress(OSError):
        for place in range(len(whole) // 2, len(whole)):
            trickles.sendall(whole[place : place + 1])
            time.sleep(0.1)
            if time.monotonic() - begun > SECONDS + 1:
                break
    for connection in (stays, trickles):
        said = read_all(connection)
        assert said.startswith(b"HTTP/1.1 408 "), said[:200]
        assert b"took longer than 2 s" in said
        connection.close()
    assert time.monotonic() - begun < SECONDS + 6
    assert ask(port, PATH, whole)[0] == 200


def test_what_is_no_http_gets_the_form_of_all_errors(server):
    _, port, _ = server
    for sent in (
        b"what is this\r\n\r\n",
        b"GET /predict HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(sent)
            said = read_all(connection)
        assert said.startswith(b"HTTP/1.1 400 "), said
        assert list(json.loads(said.partition(b"\r\n\r\n")[2])) == ["error"]
    with socket.create_connection(("127.0.0.1", port)) as connection:
        with contextlib.suppress(OSError):
            for _ in range(40):
                connection.sendall(b"x-endless: " + b"y" * 4000 + b"\r\n" if _ else b"GET / HTTP/1.1\r\n")
                time.sleep(0.002)
        said = read_all(connection)
    assert said == b"" or b"longer than 65536 bytes" in said, said


def test_a_body_of_100_mb_is_refused_and_takes_no_memory(server):
    process, port, _ = server
    serves = worker(process.pid)
    before = resident(serves)
    for framing in ("content-length: 100000000", "transfer-encoding: chunked"):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.settimeout(20)
            start = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{framing}\r\n\r\n"
            connection.sendall(start.encode())
            part = b"0" * 1_000_000
            part = b"f4240\r\n" + part + b"\r\n" if "chunked" in framing else part
            with contextlib.suppress(OSError):  # cut off when the time is over
                for _ in range(100):
                    connection.sendall(part)
            said = connection.recv(65536)
        assert said.startswith(b"HTTP/1.1 413 "), said[:100]
        assert b"larger than 16 MiB" in said
    assert resident(serves) - before < 80e6
    assert ask(port, "/v2/health/ready")[0] == 200


def test_many_idle_connections_keep_nobody_out(server, all_known):
    process, port, _ = server
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * IDLE)), hard))
    before = resident(worker(process.pid))
    with contextlib.ExitStack() as idle:
        for _ in range(IDLE):
            idle.enter_context(socket.create_connection(("127.0.0.1", port)))
        for _ in range(5):
            assert ask(port, PATH, v2(all_known[2][:1]))[0] == 200
        assert resident(worker(process.pid)) - before < IDLE * 50_000
    assert ask(port, PATH, v2(all_known[2][:1]))[0] == 200


def test_what_is_too_much_is_refused_with_a_time_to_come_back(server, all_known):
    loaded, _, images, _ = all_known
    _, port, _ = server
    x = images[:64].numpy()
    body, headers = binary(x)
    wanted = answers.logits(loaded.decoy, images[:64]).numpy()
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        found = list(pool.map(lambda _: ask(port, PATH, body, headers=headers), range(120)))
    refused = [one for one in found if one[0] != 200]
    assert 0 < len(refused) < 120
    for status, given, said in refused:
        assert status == 503
        assert 1 <= int(given["retry-after"]) <= 10
        assert "busy: try again" in json.loads(said)["error"]
    for status, given, said in found:
        if status == 200:
            assert np.allclose(unpacked(given, said)[1].reshape(64, 10), wanted, atol=1e-4)


def test_a_worker_killed_under_load_is_replaced_and_nobody_gets_a_wrong_answer(server, all_known):
    loaded, _, images, _ = all_known
    process, port, _ = server
    wanted = answers.logits(loaded.decoy, images).numpy()
    packed = [binary(images[place : place + 1].numpy()) for place in range(len(images))]
    stop, statuses, wrong = threading.Event(), [], []

    def load(first):
        place = first
        while not stop.is_set():
            place = (place + 7) % len(packed)
            try:
                status, given, said = ask(port, PATH, packed[place][0], headers=packed[place][1], timeout=60)
            except OSError:
                statuses.append((time.monotonic(), 0))
                time.sleep(0.05)
                continue
            statuses.append((time.monotonic(), status))
            if status == 200 and not np.allclose(unpacked(given, said)[1], wanted[place], atol=1e-4):
                wrong.append(place)

    first = worker(process.pid)
    assert restarts(port) == 0
    threads = [threading.Thread(target=load, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    os.kill(first, signal.SIGKILL)
    killed = time.monotonic()
    while (
        not any(at > killed + 0.2 and status == 200 for at, status in list(statuses)) and time.monotonic() < killed + 60
    ):
        time.sleep(0.05)
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join(90)
    assert wrong == []
    assert {status for _, status in statuses} <= {0, 200, 503, 504}
    assert sum(status == 200 for at, status in statuses if at < killed) > 3
    assert sum(status == 200 for at, status in statuses if at > killed + 0.2) > 3
    assert worker(process.pid) != first
    assert restarts(port) == 1


def test_what_was_accepted_is_answered_when_the_server_ends(server, all_known):
    """The last test of this server: a request is half sent when the server is told to end."""
    loaded, _, images, _ = all_known
    process, port, errors = server
    whole = v2(images[:1])
    half = len(whole) // 2
    accepted = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
    for connection in accepted:
        connection.sendall(head(len(whole), port) + whole[:half])
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    end = time.monotonic() + SECONDS - 0.5
    with contextlib.suppress(ConnectionRefusedError):
        while time.monotonic() < end:
            socket.create_connection(("127.0.0.1", port)).close()
            time.sleep(0.05)
    for connection in accepted:
        connection.sendall(whole[half:])
    wanted = answers.logits(loaded.decoy, images[:1]).numpy().ravel()
    for connection in accepted:
        said = read_all(connection)
        connection.close()
        assert said.startswith(b"HTTP/1.1 200 "), said[:200]
        (output,) = json.loads(said.partition(b"\r\n\r\n")[2])["outputs"]
        assert np.allclose(output["data"], wanted, atol=1e-4)
    assert process.wait(20) in (0, -signal.SIGTERM)
    assert "Traceback" not in errors.read_text()


def test_a_decision_server_killed_and_started_again_decides_as_before(calibrated, all_known, tmp_path):
    _, detector, images, _ = all_known
    (tmp_path / "token").write_text(TOKEN)
    options = ("--token-file", tmp_path / "token", "--log", tmp_path / "log")
    process, port = launch(calibrated, "decision", *options)
    ready(port, process=process)
    before = ask(port, "/predict", lists(images[:30]), token=TOKEN)
    assert before[0] == 200
    assert ask(port, "/predict", lists(images[:1]))[0] == 401
    started = [process.pid, *children(process.pid)]
    for one in started:
        for what in ("cmdline", "environ"):
            assert TOKEN.encode() not in Path(f"/proc/{one}/{what}").read_bytes()
    process.kill()
    process.wait()
    end = time.monotonic() + 20
    while any(Path(f"/proc/{one}").exists() for one in started):
        assert time.monotonic() < end, "workers end with their supervisor"
        time.sleep(0.05)

    modules = "import torch, uvicorn, fastapi, luring.cli, luring.serve.decision"
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", modules], check=True)
    imports = time.monotonic() - begun
    begun = time.monotonic()
    process, _ = launch(calibrated, "decision", *options, port=port)
    try:
        ready(port, process=process)
        took = time.monotonic() - begun
        after = ask(port, "/predict", lists(images[:30]), token=TOKEN)
        assert after[::2] == before[::2], "the calibration is the bundle's, and nothing of it was lost"
        flags = detector.predict(images[:30])["data"]["is_adversarial"].tolist()
        assert [one["flagged"] for one in json.loads(after[2])["predictions"]] == flags
    finally:
        process.terminate()
        process.wait(20)
    # The supervisor and its worker both import, one after the other.
    assert took - 2 * imports < 5
    log = (tmp_path / "log").read_text()
    assert TOKEN not in log
    assert [json.loads(line)["event"] for line in log.splitlines()].count("started") == 2


def test_a_damaged_bundle_ends_the_server_with_one_sentence(calibrated, tmp_path):
    loaded = bundle.load(calibrated)
    bundle.save(tmp_path / "b", loaded.target, loaded.lure, {**loaded.config})
    weights = tmp_path / "b" / "lure.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    process, _ = launch(tmp_path / "b", "decoy", log=tmp_path / "errors")
    assert process.wait(120) == 2
    said = (tmp_path / "errors").read_text().splitlines()
    assert len(said) == 1, said
    assert "does not hold the weights of" in said[0]
