"""What is published is the bundle, smaller where that costs nothing, with a card; nothing leaves without being told to."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from luring import architectures, bundle, cli, data, lures, networks, publish, training
from luring.errors import InputError
from luring.training import Schedule
from luring.weights import digest, halved


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", progress=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits):
    torch.manual_seed(0)
    target = networks.make_target("plain", digits.shape, 10)
    training.classifier(
        target, digits.train, digits.validation, schedule=Schedule(60, lr=3e-3, validations=1), show=False
    )
    lure = lures.plain_lure(digits.shape, 4)
    quick = Schedule(30, lr=3e-3, validations=1)
    training.lure(lure, target, digits.train.images, digits.validation.images, lam=0.3, schedule=quick, show=False)
    decoy = networks.compose(lure, target)
    config = bundle.describe(
        digits, target, lure, decoy, names=("plain", "plain-4"), method="luring", settings={"lam": 0.3}
    )
    out = tmp_path_factory.mktemp("made") / "bundle"
    bundle.save(out, target, lure, config)
    (out / "guard.json").write_text("{}")
    return out


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    def call(*arguments):
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", ["luring", "publish", *map(str, arguments)])
            try:
                cli.main()
                code = 0
            except SystemExit as stop:
                code = stop.code or 0
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=said.out, err=said.err)

    return call


def test_half_as_large_and_what_is_described_is_what_is_loaded(folder, tmp_path, digits, monkeypatch):
    monkeypatch.setattr(publish, "TOLERANCE", 0.02)  # one image of these 270 is 0.004
    whole = bundle.load(folder)
    config = publish.stage(whole, folder, tmp_path / "out", digits)
    small = bundle.load(tmp_path / "out")
    assert config["weights"]["stored"] == "float16"
    assert max(map(abs, config["weights"]["moved_by"].values())) <= publish.TOLERANCE
    assert digest(small.target) == digest(halved(whole.target)) == config["digests"]["target"]
    decoy = networks.compose(small.lure, small.target)
    described = bundle.describe(
        digits, small.target, small.lure, decoy, names=("plain", "plain-4"), method="luring", settings={}
    )
    assert described["metrics"] == config["metrics"]
    for name in ("target.safetensors", "lure.safetensors"):
        assert (tmp_path / "out" / name).stat().st_size < 0.6 * (folder / name).stat().st_size
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "lure.safetensors",
        "target.safetensors",
    ]


def test_batch_statistics_stay_as_they_are(tmp_path):
    target, lure = networks.plain_target((3, 16, 16), 4), architectures.svhn_narrow_lure((3, 16, 16))
    lure.train()(torch.rand(4, 3, 16, 16))
    config = {"target": "plain", "lure": "svhn-narrow", "shape": [3, 16, 16], "classes": list("abcd")}
    bundle.save(tmp_path, target, lure, config, half=True)
    found = bundle.load(tmp_path)
    for (name, buffer), (_, loaded) in zip(lure.named_buffers(), found.lure.named_buffers(), strict=True):
        assert torch.equal(buffer, loaded), name
    for weight, loaded in zip(lure.parameters(), found.lure.parameters(), strict=True):
        assert torch.equal(weight.half().float(), loaded)
        assert loaded.dtype == torch.float32


def test_where_float16_costs_accuracy_the_weights_stay(folder, tmp_path, digits, monkeypatch):
    monkeypatch.setattr(publish, "TOLERANCE", -1.0)
    config = publish.stage(bundle.load(folder), folder, tmp_path / "out", digits)
    assert "weights" not in config
    assert (tmp_path / "out/lure.safetensors").read_bytes() == (folder / "lure.safetensors").read_bytes()


def test_too_large_for_float16_is_said():
    network = torch.nn.Linear(2, 2)
    with torch.no_grad():
        network.weight[0, 0] = 1e6
    with pytest.raises(InputError, match="weight has weights beyond 65504"):
        halved(network)


def test_a_dry_run_shows_the_card_and_the_files_and_keeps_nothing(folder, run, tmp_path):
    said = run(folder, "--repo", "someone/decoy")
    assert said.code == 0
    measured = json.loads((folder / "config.json").read_text())["metrics"]
    assert f"| accuracy of M∘P | {measured['test_accuracy']:.4f} |" in said.out
    assert "lure.safetensors" in said.out
    assert "guard.json" not in said.out
    assert "Nothing was uploaded: the same command with --yes" in said.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--yes"], "--yes uploads, but there is no --repo"),
        (["--repo", "decoy"], "'decoy' is not the name of a repository"),
        (["--data", "toy"], "toy has [1, 12, 12]"),
    ],
)
def test_mistakes_are_one_sentence(folder, run, arguments, sentence):
    said = run(folder, *arguments)
    assert said.code == 2
    assert sentence in said.err
    assert said.err.count("\n") == 1


def test_pictures_are_scaled_as_they_were_for_the_fit(tmp_path, run, monkeypatch):
    monkeypatch.setenv("LURING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(publish, "TOLERANCE", 1.0)
    draw = np.random.default_rng(0)
    for number in range(40):
        (tmp_path / "pictures" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        values = draw.integers(0, 256, (12 + number % 3, 16), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png")
    taken = data.Taken(data.Scaling(8, 8), always=True)
    images = data.load(str(tmp_path / "pictures"), taken=taken, progress=False)
    target, lure = networks.make_target("plain", (1, 8, 8), 2).eval(), lures.plain_lure((1, 8, 8), 4).eval()
    decoy = networks.compose(lure, target)
    config = bundle.describe(images, target, lure, decoy, names=("plain", "plain-4"), method="luring", settings={})
    bundle.save(tmp_path / "b", target, lure, config)
    said = run("b", "--data", "./pictures", "--out", "ready")
    assert said.code == 0, said.err
    assert json.loads((tmp_path / "ready/config.json").read_text())["weights"]["stored"] == "float16"
    Image.fromarray(values[:, ::-1].copy()).save(tmp_path / "pictures/a/another.png")
    said = run("b", "--data", "./pictures", "--out", "other")
    assert said.code == 2
    assert "has other images than the bundle was fitted to" in said.err


def test_no_hub_is_one_sentence(folder, run, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = run(folder, "--repo", "someone/decoy", "--yes")
    assert said.code == 2
    assert "the hub did not take someone/decoy" in said.err
    assert "Traceback" not in said.err


def test_the_bundle_itself_is_not_overwritten(folder, run):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run(folder, "--out", folder).code == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
