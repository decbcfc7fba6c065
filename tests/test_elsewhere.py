"""A bundle that does not hold its target, and whose pictures had to be scaled, in the commands that open it; pictures of any size at the servers."""

import asyncio
import base64
import io
import sys
import threading
import warnings
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient
from torch import nn

from luring import answers, bundle, check, cli
from luring.errors import InputError
from luring.guard import Detector
from luring.picture import LARGEST, SCANS, fitting_picture
from luring.serve import decision, decoy, pictures
from luring.weights import write_tensors
from test_serve_pictures import png_that_claims

SIZES = ((8, 8), (16, 16), (12, 9), (30, 20))
SHOP = "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))\n"


def drawn(label, size, draw):
    """A picture whose left or right half is bright."""
    values = draw.integers(0, 80, (size[1], size[0]))
    half = slice(0, size[0] // 2) if label == "left" else slice(size[0] // 2, None)
    values[:, half] += 120
    return Image.fromarray(values.astype(np.uint8))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with a target's code, its weights, pictures of several sizes and a calibrated bundle; and the command line in it."""
    folder, draw = tmp_path_factory.mktemp("shop"), np.random.default_rng(0)
    (folder / "elsewhere_shop.py").write_text(SHOP)
    for number in range(100):
        label = ("left", "right")[number % 2]
        (folder / "pictures" / label).mkdir(parents=True, exist_ok=True)
        drawn(label, SIZES[number // 2 % 4], draw).save(folder / f"pictures/{label}/{number}.png")
    target = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with torch.no_grad():
        side = torch.ones(8, 8)
        side[:, 4:] = -1
        target[1].weight.copy_(torch.stack([side.flatten(), -side.flatten()]) / 8)
        target[1].bias.zero_()
    write_tensors(folder / "w.safetensors", target.state_dict())
    parts = ("--target", "elsewhere_shop:net", "--weights", folder / "w.safetensors")

    def run(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("LURING_CACHE", str(folder / "cache"))
            patch.setattr(sys, "argv", ["luring", *map(str, arguments)])
            patch.setattr(warnings, "showwarning", warnings.showwarning)
            try:
                cli.main()
            except SystemExit as stop:
                return stop.code or 0
        return 0

    fit = ("--size", 8, "--lure", "plain-4", "--steps", 60, "--lr", 0.003)
    assert run("fit", "--data", "./pictures", "--out", "b", *parts, *fit) == 0
    guarded = ("--fpr", 0.2, "--attacks", "fgsm", "--n", 5)
    assert run("calibrate", "b", "--data", "./pictures", *parts, *guarded) == 0
    loaded = bundle.load(folder / "b", target="elsewhere_shop:net", weights=folder / "w.safetensors")
    assert loaded.scaling is not None
    return SimpleNamespace(folder=folder, bundle=folder / "b", parts=parts, run=run, loaded=loaded)


@pytest.fixture
def started(shop, monkeypatch):
    """What the command line starts a server with."""
    found = []
    monkeypatch.setattr("luring.serve.run.serve", found.append)

    def settings(surface, *options):
        assert shop.run("serve", surface, shop.bundle, "--log", shop.folder / "log", *options) == 0
        return found[-1]

    return settings


def seen(shop, files):
    """Files as the bundle's networks see them by `luring check`, [n, 1, 8, 8]."""
    read = [fitting_picture(file, "it", (1, 8, 8), shop.loaded.scaling) for file in files]
    return torch.from_numpy(np.stack(read)).float() / 255


def test_a_target_that_is_not_there_is_asked_for(shop, started, capsys):
    for surface, room in (("decoy", decoy), ("decision", decision)):
        with pytest.raises(InputError, match=r"give --target elsewhere_shop:net, and its weights with --weights"):
            room.app(started(surface))
    for command in (("play",), ("audit", "--data", "./pictures", "--out", "o"), ("publish",)):
        assert shop.run(command[0], shop.bundle, *command[1:]) == 2
        said = capsys.readouterr().err
        assert "--weights" in said
        assert said.count("\n") == 1


def test_the_servers_scale_pictures_as_check_does(shop, started):
    kept = [sorted((shop.folder / "pictures").rglob(f"{number}.png"))[0] for number in range(0, 100, 9)]
    files = [file.read_bytes() for file in kept]
    x = seen(shop, files)
    detector = Detector.load(shop.bundle, shop.loaded.target, shop.loaded.decoy)
    verdicts = [
        next(check.verdicts(detector, file, shape=(1, 8, 8), classes=("left", "right"), scaling=shop.loaded.scaling))
        for file in kept
    ]
    likely = answers.logits(shop.loaded.decoy, x).softmax(1)
    for surface, room in (("decoy", decoy), ("decision", decision)):
        with TestClient(room.app(started(surface, *shop.parts)), raise_server_exceptions=False) as ask:
            whole = ask.post("/predict", files=[("images", (file.name, file.read_bytes())) for file in kept])
            coded = ask.post("/predict", json={"images": [base64.b64encode(file).decode() for file in files]})
            single = ask.post("/predict", content=files[3], headers={"content-type": "image/png"})
            found = whole.json()["predictions"]
            assert coded.json()["predictions"] == found
            assert single.json()["predictions"][0]["label"] == found[3]["label"]
            if surface == "decoy":
                assert np.allclose([one["probabilities"] for one in found], likely, atol=1e-5)
            else:
                assert [one["class"] for one in found] == [one.answer for one in verdicts]
                assert [one["flagged"] for one in found] == [one.verdict == "flagged" for one in verdicts]
                assert np.allclose([one["score"] for one in found], [one.score for one in verdicts], rtol=1e-4)
            for wrong in ([[[0.5] * 9] * 8], [[[0.5] * 16] * 16]):
                refused = ask.post("/predict", json={"images": [wrong]})
                assert refused.status_code == 400
                assert "send images of that size" in refused.json()["error"]


def saved(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def test_pictures_of_a_request_share_what_may_be_scaled(shop):
    grey, scaling = (1, 8, 8), shop.loaded.scaling
    for size in ((50_000, 50_000), (LARGEST + 1, 1), (9_000, 6_000)):
        with pytest.raises(InputError, match=r"8 by 8") as said:
            pictures.from_files([png_that_claims(*size)], grey, scaling)
        assert "\n" not in str(said.value)
    small, large = saved(Image.new("L", (8, 8))), saved(Image.new("L", (2100, 2000)))
    assert pictures.from_files([large] + 10 * [small], grey, scaling).shape == (11, 1, 8, 8)
    with pytest.raises(InputError, match=r"image 1 is 2100 by 2000 pixels, at most 4,166,666 pixels are"):
        pictures.from_files([small, large] + 10 * [small], grey, scaling)
    with pytest.raises(InputError, match=r"is 2100 by 2000 pixels, the classifier takes 8 by 8; scale it"):
        pictures.from_files([large], grey)


def test_a_progressive_picture_that_goes_on_and_on_is_refused(shop):
    whole = saved(Image.new("L", (64, 64)), "JPEG", progressive=True)
    assert pictures.from_files([whole], (1, 8, 8), shop.loaded.scaling).shape == (1, 1, 8, 8)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    endless = whole[:-2] + last * SCANS + whole[-2:]
    with Image.open(io.BytesIO(endless)) as opened:
        opened.load()  # otherwise it would be a damaged one
    with pytest.raises(InputError, match="a JPEG of more than 50 scans; save it anew"):
        pictures.from_files([endless], (1, 8, 8), shop.loaded.scaling)


def test_large_pictures_are_decoded_one_at_a_time_and_hold_up_nothing_else(shop, started, monkeypatch):
    large = saved(Image.new("L", (6000, 5000)), "PNG", compress_level=1)
    numbers = {"images": [[[[0.5] * 8] * 8]]}
    at_once, most, ended = 0, 0, []
    real = pictures.from_files

    def watched(*given):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            return real(*given)
        finally:
            at_once -= 1

    monkeypatch.setattr(pictures, "from_files", watched)
    settings = started("decoy", *shop.parts)

    async def main():
        app = decoy.app(settings)
        async with (
            app.app.app.router.lifespan_context(app.app.app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as client,
        ):

            async def ask(what, **sent):
                answer = await client.post("/predict", **sent)
                assert answer.status_code == 200, answer.text
                ended.append(what)

            headers = {"content-type": "image/png"}
            waiting = [asyncio.create_task(ask("large", content=large, headers=headers)) for _ in range(4)]
            await asyncio.sleep(0.01)
            for _ in range(3):
                await ask("numbers", json=numbers)
            await asyncio.gather(*waiting)

    asyncio.run(main())
    assert most == 1
    assert ended[-1] == "large"
    assert ended.index("numbers") < 2


def test_who_waits_too_long_for_a_picture_gets_504(shop, started, monkeypatch):
    begun, go = threading.Event(), threading.Event()
    real = pictures.from_files

    def slow(*given):
        begun.set()
        go.wait(20)
        return real(*given)

    monkeypatch.setattr(pictures, "from_files", slow)
    file, headers = saved(Image.new("L", (9, 9))), {"content-type": "image/png"}
    with TestClient(decoy.app(started("decoy", *shop.parts, "--timeout", 0.3))) as ask:
        first = []
        thread = threading.Thread(target=lambda: first.append(ask.post("/predict", content=file, headers=headers)))
        thread.start()
        assert begun.wait(20)
        assert ask.post("/predict", content=file, headers=headers).status_code == 504
        go.set()
        thread.join(20)
        assert first[0].status_code == 200, "what has begun is finished"
        assert ask.post("/predict", content=file, headers=headers).status_code == 200


def test_play_shows_test_images_as_the_bundle_takes_them(shop, monkeypatch):
    played = []
    monkeypatch.setattr("luring.serve.play.serve", lambda play, *_: played.append(play))
    assert shop.run("play", shop.bundle, "--data", "./pictures", *shop.parts) == 0
    (play,) = played
    assert play.own
    assert play.tested(0).shape == (1, 8, 8)
    assert torch.equal(play.loaded.target(play.tested(0)[None]), shop.loaded.target(play.tested(0)[None]))
    bright = [int(play.tested(place)[0, :, 4:].mean() > 0.4) for place in range(len(play.test.labels))]
    assert play.test.labels.tolist() == bright
    for file in (shop.folder / "pictures").rglob("*.png"):
        (shop.folder / "flat").mkdir(exist_ok=True)
        (shop.folder / "flat" / f"{file.parent.name}-{file.name}").write_bytes(file.read_bytes())
    assert shop.run("play", shop.bundle, "--data", "./flat", *shop.parts) == 0
    x = torch.stack([played[1].tested(place) for place in range(len(played[1].test.labels))])
    assert torch.equal(played[1].test.labels, answers.labels(shop.loaded.target, x)), "nobody has said them but M"


def test_audit_takes_target_and_pictures_as_the_bundle_has_them(shop, monkeypatch, capsys):
    taken = []

    def audit(loaded, folder, images, *_, **__):
        taken.append((loaded, folder, images))
        raise InputError("looked at.")

    monkeypatch.setattr("luring.audit.run.audit", audit)
    assert shop.run("audit", shop.bundle, "--data", "./pictures", "--out", "o", *shop.parts) == 2
    assert capsys.readouterr().err == "luring: looked at.\n"
    ((loaded, folder, images),) = taken
    assert folder == shop.bundle
    assert images.shape == (1, 8, 8)
    x = images.test.images[:4].float() / 255
    assert torch.equal(loaded.target(x), shop.loaded.target(x))


def test_publish_leaves_such_a_bundle_as_it_is(shop, capsys):
    out = shop.folder / "ready"
    assert shop.run("publish", shop.bundle, "--data", "./pictures", "--out", out, *shop.parts) == 0
    said = capsys.readouterr().out
    assert "bytes  lure.safetensors" in said
    assert "float16" not in said
    for name in ("config.json", "lure.safetensors"):
        assert (out / name).read_bytes() == (shop.bundle / name).read_bytes()
    assert sorted(file.name for file in out.iterdir()) == ["README.md", "config.json", "lure.safetensors"]
