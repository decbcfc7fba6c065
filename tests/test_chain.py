"""From a strong lure to a cheap one that is turned away, in one command that goes on where it was stopped."""

import json
import shutil
from functools import partial

import pytest
import torch

import short_fits
from luring import bundle, cli, data

torch.set_num_threads(1)


@pytest.fixture
def run(command_line):
    return partial(command_line, "chain")


@pytest.fixture(scope="module")
def begun(strong, tmp_path_factory):
    """That bundle, as if its fit had been shorter: what follows is then, too."""
    folder = tmp_path_factory.mktemp("begun")
    shutil.copytree(strong, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["schedule"]["steps"] = 150
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def made(begun, tmp_path_factory):
    out = tmp_path_factory.mktemp("chain") / "turned"
    cli.chain.chain(begun, "digits", out, 0.3)
    return out


def test_each_bundle_is_made_from_the_one_before(strong, made):
    (stages,) = made.glob("stages-*")
    found = {path.name: bundle.load(path).config for path in stages.iterdir()} | {"turned": bundle.load(made).config}
    lures = {name: config["digests"]["lure"] for name, config in found.items()} | {
        "strong": bundle.load(strong).config["digests"]["lure"]
    }
    settings = {name: config["settings"] for name, config in found.items()}
    assert settings["annealed"]["begins"]["lure"] == lures["strong"]
    assert found["held"]["lure"] == found["refitted"]["lure"] == "plain-8@0.5"
    assert settings["refitted"]["begins"]["lure"] == lures["held"]
    assert settings["imitated"]["imitates"]["lure"] == lures["refitted"]
    assert settings["turned"]["begins"]["lure"] == lures["imitated"]
    assert [(settings[name]["lam"], settings[name]["static_eps"]) for name in ("annealed", "refitted")] == [
        (0.2, 0.15)
    ] * 2
    assert (settings["imitated"]["imitates"]["eps"], settings["turned"]["align"]) == (0.3, 0.5)
    schedules = {name: settings[name]["schedule"] for name in ("annealed", "refitted", "imitated", "turned")}
    assert {name: schedule["steps"] for name, schedule in schedules.items()} == {"annealed": 50, "refitted": 38, "imitated": 150, "turned": 30}  # fmt: skip
    assert [schedules[name]["lr"] for name in schedules] == [0.002, 0.002, 0.004, 0.001]
    assert {config["digests"]["target"] for config in found.values()} == {found["turned"]["digests"]["target"]}


def test_its_lure_is_cheap_and_lures(strong, made):
    digits, before, after = data.load("digits", progress=False), bundle.load(strong), bundle.load(made)
    cost = after.config["multiply_adds"]
    assert cost["lure"] <= 0.25 * cost["target"]
    assert after.config["method"] == "turned"
    assert after.config["metrics"]["disagreement"] < before.config["metrics"]["disagreement"]
    target = after.target.requires_grad_(False)
    found = short_fits.attacked(digits, target, after.decoy)
    assert found["dac"] > 0.3


def test_it_goes_on_after_the_last_bundle_that_is_there(begun, made, tmp_path, run):
    out = tmp_path / "turned"
    shutil.copytree(made, out)
    (out / "config.json").unlink()
    (out / "lure.safetensors").unlink()
    before = {path: path.stat().st_mtime_ns for path in out.glob("stages-*/*/*")}
    code, said, _ = run(begun, "--data", "digits", "--eps", 0.3, "--out", out)
    assert code == 0
    assert f"5 of 5: anneal, into {out}" in said
    assert {path: path.stat().st_mtime_ns for path in out.glob("stages-*/*/*")} == before
    assert bundle.load(out).config["digests"] == bundle.load(made).config["digests"]


def test_what_it_refuses(strong, calibrated, tmp_path, run):
    for folder, given, said in (
        (strong, ("--eps", 2), "give a radius above 0, 1 at most"),
        (calibrated, ("--eps", 0.1), "holds no lure that was fitted on adversarial examples"),
        (strong, ("--eps", 0.1, "--lure-share", 0), "give a number above 0"),
        (tmp_path / "none", ("--eps", 0.1), "none"),
    ):
        code, _, error = run(folder, "--data", "digits", "--out", tmp_path / "new", *given)
        assert code == 2
        assert said in error
    assert not (tmp_path / "new").exists()
    code, _, error = run(strong, "--data", "digits", "--eps", 0.1, "--out", calibrated)
    assert code == 2
    assert "holds a bundle already" in error
