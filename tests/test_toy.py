"""The effect itself, on the three zones of §3.3, where it can be seen."""

import itertools

import pytest
import torch

from luring import data, rows
from luring.paper import report
from luring.paper.toy import toy, toy_target

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("toy")
    return toy(out, show=False), out


def of(found, kind, architecture="luring", **fields):
    return rows.select(found[0], kind=kind, architecture=architecture, **fields)


def test_the_target_weighs_zones():
    weight = toy_target(weight=2.0)[1].weight.view(3, 12, 12)
    zones = data.toy_zones()
    for label, zone in itertools.product(range(3), range(3)):
        assert (weight[label][zones[zone]] == (2.0 if label == zone else -2.0)).all()
    assert (weight[:, ~zones.any(0)] == 0).all()


def test_both_decoys_answer_as_the_target_does(found):
    assert [row["agreement"] for name in ("c_e", "luring") for row in of(found, "accuracy", name)] == [1.0, 1.0]


def test_the_lure_makes_one_image_a_class_the_zone_itself(found):
    """Figure 2."""
    zones = of(found, "zone")
    assert [row["label"] for row in zones] == [0, 1, 2]
    for row in zones:
        assert row["inside"] > 0.95
        assert row["outside"] < 0.2
        assert row["spread"] < 0.05
    assert all(row["inside"] < 0.8 for row in of(found, "zone", "c_e"))


def test_examples_that_fool_the_decoy_leave_the_target_right(found):
    """Figure 3, first case; a lure fitted by cross-entropy to the same target does nothing of the kind."""
    (luring,), (c_e,) = (of(found, "case", name, attack="untargeted") for name in ("luring", "c_e"))
    assert luring["fooled"] == c_e["fooled"] == 1.0
    assert luring["lured"] > 0.5
    assert c_e["lured"] == 0.0
    m, mop = luring["labels"]["x_mop"]
    assert m == luring["label"] != mop
    assert luring["labels"]["x_m"][0] != luring["label"]


def test_fewer_examples_pass_unseen_than_with_cross_entropy(found):
    for eps in (0.3, 0.4, 0.5):
        (luring,), (c_e,) = (of(found, "transfer", name, attack="pgd", eps=eps) for name in ("luring", "c_e"))
        assert luring["dac"] > c_e["dac"] + 0.3


def test_the_neutral_zone_moves_the_decoy(found):
    (row,) = of(found, "directions")
    assert row["features"] == 108
    assert row["zero_neutral"] > 1
    assert row["neutral_used"] > 0.9
    assert 0 < row["against"] < 1
    assert row["weaker"] > 0.9


def test_a_second_run_computes_nothing_again_and_the_page_shows_it_all(found):
    before, out = found
    assert toy(out, show=False) == before
    report.write(before, out / "report.html", title="Toy")
    page = (out / "report.html").read_text()
    assert "in three zones (Figures 2 and 3)" in page
    assert page.count("crafted on M∘P</b>") == 4
