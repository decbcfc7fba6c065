"""The bundles in the repository are whole and small, and do what they say."""

from pathlib import Path

import pytest

from luring import bundle, data, publish

RESULTS = Path(__file__).parents[1] / "results"


BUNDLES = sorted(file.parent for file in (RESULTS / "bundles").glob("*/config.json"))


def test_the_bundles_are_small():
    sizes = {folder.name: sum(file.stat().st_size for file in folder.iterdir()) for folder in BUNDLES}
    assert "digits" in sizes
    assert max(sizes.values()) < 4e6, sizes
    assert sum(sizes.values()) < 25e6


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_a_bundle_is_whole_and_its_card_is_drawn_from_it(folder):
    found = bundle.load(folder)
    assert found.config["method"] == ("turned" if folder.name == "cifar10-turned" else "luring")
    assert not str(found.config["commit"]).endswith("dirty")
    assert (folder / "README.md").read_text(encoding="utf-8") == publish.card(found.config)


def test_the_digits_bundle_does_what_it_says():
    found, digits = bundle.load(RESULTS / "bundles/digits"), data.load("digits", progress=False)
    assert found.config["data"]["digest"] == digits.digest
    names = str(found.config["target"]), str(found.config["lure"])
    parts = found.target, found.lure, found.decoy
    again = bundle.describe(digits, *parts, names=names, method="luring", settings={})["metrics"]
    for name, value in found.config["metrics"].items():
        assert again[name] == pytest.approx(value, abs=0.004), name  # one image of 270
