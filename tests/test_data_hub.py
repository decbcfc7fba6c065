"""The hub, which no test reaches, and folders under LURING_DATA."""

import os

import huggingface_hub
import pytest

from folders import cached, image_folder, quiet, refused, same
from luring.data import pictures

pytestmark = pytest.mark.usefixtures("apart")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that holds one data set; what is asked of it is written down."""
    import datasets

    asked = []
    source = image_folder(tmp_path / "source")

    def load_dataset(hub_id, config):
        asked.append((hub_id, config, datasets.config.HF_HUB_OFFLINE))
        found = real(str(source), cache_dir=str(tmp_path / "arrow"))
        return found.rename_column("image", "img") if hub_id == "uoft-cs/cifar10" else found

    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    return asked


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist", ("ylecun/mnist", None)),
        ("fashion_mnist", ("zalando-datasets/fashion_mnist", None)),
        ("svhn", ("ufldl-stanford/svhn", "cropped_digits")),
        ("cifar10", ("uoft-cs/cifar10", None)),
        ("someone/pets", ("someone/pets", None)),
    ],
)
def test_hub(hub, tmp_path, monkeypatch, name, expected):
    first = quiet(name)
    assert hub == [(*expected, False)]
    assert (first.name, first.shape) == (name, (1, 4, 5))
    assert len(cached(tmp_path)) == 1
    monkeypatch.setattr(pictures, "decode", None)
    assert same(first, quiet(name))


def test_hub_not_reached_but_downloaded_before(hub, monkeypatch):
    import datasets

    def fail(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    assert quiet("mnist").shape == (1, 4, 5)
    assert hub == [("ylecun/mnist", None, True)]
    assert not datasets.config.HF_HUB_OFFLINE


def test_hub_not_reached(tmp_path, monkeypatch):
    def fail(*_, **settings):
        assert settings["timeout"] <= 5
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    monkeypatch.setenv("LURING_DATA", str(tmp_path))
    message = rf"unknown data set 'no-one/nothing'.*LURING_DATA \({tmp_path}\), and the hub could not be.*\(no route\)"
    refused(tmp_path, message, "no-one/nothing")


def test_hub_does_not_know_it(tmp_path, monkeypatch):
    from huggingface_hub.errors import RepositoryNotFoundError

    def fail(*_, **__):
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    refused(tmp_path, "the hub has no public someone/pets", "someone/pets")


@pytest.mark.usefixtures("hub")
def test_hub_gives_an_error(tmp_path, monkeypatch):
    import datasets

    def fail(*_):
        raise ValueError("Config name is missing.\nPlease pick one")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    refused(tmp_path, r"someone/pets could not be loaded from the hub \(Config name is missing\.\)", "someone/pets")


def test_folders_under_luring_data(tmp_path, monkeypatch):
    monkeypatch.setenv("LURING_DATA", str(tmp_path / "data"))
    image_folder(tmp_path / "data" / "mnist")
    image_folder(tmp_path / "data" / "pets", size=(3, 3))
    assert quiet("mnist").shape == (1, 4, 5)
    assert quiet("pets").shape == (1, 3, 3)
    monkeypatch.chdir(tmp_path)
    image_folder(tmp_path / "mnist", size=(2, 2))
    assert quiet("mnist").shape == (1, 4, 5)
    assert quiet("./mnist").shape == (1, 2, 2)


ROOT = os.environ.get("LURING_DATA")


real_images = pytest.mark.skipif(not ROOT, reason="LURING_DATA, the folder of real images, is not set")


@pytest.mark.real_images
@real_images
@pytest.mark.parametrize(
    ("name", "shape", "train", "test"),
    [("mnist", (1, 28, 28), 60_000, 10_000), ("svhn", (3, 32, 32), 10_854, 1_952)],
)
def test_real_images(monkeypatch, name, shape, train, test):
    monkeypatch.setenv("LURING_DATA", str(ROOT))
    found = quiet(name)
    assert found.shape == shape
    assert len(found.train.labels) + len(found.validation.labels) == train
    assert len(found.validation.labels) == round(train * 0.17)
    assert len(found.test.labels) == test
    assert len(found.classes) == 10
    if name == "mnist":
        assert found.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
        assert found.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
