"""Whoever asks the decoy server learns nothing of the guard: what its processes import, what its answers look like, how long they take."""

import os
import random
import re
import signal
import time
from http.client import HTTPConnection

import numpy as np
import pytest
from scipy.stats import ks_2samp, mannwhitneyu

from luring import answers
from serving import ask, binary, known, lists, serving, unpacked, worker

EACH = 300
"""Requests of each kind whose times are compared."""
SURE = 1e-4
"""Below this probability the times would be told apart: a chance of one in ten thousand that the test fails on equal ones."""


@pytest.fixture(scope="module")
def all_known(calibrated):
    return known(calibrated)


TELLS = """
import os, signal, sys
from pathlib import Path

def tell(*_):
    text = "\\n".join(sorted(sys.modules))
    Path(os.environ["TOLD"], f"{os.getpid()}.unfinished").write_text(text)
    Path(os.environ["TOLD"], f"{os.getpid()}.unfinished").rename(Path(os.environ["TOLD"], str(os.getpid())))

signal.signal(signal.SIGRTMIN, tell)
"""
"""Every Python process begins with this: told by a signal, it writes down what it has imported."""


@pytest.fixture(scope="module")
def server(calibrated, tmp_path_factory):
    """The process and port of a decoy server, and the folder where its processes tell."""
    told = tmp_path_factory.mktemp("told")
    (told / "sitecustomize.py").write_text(TELLS)
    paths = os.pathsep.join(filter(None, [str(told), os.environ.get("PYTHONPATH")]))
    with serving(calibrated, "decoy", environment={"TOLD": str(told), "PYTHONPATH": paths}) as (process, port):
        yield process, port, told


def test_no_process_of_it_imports_the_decision(server, all_known):
    process, port, told = server
    for path in ("/metrics", "/openapi.json", "/v2", "/v2/models/decoy", "/nothing"):
        ask(port, path)
    assert ask(port, "/predict", lists(all_known[2][:2]))[0] == 200
    modules = {}
    for one in (process.pid, worker(process.pid)):
        os.kill(one, signal.SIGRTMIN)
        end = time.monotonic() + 20
        while not (told / str(one)).exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        modules[one] = set((told / str(one)).read_text().split())
        assert not {"luring.guard", "luring.serve.decision", "luring.check", "luring.export"} & modules[one]
    assert {"luring.serve.decoy", "luring.serve.app", "luring.bundle", "torch", "fastapi"} <= modules[
        worker(process.pid)
    ]


def test_no_path_nor_header_leads_to_the_decision(server, all_known):
    _, port, _ = server
    _, _, images, flagged = all_known
    x = images[flagged][:1]
    body = lists(x)
    plain = ask(port, "/predict", body)[2]
    for headers in (
        {"authorization": "Bearer x"},
        {"x-forwarded-for": "127.0.0.1", "x-forwarded-host": "decision", "x-original-url": "/v2/models/decision"},
        {"x-luring-mode": "flag", "x-http-method-override": "GET", "cookie": "decision=1"},
        {"host": "decision"},
    ):
        assert ask(port, "/predict", body, headers=headers)[2] == plain
    assert ask(port, "/predict?mode=flag&decision=1", body)[2] == plain
    packed, kind = binary(x.numpy())
    for model in ("decision", "guard", "target", "lure", "decoy/versions/decision", "..%2fdecision"):
        assert ask(port, f"/v2/models/{model}/infer", packed, headers=kind)[0] == 404
        assert ask(port, f"/v2/models/{model}")[0] == 404
    for path in (
        "/decision",
        "/guard.json",
        "/guard.safetensors",
        "/..%2f..%2fguard.json",
        "/docs",
        "/redoc",
        "/static",
    ):
        assert ask(port, path)[0] == 404
    asked = b'{"inputs": [], "outputs": [{"name": "flagged"}], "parameters": {"mode": "flag"}}'
    assert ask(port, "/v2/models/decoy/infer", asked)[0] == 400
    _, _, openapi = ask(port, "/openapi.json")
    _, _, metrics = ask(port, "/metrics")
    for text in (openapi, metrics):
        assert not re.search(rb"flagged|verdict|score|threshold|disagree|reject|adversar|token", text)


def test_the_answer_to_a_guarded_image_has_the_form_of_every_other(server, all_known):
    _, port, _ = server
    loaded, _, images, flagged = all_known
    wanted = answers.logits(loaded.decoy, images).numpy()
    forms = {}
    for kind in (True, False):
        for place in (flagged == kind).nonzero().ravel().tolist()[:20]:
            body, headers = binary(images[place : place + 1].numpy())
            status, given, answer = ask(port, "/v2/models/decoy/infer", body, headers=headers)
            said, logits = unpacked(given, answer)
            assert np.allclose(logits, wanted[place], atol=1e-4), "what M∘P says, not M"
            given.pop("date")
            form = (status, tuple(sorted(given.items())), str(said))
            forms.setdefault(kind, set()).add(form)
            listed = ask(port, "/predict", lists(images[place : place + 1]))
            names = (listed[0], tuple(sorted(set(listed[1]) - {"date"})))
            forms[kind].add(names)
    assert forms[True] == forms[False]
    assert len(forms[True]) == 2


def test_the_time_to_an_answer_does_not_tell_a_guarded_image(server, all_known):
    _, port, _ = server
    _, _, images, flagged = all_known
    order = [True, False] * EACH
    random.Random(0).shuffle(order)
    bodies = {kind: [binary(x[None].numpy()) for x in images[flagged == kind]] for kind in (True, False)}
    took = {True: [], False: []}
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    for number, kind in enumerate(order):
        body, headers = bodies[kind][number % len(bodies[kind])]
        begun = time.perf_counter()
        connection.request("POST", "/v2/models/decoy/infer", body, headers)
        answer = connection.getresponse()
        answer.read()
        took[kind].append(time.perf_counter() - begun)
        assert answer.status == 200
    connection.close()
    assert ks_2samp(took[True], took[False]).pvalue > SURE
    assert mannwhitneyu(took[True], took[False]).pvalue > SURE
    # The test can see: times longer by a third of their spread would be told apart.
    slower = np.array(took[True]) + np.subtract(*np.quantile(took[True], [0.75, 0.25])) / 3 + np.median(took[True]) / 10
    assert mannwhitneyu(slower, took[False]).pvalue < SURE
