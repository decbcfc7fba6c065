"""What the two servers answer, what they refuse, and what they count; through their ASGI applications."""

import asyncio
import base64
import io
import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from luring import answers
from luring.serve import decision, decoy
from luring.serve.batching import Batcher, BusyError
from luring.serve.events import Events
from luring.serve.settings import Settings
from serving import TOKEN, binary, known, lists, unpacked
from test_cli import refused, run  # noqa: F401


@pytest.fixture(scope="module")
def all_known(calibrated):
    return known(calibrated)


@pytest.fixture
def client(calibrated, tmp_path):
    """Makes clients of servers, in this process; `client.log()` gives the lines of their log."""
    open_clients = []

    def made(surface, **changed):
        settings = Settings(surface, calibrated, surface, "127.0.0.1", 0, log=tmp_path / "log", batch=32, queue=256)
        room = decoy if surface == "decoy" else decision
        found = TestClient(room.app(replace(settings, **changed)), raise_server_exceptions=False).__enter__()
        open_clients.append(found)
        return found

    made.log = lambda: [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    yield made
    for one in open_clients:
        one.__exit__(None, None, None)


def png(image, **saved):
    """A picture file of an image, [1, 8, 8] in [0, 1]."""
    file = io.BytesIO()
    Image.fromarray((image[0].numpy() * 255).round().astype(np.uint8)).save(file, "PNG", **saved)
    return file.getvalue()


def counted(client, **headers):
    """The numbers of `/metrics` by name and labels."""
    text = client.get("/metrics", headers=headers).text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def error(answer, status, *words):
    """One sentence in the one form of all errors."""
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    sentence = answer.json()["error"]
    assert "\n" not in sentence
    assert len(sentence) < 300
    for word in words:
        assert word in sentence


def test_the_decoys_answer_in_every_form_of_question(client, all_known):
    loaded, _, images, _ = all_known
    ask = client("decoy")
    x = (images[:3] * 255).round() / 255
    likely = answers.logits(loaded.decoy, x).double().softmax(1)
    files = [png(image) for image in x]
    forms = [
        ask.post("/predict", json={"images": x.tolist()}),
        ask.post("/predict", json={"images": [base64.b64encode(file).decode() for file in files]}),
        ask.post("/predict", files=[("images", (f"{i}.png", file, "image/png")) for i, file in enumerate(files)]),
    ]
    for answer in forms:
        assert answer.status_code == 200, answer.text
        found = answer.json()["predictions"]
        assert [one["label"] for one in found] == likely.argmax(1).tolist()
        assert [one["class"] for one in found] == [str(label) for label in likely.argmax(1).tolist()]
        assert torch.allclose(torch.tensor([one["probabilities"] for one in found]).double(), likely, atol=1e-5)
    one = ask.post("/predict", content=files[1], headers={"content-type": "image/png"})
    assert one.json()["predictions"][0]["label"] == int(likely[1].argmax())
    assert set(one.json()["predictions"][0]) == {"label", "class", "probabilities"}


def test_v2_in_json_and_in_binary(client, all_known):
    loaded, _, images, _ = all_known
    ask, x = client("decoy"), images[:5]
    wanted = answers.logits(loaded.decoy, x).numpy()
    path = "/v2/models/decoy/infer"
    for values in (x.tolist(), x.flatten().tolist()):
        tensor = {"name": "images", "datatype": "FP32", "shape": [5, 1, 8, 8], "data": values}
        answer = ask.post(path, json={"id": "7", "inputs": [tensor], "outputs": [{"name": "logits"}]})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert (found["id"], found["model_name"], found["model_version"]) == ("7", "decoy", "1")
        (output,) = found["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("logits", "FP32", [5, 10])
        assert np.allclose(np.reshape(output["data"], (5, 10)), wanted, atol=1e-4)
    body, headers = binary(x.numpy())
    answer = ask.post(path, content=body, headers=headers)
    said, tensor = unpacked(answer.headers, answer.content)
    assert said["outputs"][0]["parameters"] == {"binary_data_size": 4 * 50}
    assert np.allclose(tensor.reshape(5, 10), wanted, atol=1e-4)
    meta = ask.get("/v2/models/decoy").json()
    assert meta["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    assert meta["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}]
    assert ask.get("/v2/models").json() == {"models": ["decoy"]}
    for path in ("/v2/health/ready", "/v2/health/live", "/v2/models/decoy/ready", "/v2"):
        assert ask.get(path).status_code == 200


def test_another_name_is_all_that_the_outside_sees(client, all_known):
    ask = client("decoy", name="digits")
    told = [ask.get(path).text for path in ("/v2", "/v2/models", "/v2/models/digits", "/openapi.json")]
    told.append(ask.post("/predict", json={"images": all_known[2][:1].tolist()}).text)
    told.append(ask.post("/predict", json={}).text)
    told.append(ask.get("/v2/models/decoy").text)
    for text in told:
        assert not [word for word in ("decoy", "lur", "guard", "flag", "target") if word in text.lower()], text
    assert ask.get("/v2/models/decoy").status_code == 404


@pytest.mark.parametrize("mode", ["shadow", "flag", "reject"])
def test_the_decision_by_mode(client, all_known, mode):
    _, detector, images, _ = all_known
    ask = client("decision", mode=mode)
    wanted = detector.predict(images[:32])["data"]
    found = ask.post("/predict", json={"images": images[:32].tolist()}).json()["predictions"]
    flagged = wanted["is_adversarial"].tolist()
    assert 0 < sum(flagged) < 32
    for one, label, raised in zip(found, wanted["label"].tolist(), flagged, strict=True):
        assert one["label"] == (None if mode == "reject" and raised else label)
        assert one["class"] == (None if mode == "reject" and raised else str(label))
        assert (
            set(one)
            == {"label", "class"} | {"shadow": set(), "flag": {"score", "flagged"}, "reject": {"flagged"}}[mode]
        )
        assert one.get("flagged", raised) == raised
    tensor = {"name": "images", "datatype": "FP32", "shape": [32, 1, 8, 8], "data": images[:32].tolist()}
    outputs = ask.post("/v2/models/decision/infer", json={"inputs": [tensor]}).json()["outputs"]
    assert {output["name"]: output["datatype"] for output in outputs} == {
        name: kind for name, (kind, _) in decision.OUTPUTS[mode].items()
    }
    labels = next(output["data"] for output in outputs if output["name"] == "label")
    assert (-1 in labels) == (mode == "reject")
    lines = [line for line in client.log() if line.get("path") == "/predict"]
    assert lines[-1]["flagged"] == [place for place, raised in enumerate(flagged) if raised], "also in shadow mode"
    assert len(lines[-1]["scores"]) == 32


def test_few_images_are_decided_on_as_many_are(client, all_known):
    _, detector, images, _ = all_known
    ask, wanted = client("decision", mode="flag"), detector.predict(images[:32])["data"]
    for n in (1, decision.FEW, decision.FEW + 1):
        found = ask.post("/predict", json={"images": images[:n].tolist()}).json()["predictions"]
        assert [one["label"] for one in found] == wanted["label"][:n].tolist()
        assert [one["score"] for one in found] == pytest.approx(wanted["instance_score"][:n].tolist(), rel=1e-4)


def test_the_token_opens_all_but_the_health_checks(client, all_known):
    ask = client("decision", token=TOKEN)
    body = {"images": all_known[2][:1].tolist()}
    right = {"authorization": f"Bearer {TOKEN}"}
    assert ask.post("/predict", json=body, headers=right).status_code == 200
    for wrong in (
        {},
        {"authorization": TOKEN},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": "Bearer \xff"},
    ):
        for path in ("/predict", "/v2/models/decision/infer", "/nothing"):
            answer = ask.post(path, json=body, headers={k: v.encode("latin-1") for k, v in wrong.items()})
            error(answer, 401, "Authorization: Bearer")
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/metrics", "/openapi.json", "/v2", "/v2/models/decision"):
            error(ask.get(path), 401, "token")
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert ask.get(path).status_code == 200
    assert TOKEN not in json.dumps(client.log())
    assert TOKEN not in repr(Settings("decision", Path("b"), "decision", "::1", 1, token=TOKEN))


def test_the_token_is_compared_in_constant_time(monkeypatch, client):
    """Every wrong token goes through `hmac.compare_digest`, whole."""
    from luring.serve import app

    seen = []
    real = app.hmac.compare_digest
    monkeypatch.setattr(app.hmac, "compare_digest", lambda a, b: seen.append((a, b)) or real(a, b))
    ask = client("decision", token=TOKEN)
    for given in ("", "Bearer x", f"Bearer {TOKEN[:-1]}!"):
        error(ask.get("/metrics", headers={"authorization": given}), 401)
        assert seen.pop() == (given.encode(), f"Bearer {TOKEN}".encode())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "no list of images"),
        (b'{"images": []}', "at least one"),
        (b'{"images": [[[[0.5]]]]}', "not [batch, 1, 8, 8]"),
        (b'{"images": [1, [2]]}', "neither all lists of numbers"),
        (b'{"images": ["AAAA", [1]]}', "neither all lists of numbers"),
        (b'{"images": ["!"]}', "image 0 is not base64"),
        (b'{"images": ["AAAA"]}', "no picture of a kind"),
        (b'{"images": [[["0.5"]]]}', "neither all lists of numbers"),
        (b'{"images": [null]}', "neither all lists of numbers"),
        (json.dumps({"images": [[[[0.5] * 8] * 8]] * 33}).encode(), "33 images are more than the 32"),
        (json.dumps({"images": [[[[1.5] * 8] * 8]]}).encode(), "outside [0, 1]"),
        (b'{"images": ' + b"[" * 2000 + b"]" * 2000 + b"}", "not JSON"),
    ],
)
def test_what_predict_refuses(client, body, words):
    error(client("decoy").post("/predict", content=body, headers={"content-type": "application/json"}), 400, words)


GOOD = {"name": "images", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.5] * 64}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"inputs": []}, "list of one tensor"),
        ({"inputs": [GOOD, GOOD]}, "list of one tensor"),
        ({"inputs": [GOOD | {"name": "x"}]}, "'images' of datatype FP32"),
        ({"inputs": [GOOD | {"datatype": "FP64"}]}, "'images' of datatype FP32"),
        ({"inputs": [GOOD | {"shape": [1, 8, 8]}]}, "not [batch, 1, 8, 8]"),
        ({"inputs": [GOOD | {"shape": [True, 1, 8, 8]}]}, "not [batch, 1, 8, 8]"),
        ({"inputs": [GOOD | {"shape": [0, 1, 8, 8]}]}, "not [batch, 1, 8, 8]"),
        ({"inputs": [GOOD | {"shape": [10**18, 1, 8, 8]}]}, "more than the 32"),
        ({"inputs": [GOOD | {"shape": [2, 1, 8, 8]}]}, "64 numbers and the shape [2, 1, 8, 8]"),
        ({"inputs": [GOOD | {"data": None}]}, "not numbers"),
        ({"inputs": [GOOD | {"data": ["0.5"] * 64}]}, "not numbers"),
        ({"inputs": [GOOD | {"data": [-0.1] * 64}]}, "outside [0, 1]"),
        ({"inputs": [GOOD | {"data": [10**400] * 64}]}, "not"),
        ({"inputs": [GOOD | {"parameters": {"binary_data_size": 9**9}}]}, "binary_data_size"),
        ({"inputs": [GOOD], "outputs": [{"name": "label"}]}, "ask for logits"),
        ({"inputs": [GOOD], "outputs": 3}, "not as V2 has them"),
        ({"inputs": [GOOD], "parameters": [1]}, "not as V2 has them"),
    ],
)
def test_what_v2_refuses(client, changed, words):
    error(client("decoy").post("/v2/models/decoy/infer", json=changed), 400, words)


def test_a_tensor_of_nan_or_of_another_length_is_refused(client):
    ask, path = client("decoy"), "/v2/models/decoy/infer"
    for value in (np.nan, np.inf, -np.inf, -1e-6, 1.0001):
        body, headers = binary(np.full((1, 1, 8, 8), value, np.float32))
        error(ask.post(path, content=body, headers=headers), 400, "outside [0, 1]")
    body, headers = binary(np.full((1, 1, 8, 8), 0.5, np.float32))
    error(ask.post(path, content=body[:-4], headers=headers), 400, "binary_data_size")
    for length in ("", "x", "-1", "9" * 5000, "²"):
        wrong = {
            name: value.encode() for name, value in (headers | {"inference-header-content-length": length}).items()
        }
        error(ask.post(path, content=body, headers=wrong), 400, "Inference-Header-Content-Length")


def test_what_is_refused_before_it_is_read(client):
    ask = client("decoy", mib=0.0625)
    error(ask.post("/predict", content=b"x" * 70_000, headers={"content-type": "application/json"}), 413, "0.0625 MiB")
    chunked = ask.post("/predict", content=iter([b"x" * 30_000] * 3), headers={"content-type": "application/json"})
    error(chunked, 413, "0.0625 MiB")
    error(ask.post("/predict", content=b"x", headers={"content-type": "text/csv"}), 415, "content type")
    error(ask.post("/predict", content=b"x", headers={"content-type": "multipart/form-data"}), 400, "form")
    error(ask.post("/predict", data={"images": "x"}, files={}), 415)
    error(ask.get("/predict"), 405, "another method")
    error(ask.get("/docs"), 404, "openapi.json")


def test_one_address_may_ask_so_often(client, all_known):
    ask = client("decoy", rate=5.0)
    given = [
        ask.post("/predict", content=lists(all_known[2][:1]), headers={"content-type": "application/json"})
        for _ in range(30)
    ]
    late = [answer for answer in given if answer.status_code != 200]
    assert len(given) - len(late) >= 10, "a burst of twice the rate"
    assert len(late) >= 5
    for answer in late:
        error(answer, 429, "too many requests")
        assert int(answer.headers["retry-after"]) >= 1
    assert ask.get("/v2/health/ready").status_code == 200


def test_the_decisions_numbers(client, all_known):
    loaded, detector, images, flagged = all_known
    ask = client("decision", batch=32)
    for part in images.split(32):
        assert (
            ask.post("/predict", content=lists(part), headers={"content-type": "application/json"}).status_code == 200
        )
    found, n = counted(ask), len(images)
    disagree = int((answers.labels(loaded.target, images) != answers.labels(loaded.decoy, images)).sum())
    assert found["luring_images_total",] == n
    assert found["luring_disagreements_total",] == disagree > 0
    assert found["luring_flagged_total",] == int(flagged.sum())
    assert found["luring_threshold",] == detector.threshold
    assert found["luring_false_alarm_rate_wanted",] == 0.1
    assert found["luring_disagreement_calibrated",] == detector.disagreement > 0
    assert found["luring_disagreement_rate",] == pytest.approx(disagree / n)
    assert found["luring_disagreement_drift",] == pytest.approx(disagree / n - detector.disagreement)
    assert found["luring_score_count",] == n
    assert found["luring_score_bucket", "1.0"] == n - int(flagged.sum())
    assert found["luring_requests_total", "/predict", "200"] == len(images.split(32))
    assert found["luring_request_seconds_count", "/predict"] == len(images.split(32))
    assert found["luring_batch_images_sum",] == n


def test_the_decoys_numbers_say_nothing_of_the_decision(client, all_known):
    ask = client("decoy")
    ask.post("/predict", content=lists(all_known[2][:3]), headers={"content-type": "application/json"})
    ask.get("/a/path/of/somebodys/own")
    found = counted(ask)
    assert {
        name.removesuffix("_total").removesuffix("_created")
        for name, *_ in found
        if not name.endswith(("_bucket", "_sum", "_count"))
    } == {
        "luring_requests",
        "luring_request_seconds",
        "luring_batch_images",
        "luring_worker_restarts",
    }
    assert found["luring_requests_total", "other", "404"] == 1
    assert found["luring_batch_images_sum",] == 3


def test_a_failing_network_is_a_500_that_says_nothing_of_it(client, all_known, monkeypatch):
    ask = client("decoy")
    body = {"images": all_known[2][:1].tolist()}
    with monkeypatch.context() as patch:
        patch.setattr(torch, "from_numpy", lambda _x: 1 / 0)
        error(ask.post("/predict", json=body), 500, "the server failed")
    assert ask.post("/predict", json=body).status_code == 200, "the next is answered"
    (fault,) = [line for line in client.log() if line["event"] == "fault"]
    assert fault["error"] == "ZeroDivisionError"


def batcher(network, **changed):
    settings = {"batch": 4, "queue": 8, "seconds": 5.0, "seen": lambda _n: None}
    return Batcher(network, **(settings | changed))


def numbered(n, first=0):
    return np.arange(first, first + n, dtype=np.float32).reshape(n, 1, 1, 1)


def doubled(images):
    return {"double": 2 * images[:, 0, 0, 0]}


def test_requests_are_answered_together_and_each_gets_its_own():
    sizes = []
    start = threading.Event()

    def network(images):
        start.wait(5)
        return doubled(images)

    async def main():
        one = batcher(network, batch=8, queue=100, seen=sizes.append)
        one.start()
        asked = [asyncio.create_task(one.ask(numbered(1 + i % 3, 10 * i))) for i in range(12)]
        await asyncio.sleep(0.05)
        start.set()
        found = await asyncio.gather(*asked)
        for i, answer in enumerate(found):
            assert answer["double"].tolist() == (2 * numbered(1 + i % 3, 10 * i)).ravel().tolist()
        await one.stop()
        assert one.held == 0

    asyncio.run(main())
    assert sum(sizes) == 24
    assert max(sizes) <= 8
    assert len(sizes) <= 5, "not one by one"


def test_no_more_waits_than_the_queue_holds_and_what_has_given_up_makes_room():
    go = threading.Event()

    def network(images):
        go.wait(5)
        return doubled(images)

    async def main():
        one = batcher(network, seconds=0.2)
        one.start()
        asked = [asyncio.create_task(one.ask(numbered(4))) for _ in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(BusyError) as busy:
            await one.ask(numbered(1))
        assert busy.value.seconds >= 1
        for task in asked:
            with pytest.raises(TimeoutError):
                await task
        go.set()
        one.seconds = 5.0
        while one.held:
            await asyncio.sleep(0.01)
        assert (await one.ask(numbered(2)))["double"].tolist() == [0, 2]
        await one.stop()

    asyncio.run(main())


def test_what_would_wait_for_too_long_is_refused_at_once():
    """Half a second an image, one second to answer in: what waits behind two images would be late."""

    async def main():
        one = batcher(doubled, seconds=1.0)
        one.start()
        await one.ask(numbered(1))
        one.pace = 0.5
        one.held += 2
        with pytest.raises(BusyError):
            await one.ask(numbered(1))
        one.held -= 2
        assert (await one.ask(numbered(1, 3)))["double"].tolist() == [6]
        await one.stop()

    asyncio.run(main())


def test_a_log_that_cannot_be_written_is_said_once(tmp_path, capsys):
    events = Events(Path("/dev/full"))
    for _ in range(3):
        events("request", status=200)
    assert capsys.readouterr().err.count("the log cannot be written (no space left on device)") == 1
    fine = Events(tmp_path / "log")
    fine.torn = True
    fine("request", status=200)
    assert json.loads((tmp_path / "log").read_text().splitlines()[1])["status"] == 200


def test_what_serve_refuses(run, calibrated, tmp_path):  # noqa: F811
    here = ("serve", "decision", calibrated)
    for host in ("0.0.0.0", "10.0.0.1", "::", "example.org"):
        refused(run(*here, "--host", host), "needs a token", "--token-file")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "short").write_text("secret")
    for file in ("empty", "short"):
        refused(run(*here, "--token-file", file), "holds no token")
    (tmp_path / "good").write_text(TOKEN)
    refused(run("serve", "decoy", calibrated, "--token-file", "good"), "asks for no token")
    refused(run(*here, "--token-file", "nowhere"), "nowhere")
    refused(run(*here, "--queue", "5"), "--queue is 5")
    refused(run(*here, "--timeout", "0"), "--timeout is 0")
    refused(run("serve", "decoy", calibrated, "--name", "a/b"), "--name")
    refused(run("serve", "decoy", tmp_path / "nowhere"), "not a bundle")
    (tmp_path / "config.json").write_text("{}")
    refused(run("serve", "decision", tmp_path), "luring calibrate")
    refused(run("serve", "decoy", calibrated, "--host", "999.1.1.1"), "cannot be listened on")
