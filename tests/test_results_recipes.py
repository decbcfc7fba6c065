"""The stored rows of trials of recipes say what the pages claim."""

import statistics
from pathlib import Path

import pytest

from luring import networks, rows
from luring.paper import tables, trials
from luring.weights import digest, fill, read_tensors

RESULTS = Path(__file__).parents[1] / "results"


RECIPES = rows.read(RESULTS / "research-mnist/rows.jsonl")
TABLE_2 = [line for line in tables.transfer(RECIPES) if line.attack in trials.TABLE]


def test_mnist_the_strong_recipe_lets_far_less_through_in_every_cell():
    gains = [line.cells["strong"]["dac"].mean - line.cells["luring"]["dac"].mean for line in TABLE_2]
    assert len(gains) == 15
    assert min(gains) > 0
    assert statistics.fmean(gains) >= 0.3
    (worst,) = (line for line in tables.worst(RECIPES) if line.eps == 0.5)
    assert worst.cells["strong"]["dac"].mean >= worst.cells["luring"]["dac"].mean + 0.15
    (hardest,) = (line for line in TABLE_2 if (line.attack, line.eps) == ("dim-ti", 0.5))
    assert hardest.cells["strong"]["dac"].mean >= hardest.cells["luring"]["dac"].mean + 0.2


def test_mnist_the_strong_recipe_hides_no_gradient_and_costs_less_than_the_papers():
    largest = [line for line in tables.transfer(RECIPES) if line.eps == 0.5 and line.attack in ("pgd", "apgd", "mim")]
    assert [line.cells["strong"]["ac_mop"].mean <= 0.05 for line in largest] == [True] * 3
    accuracy = {line.architecture: line.test_accuracy.mean for line in tables.accuracy(RECIPES)}
    assert accuracy["strong"] >= accuracy["luring"] + 0.01
    assert accuracy["base"] - accuracy["strong"] <= 0.006
    assert {row["recipe"] for row in RECIPES if row["kind"] == "transfer"} == {
        "paper",
        "bounded",
        "static",
        "strong",
        "faithful",
        "aligned",
    }


def test_mnist_asking_for_all_that_m_answers_refuses_little_less_and_lets_more_through():
    found = [row for row in RECIPES if row["seed"] >= 3]
    lines = [line for line in tables.transfer(found) if line.attack in trials.TABLE]
    dac = {name: statistics.fmean(line.cells[name]["dac"].mean for line in lines) for name in lines[0].cells}
    assert {name: round(mean, 2) for name, mean in dac.items()} == {"luring": 0.64, "strong": 0.93, "faithful": 0.87}
    (worst,) = (line.cells for line in tables.worst(found) if line.eps == 0.5)
    assert [round(worst[name]["dac"].mean, 2) for name in ("faithful", "strong", "luring")] == [0.20, 0.49, 0.02]
    accuracy = {line.architecture: line for line in tables.accuracy(found)}
    apart = {name: accuracy[name].disagreement.mean for name in dac}
    assert [round(apart[name], 3) for name in ("faithful", "strong", "luring")] == [0.012, 0.013, 0.021]
    assert apart["faithful"] / apart["luring"] == pytest.approx(0.566, abs=0.003)
    assert accuracy["strong"].test_accuracy.mean > accuracy["faithful"].test_accuracy.mean


def test_cifar10_the_strong_recipe_lets_far_less_through_and_costs_more_accuracy():
    found = rows.read(RESULTS / "research-cifar10-strong/rows.jsonl")
    lines = tables.transfer(found)
    gains = [line.cells["strong"]["dac"].mean - line.cells["luring"]["dac"].mean for line in lines]
    assert len(gains) == 33
    assert min(gains) == pytest.approx(0.325)
    assert statistics.fmean(gains) == pytest.approx(0.76, abs=0.005)
    worst = {line.eps: line.cells for line in tables.worst(found)}
    assert [round(worst[eps]["strong"]["dac"].mean, 3) for eps in (0.02, 0.03, 0.04)] == [0.93, 0.91, 0.87]
    assert [round(worst[eps]["luring"]["dac"].mean, 3) for eps in (0.02, 0.03, 0.04)] == [0.13, 0.02, 0]
    iterated = [line.cells["strong"]["ac_mop"].mean for line in lines if line.attack != "fgsm" and line.eps >= 0.03]
    assert max(iterated) == 0  # no gradient is hidden
    accuracy = {line.architecture: line.test_accuracy.mean for line in tables.accuracy(found)}
    assert [round(accuracy["base"] - accuracy[name], 3) for name in ("luring", "strong")] == [0.036, 0.074]


def test_cifar10_asked_for_all_that_m_answers_a_lure_is_nearly_as_strong_and_nearly_as_accurate_as_the_papers():
    found = rows.read(RESULTS / "research-cifar10/rows.jsonl")
    lines = tables.transfer(found)
    gains = [line.cells["faithful"]["dac"].mean - line.cells["luring"]["dac"].mean for line in lines]
    assert len(gains) == 33
    assert min(gains) == pytest.approx(0.26)
    assert statistics.fmean(gains) == pytest.approx(0.65, abs=0.005)
    table = [line for line in lines if line.attack in trials.TABLE]
    for rate, gain in (("dac", 0.63), ("ac_m", 0.65)):
        means = [statistics.fmean(line.cells[name][rate].mean for line in table) for name in ("faithful", "luring")]
        assert means[0] - means[1] == pytest.approx(gain, abs=0.005)
    worst = {line.eps: line.cells for line in tables.worst(found)}
    assert [round(worst[eps]["faithful"]["dac"].mean, 3) for eps in (0.02, 0.03, 0.04)] == [0.88, 0.81, 0.67]
    assert [round(worst[eps]["luring"]["dac"].mean, 3) for eps in (0.02, 0.03, 0.04)] == [0.18, 0.04, 0]
    iterated = [line for line in lines if line.attack in ("pgd", "apgd", "mim", "dim", "vmi", "pgn")]
    assert max(line.cells["faithful"]["ac_mop"].mean for line in iterated) == 0  # no gradient is hidden
    accuracy = {line.architecture: line for line in tables.accuracy(found)}
    right = {name: line.test_accuracy.mean for name, line in accuracy.items()}
    assert [round(right["base"] - right[name], 3) for name in ("luring", "faithful")] == [0.040, 0.049]
    assert [round(accuracy[name].disagreement.mean, 3) for name in ("luring", "faithful")] == [0.107, 0.118]


def test_cifar10_the_lure_kept_beside_the_trials_is_the_one_that_was_measured():
    found = rows.select(rows.read(RESULTS / "research-cifar10/rows.jsonl"), kind="accuracy")
    target = networks.make_target("cifar10-narrow", (3, 32, 32), 10)
    lure = networks.make_lure("cifar10-narrow", target, (3, 32, 32))[0]
    fill(target, read_tensors(RESULTS / "cifar10-quick/models/seed-0/base.safetensors"), "base")
    fill(lure, read_tensors(RESULTS / "research-cifar10/models/seed-0/faithful.safetensors"), "faithful")
    measured = {row["architecture"]: row["weights"] for row in found}
    assert digest(target) == measured["base"]
    assert digest(networks.compose(lure, target)) == measured["faithful"]
