"""Shapes and types are checked at run time over the whole package, and small tensors run on one thread."""

import runpy
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import walk_packages

import pytest
from jaxtyping import install_import_hook

with install_import_hook("luring", "beartype.beartype"):
    import luring

    for module in walk_packages(luring.__path__, "luring."):
        import_module(module.name)

import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of small networks, fitted to the digits for a moment, whose guard rejects one clean image in ten."""
    from luring import bundle, data, guard, lures, networks, training

    folder = tmp_path_factory.mktemp("calibrated")
    torch.manual_seed(0)
    digits = data.load("digits")
    target = networks.plain_target(digits.shape, 10)
    training.classifier(target, digits.train, digits.validation, schedule=training.Schedule(40, lr=5e-3))
    lure = lures.plain_lure(digits.shape, 8)
    moment = training.Schedule(80, lr=1e-2)
    training.lure(lure, target, digits.train.images, digits.validation.images, lam=0.1, gap_max=15.0, schedule=moment)
    decoy = networks.compose(lure, target)
    config = bundle.describe(digits, target, lure, decoy, names=("plain", "plain-8"), method="luring", settings={})
    bundle.save(folder, target, lure, config)
    detector = guard.Detector(target.eval(), decoy.eval()).fit(digits.train.images)
    detector.infer_threshold(digits.validation.images, 0.1)
    detector.save(folder)
    return folder


@pytest.fixture(scope="session")
def strong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a strong lure, fitted to the digits for a moment."""
    import short_fits
    from luring import bundle, data, lures, recipes, training

    folder = tmp_path_factory.mktemp("strong")
    digits = data.load("digits")
    target, asked, schedule = (
        short_fits.target_of(digits),
        recipes.asked("strong", eps=0.3),
        training.Schedule(600, lr=5e-3),
    )
    decoy = short_fits.fitted(digits, target, lambda shape: lures.plain_lure(shape, 8), schedule, **asked)
    settings = bundle.fitted_by("strong", asked, schedule, 0, None)
    names = "plain", "plain-8"
    config = bundle.describe(digits, target, decoy.lure, decoy, names=names, method="luring", settings=settings)
    bundle.save(folder, target, decoy.lure, config)
    return folder


@pytest.fixture
def command_line(monkeypatch, capsys):
    """`luring` with these arguments, in this process: its exit code, what it printed, and what it said on the error stream."""
    from luring import cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["luring", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def apart(monkeypatch, tmp_path):
    """The test sees neither the caches nor the data of whoever runs it, nor the hub."""
    monkeypatch.setenv("LURING_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LURING_DATA", raising=False)


@pytest.fixture(scope="session")
def torchvision():
    """What timm and transformers import, whatever PyTorch it was built for."""
    if find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    kept = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks/torchvision_operators.py"))
    kept["name_operators"]()
    return kept


@pytest.fixture(scope="session")
def timm(torchvision):
    assert torchvision
    return pytest.importorskip("timm", exc_type=ImportError)


@pytest.fixture(scope="session")
def transformers(torchvision):
    assert torchvision
    found = pytest.importorskip("transformers", exc_type=ImportError)
    found.logging.set_verbosity_error()
    return found
