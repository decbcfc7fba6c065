"""The playground: what it computes, what it says, and the page itself in a real Chromium."""

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import luring
from browser import chromium, opened, sideways, violations  # noqa: F401
from luring import bundle, cli, guard, networks
from luring.attacks import ATTACKS, preset
from luring.attacks.watched import watching
from luring.errors import InputError
from luring.serve import panels, telling
from luring.serve.attempt import Look, attempt, detector_of, followed, look
from luring.serve.drawing import from_bytes, from_canvas
from luring.serve.play import Playground
from luring.training import Schedule

DIGITS = luring.data.load("digits")
SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A bundle of digits with a guard."""
    folder = tmp_path_factory.mktemp("play") / "bundle"
    torch.manual_seed(0)
    target = networks.make_target("plain", SHAPE, 10)
    luring.training.classifier(target, DIGITS.train, DIGITS.validation, schedule=Schedule(120, lr=3e-3))
    lure, name = networks.make_lure("plain-16", target, SHAPE)
    images = DIGITS.train.images, DIGITS.validation.images
    luring.training.lure(lure, target, *images, lam=0.3, gap_max=15.0, schedule=Schedule(150, lr=3e-3))
    decoy = networks.compose(lure, target)
    config = bundle.describe(DIGITS, target, lure, decoy, names=("plain", name), method="luring", settings={})
    bundle.save(folder, target, lure, config)
    detector = guard.Detector(target, decoy).fit(DIGITS.train.images)
    detector.infer_threshold(DIGITS.validation.images, fpr=0.05)
    detector.save(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(fitted):
    return bundle.load(fitted)


X, Y = DIGITS.test.images[1:2], DIGITS.test.labels[1:2]


def iterates(attack, model):
    seen = []
    with watching(lambda images: seen.append(images.clone())):
        made = attack(model, X, Y)
    return seen, made


@pytest.mark.parametrize("name", [name for name in ATTACKS if "imagenet" not in name])
def test_an_attack_that_is_watched_is_the_same_attack(name, loaded):
    few = {"steps": 4, "samples": 3, "budget": 60, "targets": 2, "coordinates": 8}
    attack = preset(name, eps=0.2, **{key: n for key, n in few.items() if key in ATTACKS[name].settings})
    seen, made = iterates(attack, loaded.decoy)
    assert torch.equal(made, attack(loaded.decoy, X, Y))
    assert all(one.shape == X.shape and not one.requires_grad for one in seen)
    if "steps" in ATTACKS[name].settings and not name.startswith("apgd"):
        assert len(seen) == 4
    if name not in ("miml2", "apgd", "apgd-t", "hop-skip-jump", "boundary") and seen:
        assert torch.equal(seen[-1], made)


def test_what_is_seen_on_the_way_is_where_a_shorter_run_ends(loaded):
    seen, _ = iterates(preset("dim", eps=0.2, steps=6, seed=3), loaded.decoy)
    for steps in (1, 3, 6):
        assert torch.equal(seen[steps - 1], preset("dim", eps=0.2, steps=steps, seed=3)(loaded.decoy, X, Y))


def test_an_attempt_shows_the_clean_image_each_step_and_the_result(loaded, fitted):
    detector, own = detector_of(fitted, loaded)
    assert own
    attack = preset("mim", eps=0.2, steps=7)
    looks = list(attempt(loaded, detector, attack, X[0], int(Y[0])))
    assert [one.step for one in looks] == list(range(8))
    assert torch.equal(looks[0].image, X[0])
    assert torch.equal(looks[-1].image, attack(loaded.decoy, X, Y)[0])
    for one in (looks[0], looks[-1]):
        found = detector.predict(one.image[None])["data"]
        assert one.score == pytest.approx(float(found["instance_score"][0]))
        assert one.flagged == bool(found["is_adversarial"][0])
        assert int(one.m.argmax()) == int(found["label"][0])
        torch.testing.assert_close(one.mop, loaded.decoy(one.image[None])[0].softmax(0).detach())
        torch.testing.assert_close(one.lured, loaded.lure(one.image[None])[0].detach())
    # MIML2 is clipped in the end: its result is one look more.
    last = list(attempt(loaded, detector, preset("miml2", eps=0.05, steps=3, step=0.5), X[0], int(Y[0])))[-1]
    assert last.step == 4
    assert (last.image - X[0]).abs().max() <= 0.05 + 1e-6


def test_an_attempt_that_nobody_follows_ends(loaded, fitted):
    detector, _ = detector_of(fitted, loaded)
    looks = attempt(loaded, detector, preset("mim", eps=0.2, steps=10**6), X[0], int(Y[0]))
    assert [next(looks).step, next(looks).step] == [0, 1]
    looks.close()
    with pytest.raises(InputError, match="eps is nan"):
        list(attempt(loaded, detector, preset("mim", eps=float("nan")), X[0], int(Y[0])))


def test_a_bundle_without_a_guard_is_judged_by_agreement(loaded, tmp_path):
    detector, own = detector_of(tmp_path, loaded)
    assert (detector.policy, own) == ("agreement", False)
    for place in range(40):
        one = look(loaded, detector, DIGITS.test.images[place])
        assert one.flagged == (int(one.m.argmax()) != int(one.mop.argmax()))
    assert "bare agreement" in telling.by_what(detector, own, one)


@given(st.integers(0, 2000), st.integers(2, 50))
@settings(max_examples=30, deadline=None)
def test_long_attacks_are_thinned_out_evenly(steps, most):
    made = (made_look(step=step) for step in range(steps + 1))
    *_, kept = followed(made, most=most, now=lambda: False)
    places = [one.step for one in kept]
    assert (places[0], places[-1]) == (0, steps)
    assert len(places) <= most + 1
    assert len(set(np.diff(places[:-1]).tolist())) <= 1


def made_look(m=0, mop=0, step=1, flagged=False):
    eye = torch.eye(3)
    return Look(step, torch.zeros(SHAPE), torch.zeros(SHAPE), eye[m], eye[mop], float(flagged), flagged)


CLEAN = made_look(step=0)


@pytest.mark.parametrize(
    ("m", "mop", "words"),
    [
        (0, 0, "Nobody is fooled: the decoy and the classifier both still answer a"),
        (0, 1, "Lured: the adversary fooled the decoy into b, but the classifier still answers a"),
        (2, 1, "fooled the decoy into b, but the classifier into c"),
        (1, 1, "Not lured: what fools the decoy into b fools the classifier too"),
        (1, 0, "still answers a; but the classifier now answers b"),
    ],
)
def test_the_sentence_says_who_is_fooled(m, mop, words):
    assert words in telling.told(0, "abc", CLEAN, made_look(m, mop))
    assert "both answer a" in telling.told(0, "abc", CLEAN, CLEAN)
    assert "wrong before any attack" in telling.told(0, "abc", made_look(0, 2, step=0), made_look(m, mop))


def test_the_verdict_says_what_it_means():
    assert (
        telling.judged(0, made_look(flagged=True))[1]
        == "the attack was noticed; the classifier's answer does not go out"
    )
    assert telling.judged(0, made_look(step=0, flagged=True)) == ("Flagged", "a false alarm")
    assert telling.judged(0, made_look()) == ("Let through", "the classifier's answer goes out, and is right")
    assert telling.judged(0, made_look(m=1)) == ("Let through", "a wrong answer goes out, unnoticed")


def test_names_of_classes_cannot_be_markup():
    names = ["<b>", "&", '"']
    text = panels.seen(0, names, CLEAN, made_look(1, 2)) + panels.refusal("<i>")
    assert "<i>" not in text
    assert 'row"><b>' not in text
    assert "&lt;b&gt; (100%) → &amp; (100%)" in text


def picture(values, kind="PNG", **more):
    written = io.BytesIO()
    Image.fromarray(values).save(written, kind, **more)
    return written.getvalue()


def test_pictures_of_any_size_are_scaled_by_area():
    draw = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    found = from_bytes(picture(draw), SHAPE, "it")
    mean = torch.from_numpy(draw / 255.0).float().view(8, 4, 8, 4).mean((1, 3))
    torch.testing.assert_close(found[0], mean, rtol=0, atol=1.1 / 255)  # rounded along rows, then along columns
    wide = np.concatenate([np.zeros((32, 16), np.uint8), draw, np.zeros((32, 16), np.uint8)], 1)
    torch.testing.assert_close(from_bytes(picture(wide), SHAPE, "it"), found)
    same = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    exact = torch.from_numpy(same).permute(2, 0, 1).float() / 255
    torch.testing.assert_close(from_bytes(picture(same), (3, 8, 8), "it"), exact)
    assert from_bytes(picture(same), SHAPE, "it").shape == SHAPE
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    upright = from_bytes(picture(same[::-1, ::-1], exif=turned), (3, 8, 8), "it")
    torch.testing.assert_close(upright, exact)
    deep = from_bytes(picture(draw.astype(np.uint16) * 257), SHAPE, "it")
    assert (deep[0] - mean / (draw.max() / 255)).abs().max() < 0.02


@given(st.binary(max_size=200), st.integers(0, 150))
@settings(max_examples=60, deadline=None)
def test_damaged_pictures_are_refused_in_a_sentence(data, cut):
    for bad in (data, picture(np.zeros((9, 9), np.uint8))[:cut] + data):
        with contextlib.suppress(InputError):
            assert from_bytes(bad, SHAPE, "it").shape == SHAPE
    with pytest.raises(InputError, match="it is no picture that can be read"):
        from_bytes(picture(np.zeros((9, 9), np.uint8))[: min(cut, 40)], SHAPE, "it")


def test_a_picture_that_claims_to_be_huge_is_refused_unread():
    whole = picture(np.zeros((9, 9), np.uint8))
    head = bytearray(whole)
    head[16:24] = (50_000).to_bytes(4, "big") * 2
    head[29:33] = zlib.crc32(bytes(head[12:29])).to_bytes(4, "big")
    with pytest.raises(InputError, match="more than 50 million pixels"):
        from_bytes(bytes(head), SHAPE, "it")


def test_what_was_not_chosen_is_asked_for(loaded, fitted):
    play = Playground(loaded, *detector_of(fitted, loaded), DIGITS.test, 0.2)
    for chosen, words in (
        (("A test image", 270, None, None), "0 to 269"),
        (("Draw one", 0, "", None), "nothing is drawn yet"),
        (("Draw one", 0, "data:image/png;base64,!", None), "did not arrive whole"),
        (("A picture file", 0, None, None), "no picture is chosen"),
    ):
        with pytest.raises(InputError, match=words):
            play.given(*chosen)
    image, label = play.given("A test image", 5, None, None)
    assert torch.equal(image, DIGITS.test.images[5])
    assert label == int(DIGITS.test.labels[5])
    first = look(loaded, play.detector, DIGITS.test.images[play.first()])
    assert not first.flagged
    assert int(first.m.argmax()) == int(first.mop.argmax()) == int(DIGITS.test.labels[play.first()])
    assert replace(play, test=None).first() == 0
    with pytest.raises(InputError, match="nothing is drawn"):
        from_canvas(None, SHAPE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere is not a bundle"),
        (["BUNDLE", "--eps", "2"], "--eps is 2"),
        (["BUNDLE", "--port", "70000"], "--port is 70000"),
        (["BUNDLE", "--data", "toy"], "toy has [1, 12, 12]"),
        (["BUNDLE", "--port", "TAKEN"], "cannot be listened on"),
        (["BUNDLE", "--host", "203.0.113.1"], "cannot be listened on"),
    ],
)
def test_what_cannot_be_played_is_refused_in_a_sentence(arguments, words, fitted, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        known = {"BUNDLE": str(fitted), "TAKEN": str(taken.getsockname()[1])}
        monkeypatch.setattr(sys, "argv", ["luring", "play", *(known.get(one, one) for one in arguments)])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


WATCHED = """
import sys
def look(event, found):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        host = found[0] if event.startswith("socket.get") else found[1]
        host = host[0] if isinstance(host, tuple) else host
        if host not in ("127.0.0.1", "localhost", "::1", None, b"127.0.0.1") and not str(host).startswith("/"):
            print("OUTSIDE", event, host, file=sys.stderr, flush=True)
sys.addaudithook(look)
from luring.cli import main
main()
"""


@contextlib.contextmanager
def playing(bundle, directory):
    """`luring play` in a process of its own, which says so where it asks another machine for anything."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = directory / "stderr"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GRADIO_ANALYTICS_ENABLED": "True"}
    command = [sys.executable, "-c", WATCHED, "play", str(bundle), "--port", str(port)]
    with said.open("w") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env=environment)
        url = f"http://127.0.0.1:{port}/"
        for _ in range(600):
            try:
                urllib.request.urlopen(url, timeout=10).close()
                break
            except urllib.error.URLError:
                assert process.poll() is None, said.read_text()
                time.sleep(0.1)
        try:
            yield SimpleNamespace(url=url, said=said, process=process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)


@pytest.fixture(scope="module")
def server(fitted, tmp_path_factory):
    with playing(fitted, tmp_path_factory.mktemp("said")) as found:
        yield found


def told(page):
    return page.locator("#said .told")


def attack_is_over(page):
    told(page).filter(has_not_text="Nothing is attacked").wait_for()
    page.get_by_text("attacked, step 100").wait_for()


def draw_a_zero(page):
    page.get_by_label("Draw one").check()
    page.get_by_text("Nothing is drawn yet").wait_for()
    canvas = page.locator("canvas.drawing")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    points = [(0.5, 0.12), (0.72, 0.3), (0.72, 0.7), (0.5, 0.88), (0.28, 0.7), (0.28, 0.3), (0.5, 0.12)]
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


@pytest.mark.parametrize(("size", "scheme"), [("wide", "light"), ("narrow", "dark")])
def test_a_digit_is_drawn_attacked_and_judged(chromium, server, size, scheme):  # noqa: F811
    with opened(chromium, server.url, size, scheme) as (page, asked):
        page.get_by_text("Nothing is attacked yet").wait_for()
        assert violations(page) == []
        draw_a_zero(page)
        page.get_by_text("both answer 0").wait_for()
        page.get_by_role("button", name="Attack", exact=True).click()
        attack_is_over(page)
        assert page.locator("#seen img").count() == 5
        assert page.locator("#said .verdict").inner_text() in ("Flagged", "Let through")
        assert "set for false alarms on 5 % of clean images" in page.locator("#said").inner_text()
        assert page.locator("#said").evaluate("one => one.getBoundingClientRect().top") < page.viewport_size["height"]
        assert sideways(page) == 0
        assert violations(page) == []
        page.get_by_role("button", name="Clear the drawing").click()
        page.get_by_text("Nothing is drawn yet").wait_for()
        assert asked == []


def test_the_keyboard_alone_attacks_and_goes_back_through_the_steps(chromium, server):  # noqa: F811
    with opened(chromium, server.url, "wide") as (page, asked):
        page.get_by_text("Nothing is attacked yet").wait_for()
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "attack":
                break
        page.keyboard.press("Enter")
        attack_is_over(page)
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.type == 'range' && !!document.activeElement.closest('#step')"):
                break
        page.keyboard.press("ArrowLeft")
        page.get_by_text("attacked, step 99").wait_for()
        page.keyboard.press("Home")
        page.get_by_text("Nothing is attacked yet").wait_for()
        # Drawing: a stroke down from the middle.
        page.get_by_label("Draw one").focus()
        page.keyboard.press("Space")
        page.get_by_text("Nothing is drawn yet").wait_for()
        for _ in range(5):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.tagName") == "CANVAS":
                break
        for key in (*["ArrowUp"] * 10, "Space", *["ArrowDown"] * 20, "Space"):
            page.keyboard.press(key)
        page.get_by_text("Nothing is attacked yet").wait_for()
        assert page.locator("#seen img").count() == 2
        assert asked == []


def test_a_picture_file_and_other_attacks(chromium, server):  # noqa: F811
    with opened(chromium, server.url, "wide") as (page, _):
        page.get_by_text("Nothing is attacked yet").wait_for()
        page.get_by_label("A picture file").check()
        page.get_by_text("No picture is chosen yet").wait_for()
        three = (DIGITS.test.images[2, 0].numpy() * 255).astype(np.uint8).repeat(20, 0).repeat(20, 1)
        page.locator("input[type=file]").set_input_files(
            {"name": "digit.png", "mimeType": "image/png", "buffer": picture(three)}
        )
        page.get_by_text("Nothing is attacked yet").wait_for()
        page.locator("input[type=file]").set_input_files(
            {"name": "torn.png", "mimeType": "image/png", "buffer": b"no picture"}
        )
        page.get_by_text("torn.png is no picture that can be read").wait_for()
        # A test image again, by an attack that has other steps, and one that cannot be run on images this small.
        page.get_by_label("A test image").check()
        page.get_by_text("Nothing is attacked yet").wait_for()
        choose(page, "boundary")
        page.get_by_text("it knows the decoy's labels").wait_for()
        page.get_by_role("button", name="Attack", exact=True).click()
        told(page).filter(has_not_text="Nothing is attacked").wait_for()
        page.get_by_role("button", name="Stop").click()
        choose(page, "dim-imagenet")
        page.get_by_role("button", name="Attack", exact=True).click()
        page.locator("#said .refused").wait_for()


def choose(page, name):
    box = page.get_by_role("combobox", name="Attack")
    box.click()
    box.fill(name)
    page.get_by_role("option", name=re.compile(rf"^\W*{name}$")).click()


@pytest.mark.parametrize("stopped", [True, False])
def test_a_long_attack_shows_itself_and_ends_at_stop_or_at_the_next_attack(chromium, server, stopped):  # noqa: F811
    with opened(chromium, server.url, "wide") as (page, _):
        page.get_by_text("Nothing is attacked yet").wait_for()
        choose(page, "pgn")
        page.get_by_role("button", name="Attack", exact=True).click()
        page.get_by_text(re.compile(r"attacked, step [1-8]\d?$")).wait_for()
        if stopped:
            page.get_by_role("button", name="Stop").click()
        choose(page, "fgsm")
        page.get_by_role("button", name="Attack", exact=True).click()
        page.get_by_text(re.compile(r"attacked, step 1$")).wait_for()


def test_the_server_answers_to_its_own_name_only_and_asks_nobody(server):
    port = server.url.rsplit(":", 1)[1].strip("/")
    for host, status in (("127.0.0.1", 200), (f"localhost:{port}", 200), ("lures.example", 400)):
        request = urllib.request.Request(server.url, headers={"Host": host})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                found = answer.status
                assert "default-src 'self'" in answer.headers["content-security-policy"]
        except urllib.error.HTTPError as error:
            found = error.code
        assert found == status
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(60) == 0
    lines = server.said.read_text().splitlines()
    assert [line for line in lines if "OUTSIDE" in line] == []
    assert server.url.strip("/") in lines[0]
    assert "Traceback" not in "".join(lines)


def test_it_ends_at_once_under_an_open_page_and_a_running_attack(chromium, fitted, tmp_path):  # noqa: F811
    with playing(fitted, tmp_path) as server, opened(chromium, server.url, "wide") as (page, _):
        page.get_by_text("Nothing is attacked yet").wait_for()
        choose(page, "pgn")
        page.get_by_role("button", name="Attack", exact=True).click()
        page.get_by_text(re.compile(r"attacked, step [1-8]\d?$")).wait_for()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0
        assert len(server.said.read_text().splitlines()) == 1
