import json
import os
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from luring import cli

NETWORKS = """
import torch
from torch import nn

def flat():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())

def shrinking():
    return nn.Sequential(nn.Conv2d(1, 1, 3), nn.Sigmoid())

def raw():
    return nn.Conv2d(1, 1, 3, padding=1)

def fine():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def nothing():
    return 3
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """The command line as a person in `tmp_path` runs it, in this process."""

    def call(*arguments):
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setenv("LURING_CACHE", str(tmp_path / "cache"))
            patch.setattr(sys, "argv", ["luring", *map(str, arguments)])
            patch.setattr(warnings, "showwarning", warnings.showwarning)
            try:
                cli.main()
                code = 0
            except SystemExit as stop:
                code = stop.code or 0
        said = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=said.out, stderr=said.err)

    return call


def files(folder):
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts
    )


@pytest.fixture
def pictures(tmp_path):
    """A folder of pictures with class folders."""
    draw = np.random.default_rng(0)
    for label in ("left", "right"):
        for number in range(30):
            image = np.zeros((8, 8), np.uint8)
            columns = slice(0, 4) if label == "left" else slice(4, 8)
            image[:, columns] = draw.integers(100, 255, (8, 4))
            (tmp_path / "pictures" / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / "pictures" / label / f"{number}.png")
    return tmp_path / "pictures"


def test_it_runs_as_a_command_and_refuses_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "luring", "report", "nothing"]
    refused(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False), "nothing")


def test_calibrate_writes_the_guard_into_the_bundle(run, tmp_path, pictures):
    assert run("fit", "--data", pictures, "--out", "bundle", "--lure", "plain-4", *SMALL).returncode == 0
    whole = files(tmp_path)
    refused(
        run("calibrate", "bundle", "--data", pictures), "cannot show a false-alarm rate of 0.01", "give at least 99"
    )
    refused(run("calibrate", "bundle", "--data", pictures, "--attacks", "cw"), "no attack 'cw'")
    refused(run("calibrate", "owner/name", "--data", pictures), "owner/name is no folder here", "hf download")
    assert files(tmp_path) == whole
    assert not (tmp_path / "owner").exists()
    done = run("calibrate", "bundle", "--data", pictures, "--fpr", "0.2", "--attacks", "fgsm", "--eps", "0.3")
    assert done.returncode == 0, done.stderr
    assert "it is rough" in done.stderr
    assert "clean test images the guard rejects" in " ".join(done.stdout.split())
    page = (tmp_path / "bundle/calibration/report.html").read_text()
    HTMLParser().feed(page)
    assert "What the guard notices" in page
    assert {"guard.json", "guard.safetensors"} <= set(files(tmp_path / "bundle"))

    table = run("check", "bundle", "pictures")
    assert table.returncode == 1
    assert "60 passed, 0 flagged" not in table.stdout
    (tmp_path / "pictures/left/torn.png").write_bytes(b"no picture")
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures/left/colour.png")
    Image.new("L", (9, 8)).save(tmp_path / "pictures/left/large.png")
    lines = run("check", "bundle", "pictures", "--json")
    assert lines.returncode == 1
    found = [json.loads(line) for line in lines.stdout.splitlines()]
    assert [one["file"] for one in found] == sorted(str(file.relative_to(tmp_path)) for file in pictures.rglob("*.png"))
    reasons = {Path(one["file"]).stem: one["reason"] for one in found if one["verdict"] == "unreadable"}
    assert set(reasons) == {"torn", "colour", "large"}
    assert "9 by 8 pixels, the classifier takes 8 by 8" in reasons["large"]
    passed = next(one for one in found if one["verdict"] == "pass")
    assert passed["answer"] in ("left", "right")
    threshold = json.loads((tmp_path / "bundle/guard.json").read_text())["threshold"]
    scored = [one for one in found if one["score"] is not None]
    assert all((one["score"] > threshold) == (one["verdict"] == "flagged") for one in scored)
    assert 0 < sum(one["verdict"] == "flagged" for one in scored) < 60
    assert run("check", "bundle", passed["file"]).returncode == 0
    refused(run("check", "bundle", "nowhere"), "nowhere is no picture")


def test_what_an_experiment_does_not_have_is_refused(run, tmp_path):
    refused(
        run("reproduce", "toy", "--scale", "quick", "--out", "out"),
        "there is no scale 'quick' of toy: give one of paper",
    )
    refused(run("reproduce", "toy", "--precision", "bfloat16", "--out", "out"), "leave --precision out")
    assert not (tmp_path / "out").exists()


def test_help_teaches_every_command(run):
    top = run("--help")
    assert top.returncode == 0
    for command in ("demo", "fit", "evaluate", "calibrate", "check", "export", "serve", "reproduce", "report"):
        assert command in top.stdout
        one = run(command, "--help")
        assert one.returncode == 0
        assert len(one.stdout) > 300 or command == "report"


SMALL = ("--steps", "60", "--target-steps", "60", "--lr", "0.003")


def test_fit_evaluate_and_report_from_a_folder_of_pictures(run, tmp_path, pictures):
    fitted = run("fit", "--data", pictures, "--out", "bundle", "--lure", "plain-4", "--shift", "0.1", *SMALL)
    assert fitted.returncode == 0, fitted.stderr
    config = json.loads((tmp_path / "bundle/config.json").read_text())
    assert config["settings"]["moves"] == {"angle": 0.0, "shift": 0.1, "mirror": False}
    assert config["classes"] == ["left", "right"]
    assert files(tmp_path / "bundle") == ["config.json", "lure.safetensors", "target.safetensors"]
    arguments = (
        "evaluate",
        "bundle",
        "--data",
        pictures,
        "--attacks",
        "fgsm,mim",
        "--eps",
        "0.1",
        "0.3",
        "--steps",
        "5",
        "--out",
        "e",
    )
    first = run(*arguments)
    assert first.returncode == 0, first.stderr
    rows = (tmp_path / "e/rows.jsonl").read_text()
    parsed = [json.loads(line) for line in rows.splitlines()]
    assert [row["kind"] for row in parsed] == ["accuracy"] * 2 + ["transfer"] * 4
    assert {row["scale"] for row in parsed} == {"custom"}
    page = (tmp_path / "e/report.html").read_text()
    HTMLParser().feed(page)
    assert run(*arguments).returncode == 0
    assert (tmp_path / "e/rows.jsonl").read_text() == rows, "a finished cell is not computed again"
    (tmp_path / "e/report.html").unlink()
    assert run("report", "e").returncode == 0
    assert (tmp_path / "e/report.html").read_text() == page
    for name in ("1", "2"):
        (tmp_path / "both" / name).mkdir(parents=True)
        (tmp_path / "both" / name / "rows.jsonl").write_text(rows)
    both = run("report", "both")
    assert both.returncode == 0
    assert f"{Path('both/2')} is left out: it repeats cells of {Path('both/1')}." in both.stdout
    assert (tmp_path / "both/report.html").read_text() == page
    other = run(*arguments, "--step", "0.02")
    assert other.returncode == 2
    assert "other settings" in other.stderr
    assert (tmp_path / "e/rows.jsonl").read_text() == rows


def test_stack_is_kept_with_the_classifier_behind_it(run, tmp_path, pictures):
    fitted = run("fit", "--data", pictures, "--out", "b", "--lure", "plain-4", "--method", "stack", *SMALL)
    assert fitted.returncode == 0, fitted.stderr
    assert "stack.safetensors" in files(tmp_path / "b")
    done = run("evaluate", "b", "--data", pictures, "--attacks", "fgsm", "--out", "e")
    assert done.returncode == 0, done.stderr


def refused(result, *words):
    """One sentence on standard error, exit code 2, no traceback."""
    assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
    said = [line for line in result.stderr.splitlines() if line.startswith("luring: ")]
    assert len(said) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in said[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data", "nosuchset"), ("nosuchset",)),
        (("--data", "./empty"), ("empty",)),
        (("--data", "./pictures", "--label", "kind"), ("kind",)),
        (("--data", "./sizes"), ("8", "9")),
        (("--data", "digits", "--target", "nosuch"), ("nosuch",)),
        (("--data", "digits", "--target", "networks:flat"), ("not logits",)),
        (("--data", "digits", "--target", "networks:nothing"), ("int",)),
        (("--data", "digits", "--target", "networks:missing"), ("missing",)),
        (("--data", "digits", "--target-steps", "5", "--lure", "networks:shrinking"), ("keeps the shape",)),
        (("--data", "digits", "--target-steps", "5", "--lure", "networks:raw"), ("[0, 1]",)),
        (("--data", "digits", "--lure", "mnist", "--target-steps", "5"), ("28 by 28",)),
        (("--data", "digits", "--steps", "0"), ("above 0",)),
        (("--data", "digits", "--shift", "3"), ("by up to 3 of their sides",)),
        (("--data", "digits", "--angle", "-5"), ("by up to -5 degrees",)),
        (("--data", "digits", "--device", "tpu9"), ("tpu9",)),
        (("--data", "digits", "--weights", "none.safetensors"), ("none.safetensors",)),
    ],
)
@pytest.mark.usefixtures("pictures")
def test_fit_refuses_in_one_sentence_and_writes_nothing(run, tmp_path, arguments, words):
    (tmp_path / "networks.py").write_text(NETWORKS)
    (tmp_path / "empty").mkdir()
    for label, size in (("a", 8), ("b", 9)):
        (tmp_path / "sizes" / label).mkdir(parents=True)
        for number in range(5):
            Image.new("L", (size, size)).save(tmp_path / "sizes" / label / f"{number}.png")
    refused(run("fit", *arguments, "--out", "bundle"), *words)
    assert not (tmp_path / "bundle/config.json").exists()
    assert not [name for name in files(tmp_path) if name.startswith("bundle") and name.endswith(".safetensors")]


def test_an_output_folder_that_cannot_be_written_is_refused_before_any_work(run, tmp_path):
    (tmp_path / "file").write_text("")
    refused(run("demo", "--out", "file/below"), "file/below")
    assert files(tmp_path) == ["file"]


def test_damaged_rows_are_refused_and_the_good_ones_kept(run, tmp_path):
    (tmp_path / "o").mkdir()
    rows = '{"kind":"accuracy","dataset":"digits"}\nnot a row\n{"kind":"accuracy","dataset":"digits","seed":1}\n'
    (tmp_path / "o/rows.jsonl").write_text(rows)
    for command in (("demo", "--out", "o"), ("report", "o")):
        refused(run(*command), "line 2")
        assert (tmp_path / "o/rows.jsonl").read_text() == rows
        assert files(tmp_path / "o") == ["rows.jsonl"]


def test_evaluate_refuses(run, tmp_path):
    fitted = run("fit", "--data", "digits", "--out", "b", "--lure", "plain-4", *SMALL)
    assert fitted.returncode == 0, fitted.stderr
    digits = ("evaluate", "b", "--data", "digits", "--out", "e")
    refused(run(*digits, "--eps", "-0.1"), "eps is -0.1")
    refused(run(*digits, "--attacks", "mim,nosuch"), "nosuch")
    refused(run(*digits, "--n", "0"), "n is 0")
    refused(run("evaluate", "b", "--data", "toy", "--out", "e"), "[1, 12, 12]")
    refused(run("evaluate", "nob", "--data", "digits", "--out", "e"), "not a bundle")
    assert not (tmp_path / "e").exists()


def test_a_full_disk_is_one_sentence(run, tmp_path, pictures):
    small = tmp_path / "small"
    small.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", small], check=False).returncode
    ):
        pytest.skip("mounting a small disk needs root")
    try:
        refused(
            run("fit", "--data", pictures, "--out", small / "b", "--lure", "plain-4", *SMALL),
            "no space left",
        )
        assert not [name for name in files(small) if not name.endswith(".state")]
    finally:
        subprocess.run(["umount", small], check=True)


def test_demo_gives_the_same_numbers_for_the_same_seed_and_shows_the_effect(run, tmp_path):
    done = run("demo", "--out", "a")
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "a/rows.jsonl").read_text().splitlines()]
    figures = {(r["architecture"], r["attack"], r["eps"]): r for r in rows if r["kind"] == "transfer"}
    assert len(figures) == 27
    assert figures["luring", "mim", 0.2]["dac"] >= figures["c_e", "mim", 0.2]["dac"] + 0.25
    assert figures["luring", "mim", 0.2]["ac_mop"] <= 0.05
    accuracy = {r["architecture"]: r["test_accuracy"] for r in rows if r["kind"] == "accuracy"}
    assert accuracy["luring"] >= accuracy["base"] - 0.03
    # The luring networks alone again, from nothing: bit for bit the same weights.
    kept = Path(tmp_path / "a/models/seed-0/luring.safetensors").read_bytes()
    stale = tmp_path / "a/models/seed-0/luring.safetensors"
    stale.unlink()
    again = run("demo", "--out", "a")
    assert again.returncode == 0, again.stderr
    assert stale.read_bytes() == kept
    assert len((tmp_path / "a/rows.jsonl").read_text().splitlines()) == len(rows)
