"""The stored rows of SVHN's part and of CIFAR10, and the networks beside them, say what the pages claim."""

import statistics
from pathlib import Path

import pytest

from luring import blend, networks, rows
from luring.paper import tables
from luring.weights import digest, fill, read_tensors

RESULTS = Path(__file__).parents[1] / "results"
BY_QUERY = ("spsa", "zoo", "hop-skip-jump")


def above(lines, other):
    return [line.cells["luring"]["dac"].mean - line.cells[other]["dac"].mean for line in lines]


def papers(found):
    return [line for line in tables.transfer(found) if line.attack in tables.PAPERS]


def later(found):
    """Of the attacks for transfer that the paper does not show."""
    return [line for line in tables.transfer(found) if line.attack not in (*tables.PAPERS, *BY_QUERY)]


def test_svhns_part_luring_lets_less_through_than_c_e_and_more_than_auto_and_stack():
    found = rows.read(RESULTS / "svhn-quick/rows.jsonl")
    lines = papers(found)
    assert len(lines) == 21
    assert min(above(lines, "c_e")) >= 0.045
    assert statistics.fmean(above(lines, "c_e")) == pytest.approx(0.165, abs=0.005)
    first, *others = (papers(rows.select(found, seed=seed)) for seed in (0, 1, 2))
    assert [(line.attack, line.eps) for line in first if above([line], "c_e")[0] <= 0] == [("fgsm", 0.03)]
    assert min(above(first, "c_e")) >= -0.007
    assert all(min(above(of, "c_e")) >= 0.03 for of in others)
    assert max(above(lines, "auto")) < 0
    assert statistics.fmean(above(lines, "auto")) == pytest.approx(-0.28, abs=0.005)
    assert [sum(gain < 0 for gain in above(of, "stack")) for of in (lines, first, *others)] == [17, 16, 20, 14]
    assert statistics.fmean(above(lines, "stack")) == pytest.approx(-0.07, abs=0.005)
    for of, mean, least, fewer in ((lines, 0.021, -0.0225, 6), (later(found), 0.018, -0.037, 5)):
        gains = above(of, "luring_alt")
        assert statistics.fmean(gains) == pytest.approx(mean, abs=0.001)
        assert min(gains) == pytest.approx(least, abs=0.0005)
        assert sum(gain < 0 for gain in gains) == fewer
    newer = later(found)
    assert len(newer) == 18
    assert [(line.attack, line.eps) for line in newer if above([line], "c_e")[0] <= 0] == [("pgn", 0.08)]
    assert statistics.fmean(above(newer, "c_e")) == pytest.approx(0.136, abs=0.005)
    assert min(above(later(rows.select(found, seed=2)), "c_e")) >= 0.03
    masked = {line.eps: line.cells["luring"]["ac_mop"].mean for line in lines if line.attack == "mim"}
    assert [round(masked[eps], 2) for eps in (0.03, 0.06, 0.08)] == [0.15, 0.12, 0.11]
    ((_, _, steps),) = tables.convergence(found)
    assert [(one.steps, one.n, *(round(one.rates[rate].mean, 2) for rate in ("ac_mop", "dac"))) for one in steps] == [
        (24, 60, 0.09, 0.41),
        (100, 60, 0.03, 0.42),
    ]
    accuracy = {line.architecture: line.test_accuracy.mean for line in tables.accuracy(found)}
    assert accuracy["base"] >= 0.90
    assert accuracy["base"] - accuracy["luring"] == pytest.approx(0.008, abs=0.0005)


def test_a_lure_for_few_images_keeps_more_accuracy_and_less_strength_where_they_are_moved():
    still, moved = (
        rows.select(rows.read(RESULTS / name / "rows.jsonl"), seed=0) for name in ("svhn-still", "svhn-quick")
    )
    weights = {row["weights"] for row in still + moved if row["kind"] == "accuracy" and row["architecture"] == "base"}
    assert len(weights) == 1  # of the same M
    cost = []
    for found in (still, moved):
        accuracy = {line.architecture: line.test_accuracy.mean for line in tables.accuracy(found)}
        cost.append([round(accuracy["base"] - accuracy[name], 3) for name in ("luring", "c_e")])
    assert cost == [[0.040, 0.039], [0.010, 0.004]]
    mim = [next(line for line in papers(found) if (line.attack, line.eps) == ("mim", 0.06)) for found in (still, moved)]
    assert [round(line.cells["luring"]["dac"].mean, 2) for line in mim] == [0.62, 0.42]
    assert [round(line.cells["c_e"]["dac"].mean, 2) for line in mim] == [0.25, 0.17]
    assert [round(line.cells["luring"]["ac_mop"].mean, 2) for line in mim] == [0.22, 0.12]
    gains = above(papers(still), "c_e")
    assert len(gains) == 21
    assert min(gains) > 0.05
    assert statistics.fmean(gains) >= 0.25


def test_cifar10_lures_on_moved_images_keep_more_accuracy_and_luring_is_further_above_c_e():
    found = rows.read(RESULTS / "cifar10-quick/rows.jsonl")
    lines = papers(found)
    assert len(lines) == 21
    assert min(above(lines, "c_e")) >= 0.02
    assert statistics.fmean(above(lines, "c_e")) == pytest.approx(0.141, abs=0.005)
    assert max(above(lines, "stack")) < 0
    assert max(above(lines, "luring_alt")) < 0
    others = later(found)
    assert len(others) == 18
    assert min(above(others, "c_e")) >= 0.0095
    assert statistics.fmean(above(others, "c_e")) == pytest.approx(0.12, abs=0.005)
    assert max(above(others, "luring_alt")) < 0
    assert max(above(others, "stack")) < 0
    assert statistics.fmean(above(others, "stack")) == pytest.approx(-0.217, abs=0.001)
    without_queries = [row for row in found if row.get("attack") not in BY_QUERY]
    for of, names in ((found, ("c_e", "luring")), (without_queries, ("c_e", "luring", "luring_alt", "stack"))):
        left = {name: [round(line.cells[name]["dac"].mean, 2) for line in tables.worst(of)] for name in names}
        kept = {"c_e": [0.05, 0.01, 0.0], "luring": [0.18, 0.02, 0.02]}
        kept |= {"luring_alt": [0.42, 0.16, 0.04], "stack": [0.37, 0.16, 0.03]}
        assert left == {name: kept[name] for name in names}
    queries = [line for line in tables.transfer(found) if line.attack in BY_QUERY]
    assert len(queries) == 9
    assert min(line.cells["luring"]["dac"].mean for line in queries) == pytest.approx(0.94)
    assert min(line.cells["c_e"]["dac"].mean for line in queries) == pytest.approx(0.88)
    assert min(line.cells["luring"]["ac_mop"].mean for line in queries) == pytest.approx(0.41)
    assert [line.attack for line in queries if above([line], "c_e")[0] < 0] == ["zoo"] * 3
    still = papers(rows.read(RESULTS / "cifar10-still/rows.jsonl"))
    for name, dac in (("luring", [0.30, 0.23]), ("c_e", [0.22, 0.09])):  # accuracy is paid for with strength
        assert [round(statistics.fmean(line.cells[name]["dac"].mean for line in of), 2) for of in (still, lines)] == dac
    masked = [line.cells["luring"]["ac_mop"].mean for line in lines if line.attack != "fgsm"]
    assert max(masked) < 0.005
    right = {row["architecture"]: round(1e4 * row["test_accuracy"]) for row in rows.select(found, kind="accuracy")}
    assert right["base"] >= 8500
    assert [right["base"] - right[name] for name in ("luring", "c_e", "luring_alt")] == [400, 123, 798]


@pytest.mark.parametrize(
    ("folder", "dataset", "seed", "least"),
    [
        ("cifar10-quick", "cifar10", 0, {"base", "stack", "c_e", "luring"}),
        ("svhn-quick", "svhn", 1, {"base", "stack", "c_e", "luring", "luring_alt"}),
        (
            "research-cifar10",
            "cifar10",
            0,
            {
                "base",
                "luring",
                "faithful",
                "annealed",
                "blended",
                "refitted",
                "imitated",
                "imitated-annealed",
                "turned",
            },
        ),
        ("research-cifar10", "cifar10", 1, {"base", "luring", "turned"}),
    ],
)
def test_the_networks_kept_beside_the_rows_are_those_that_were_measured(folder, dataset, seed, least):
    shape = (3, 32, 32)
    accuracies = rows.select(rows.read(RESULTS / folder / "rows.jsonl"), kind="accuracy", seed=seed)
    measured = {row["architecture"]: row["weights"] for row in accuracies}
    blended, share, lure_of = (
        {row["architecture"]: row["settings"].get(setting) for row in accuracies}
        for setting in ("blended", "share", "lure")
    )
    assert least <= measured.keys()

    def kept(name, network):
        # Trials begin from the quick scale's.
        files = [RESULTS / of / f"models/seed-{seed}/{name}.safetensors" for of in (folder, f"{dataset}-quick")]
        fill(network, read_tensors(next(file for file in files if file.exists())), name)
        return network

    def fresh():
        return networks.make_target(f"{dataset}-narrow", shape, 10)

    target = kept("base", fresh())
    lures = {name: networks.make_lure(lure_of[name], target, shape)[0] for name in measured if name != "base"}
    found = {"base": target}
    for name, lure in lures.items():
        if name == "stack":
            found[name] = kept(name, networks.compose(lure, fresh()))
        elif blended[name]:
            of, part = blended[name]
            found[name] = networks.compose(blend.at(kept(of, lure), part), target)
        else:
            found[name] = networks.compose(kept(name, blend.at(lure, share[name] or 1.0)), target)
    assert {name: digest(network) for name, network in found.items()} == measured


def test_cifar10_lures_on_still_images_are_less_accurate_and_closer_together():
    found = rows.read(RESULTS / "cifar10-still/rows.jsonl")
    lines = papers(found)
    assert len(lines) == 21
    assert min(above(lines, "c_e")) >= 0.03
    assert statistics.fmean(above(lines, "c_e")) == pytest.approx(0.08, abs=0.005)
    assert max(above(lines, "stack")) < 0
    assert max(above(lines, "luring_alt")) < 0
    masked = [line.cells["luring"]["ac_mop"].mean for line in lines if line.attack != "fgsm" and line.eps >= 0.03]
    assert max(masked) <= 0.01
    accuracy = {line.architecture: line.test_accuracy.mean for line in tables.accuracy(found)}
    assert accuracy["base"] >= 0.85
    assert accuracy["base"] - accuracy["luring"] == pytest.approx(0.052, abs=0.001)
