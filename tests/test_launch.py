"""`luring fit` as `accelerate launch` starts it."""

import os
import subprocess
import sys

import torch
from safetensors.torch import load_file

from luring import cli

SHOP = """
import os
from pathlib import Path
from torch import nn

def lure():
    Path(f"seen-{os.environ.get('RANK')}-of-{os.environ.get('WORLD_SIZE')}").touch()
    return nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 1, 3, 1, 1), nn.Sigmoid())
"""


def test_accelerate_launch_of_two_fits_what_one_process_fits(tmp_path, monkeypatch, capsys):
    """The real command, two processes on the CPU, from images to a bundle."""
    quick = (
        "fit",
        "--data",
        "digits",
        "--out",
        "b",
        "--lure",
        "launched_shop:lure",
        "--target-steps",
        "6",
        "--steps",
        "6",
    )
    launch = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")
    launch += ("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0")
    (tmp_path / "launched_shop.py").write_text(SHOP)
    # `accelerate` itself imports timm, and with it torchvision; no settings of whoever runs the tests are read.
    settings = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, *launch, "-m", "luring", *quick],
        cwd=tmp_path,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The bundle is in b.") == 1, "the main process alone speaks"
    assert {file.name for file in tmp_path.glob("seen-*")} == {"seen-0-of-2", "seen-1-of-2"}
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["luring", *quick])
    cli.main()
    assert "The bundle is in b." in capsys.readouterr().out
    of_two, of_one = tmp_path / "b", tmp_path / "one/b"
    assert sorted(file.name for file in of_two.iterdir()) == sorted(file.name for file in of_one.iterdir())
    for name in ("lure", "target"):
        found, expected = (load_file(folder / f"{name}.safetensors") for folder in (of_two, of_one))
        assert found.keys() == expected.keys()
        for part, tensor in expected.items():
            torch.testing.assert_close(found[part], tensor, rtol=0, atol=1e-4)
