"""Folders of pictures and of parquet files, and what `luring.data.load` makes of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from luring.data import load
from luring.errors import InputError


def image_folder(root: Path, modes=("L",), classes=("cat", "dog"), splits=("train", "test"), n=6, size=(5, 4)) -> Path:
    """PNG files of random pixels, `n` a class, their modes in turn."""
    draw = np.random.RandomState(0)
    for split in splits:
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                picture = Image.fromarray(draw.randint(0, 256, (size[1], size[0], 3), dtype=np.uint8))
                picture.convert(modes[i % len(modes)]).save(folder / f"{i}.png")
    return root


def parquet_folder(root: Path, labels, feature, images=None, image_feature=None, split="train") -> Path:
    import datasets

    if images is None:
        images = [Image.new("L", (3, 2), i) for i in range(len(labels))]
    features = datasets.Features({"image": image_feature or datasets.Image(), "label": feature})
    table = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
    root.mkdir(exist_ok=True)
    datasets.disable_progress_bars()
    table.to_parquet(str(root / f"{split}-00000-of-00001.parquet"))
    datasets.enable_progress_bars()
    return root


def integers():
    import datasets

    return datasets.Value("int64")


def quiet(name, **settings):
    return load(str(name), progress=False, **settings)


def parts(dataset):
    return dataset.train, dataset.validation, dataset.test


def same(one, other) -> bool:
    pairs = zip(parts(one), parts(other), strict=True)
    return all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs)


def cached(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*"))


def refused(tmp_path, match, name, **settings):
    with pytest.raises(InputError, match=match) as said:
        quiet(name, **settings)
    assert "\n" not in str(said.value)
    assert str(said.value).endswith(".")
    assert cached(tmp_path) == []


def loose(root, sizes, first=0):
    """A folder of grey pictures without class folders, one value each, from `first` on."""
    root.mkdir()
    for i, size in enumerate(sizes):
        Image.new("L", size, first + i).save(root / f"{i:03}.png")
    return root
