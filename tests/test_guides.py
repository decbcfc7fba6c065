"""The pages about targets, bundles and the tutorial: what they show runs."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import luring
from luring import bundle, cli, lures, networks

DOCS = Path(__file__).parents[1] / "docs"


def examples(page, language="python"):
    """The blocks of a page, each with the last heading before it."""
    found = []
    for part in re.split(r"(?m)^## ", (DOCS / page).read_text()):
        found += [(part.splitlines()[0], code) for code in re.findall(rf"```{language}\n(.*?)```", part, re.DOTALL)]
    return found


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LURING_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("shop", None)


TARGETS = examples("targets.md")


@pytest.mark.usefixtures("here")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [heading for heading, _ in TARGETS[1:]])
def test_the_page_of_targets(kind, request, capsys):
    if kind in ("timm", "transformers"):
        request.getfixturevalue(kind)
    names = {}
    exec(TARGETS[0][1], names)
    exec("from safetensors.torch import save_file", names)
    exec(dict(TARGETS)[kind], names)
    said = capsys.readouterr().out
    with torch.no_grad():
        assert names["target"].network(names["images"]).shape[0] == 8
    assert said
    if kind == "ONNX":
        assert float(said) < 1e-4


def test_every_kind_has_a_section():
    assert [heading for heading, _ in TARGETS[1:]] == ["Python", "timm", "transformers", "torch.export", "ONNX"]


def test_the_tutorial(here, monkeypatch, capsys):
    first, second = examples("tutorial.md")
    names = {}
    exec(first[1], names)
    (commands,) = (code for _, code in examples("tutorial.md", "sh"))
    codes = []
    for command in commands.strip().splitlines():
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        try:
            cli.main()
            codes.append(0)
        except SystemExit as stop:
            codes.append(stop.code)
    said = capsys.readouterr()
    assert codes[:2] == [0, 0], said.err
    assert codes[2] in (0, 1), said.err
    assert "sure of its answers to" in said.out
    assert "unreadable" in said.out
    assert " 0 unreadable" in said.out
    assert "labels by M" in (here / "bundle/calibration/rows.jsonl").read_text()
    exec(second[1], names)
    assert set(names["labels"].tolist()) <= {-1, 0, 1}
    kept = names["guard"](names["pictures"])
    sure = kept != -1
    assert sure.float().mean() > 0.8
    assert (kept[sure] == names["side"][sure]).float().mean() > 0.95
    given = {"target": names["network"], "weights": None}
    with pytest.raises(luring.InputError, match="not the target"):
        luring.Guard.load("bundle", target=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 2)))
    assert luring.Guard.load("bundle", **given).detector.policy == "score"


def test_the_page_of_bundles(here, capsys):
    torch.manual_seed(0)
    target, lure = networks.plain_target((1, 8, 8), 3), lures.plain_lure((1, 8, 8), 2)
    config = {"target": "plain", "lure": "plain-2", "shape": [1, 8, 8], "classes": ["a", "b", "c"], "metrics": {"n": 3}}
    bundle.save(here / "bundle", target, lure, config)
    ((_, code),) = examples("bundle.md")
    exec(code, {})
    assert "{'n': 3}" in capsys.readouterr().out


# the three calls


def test_fit_and_guard_in_python():
    torch.manual_seed(0)
    images = torch.rand(400, 1, 8, 8)
    target = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    before = bundle.digest(target)
    schedule = luring.training.Schedule(30, 32)
    lure = luring.fit(target, images, lure="plain-1", schedule=schedule, anyway=True, show=False)
    again = luring.fit(target, images, lure="plain-1", schedule=schedule, anyway=True, show=False)
    assert bundle.digest(lure) == bundle.digest(again), "the same seed, the same lure"
    assert bundle.digest(target) == before
    guard = luring.Guard(target, lure)
    with torch.no_grad():
        m, mop = target(images).argmax(1), target(lure(images)).argmax(1)
    assert torch.equal(guard(images), torch.where(m == mop, m, -1))
    guard.calibrate(images, fpr=0.1)
    assert 0 <= (guard(images) == -1).float().mean() < 0.3
    with pytest.raises(luring.InputError, match="value 2"):
        guard(images * 2 + 2 * (images == images))
    with pytest.raises(luring.InputError, match=r"is it trained|the same answer"):
        luring.fit(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), images, show=False)


def test_fit_of_a_data_set_writes_a_bundle(tmp_path):
    torch.manual_seed(0)
    digits = luring.data.load("digits")
    target = networks.plain_target(digits.shape, 10)
    luring.training.classifier(
        target, digits.train, digits.validation, schedule=luring.training.Schedule(60, lr=3e-3), show=False
    )
    schedule = luring.training.Schedule(10, validations=1)
    lure = luring.fit(target, digits, lure="plain-2", schedule=schedule, out=tmp_path / "b", show=False)
    found = luring.load(tmp_path / "b", target=target)
    assert bundle.digest(found.lure) == bundle.digest(lure)
    assert found.config["classes"] == list("0123456789")
    assert 0.8 < found.config["metrics"]["target_accuracy"] <= 1


# the command line, for what the tutorial does not show


@pytest.fixture
def command(here, command_line):  # noqa: ARG001
    return command_line


@pytest.mark.filterwarnings("ignore")
def test_an_onnx_target_from_fit_to_evaluate(here, command):
    """Colour, two classes, pictures of 96 by 96, the target at 32 by 32, its weights in the bundle."""
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(0)
    for number in range(60):
        level = 60 + 120 * (number % 2)
        array = (level + 40 * torch.rand(96, 96, 3, generator=draw)).byte().numpy()
        folder = here / "pictures" / ("bright" if number % 2 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / f"{number}.png")
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 4, 4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 2)
    )  # fmt: skip
    with torch.no_grad():  # what it answers is known: bright or not
        model[0].weight.fill_(1 / 48)
        model[0].bias.zero_()
        model[4].weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 8))
        model[4].bias.copy_(torch.tensor([1.0, -1.0]) * 8 * 0.55)
    x = torch.rand(2, 3, 32, 32)
    torch.onnx.export(
        model.eval(), (x,), here / "m.onnx", dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}}, opset_version=17
    )  # fmt: skip
    fit = ("fit", "--data", "./pictures", "--target", "m.onnx", "--lure", "plain-1-8", "--steps", "4", "--out", "b")
    code, said, errors = command(*fit, "--mean", "0.9", "--std", "0.2")
    assert code == 2
    assert "another normalisation" in errors or "is it trained" in errors
    code, said, errors = command(*fit, "--with-target")
    assert code == 2, "the classes of the folder are in another order than the target's"
    (here / "pictures/bright").rename(here / "pictures/z-bright")
    code, said, errors = command(*fit, "--with-target")
    assert code == 0, errors
    assert "right on 100.0%" in said
    assert "The lure costs" in said
    done = command(
        "evaluate", "b", "--data", "./pictures", "--attacks", "fgsm", "--eps", "0.03", "--n", "5", "--out", "e"
    )
    assert done[0] == 0, done[2]
    (here / "m.onnx").unlink()
    assert (here / "b/target.onnx").exists()
    assert luring.load(here / "b").scaling is not None
