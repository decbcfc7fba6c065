"""The stored rows say what the README and the pages claim."""

import statistics
from pathlib import Path

import pytest

from luring import bundle, data, networks, publish, rows
from luring.audit.defence import FOOLED
from luring.audit.tables import worst
from luring.paper import tables
from luring.weights import digest, fill, read_tensors

RESULTS = Path(__file__).parents[1] / "results"


@pytest.mark.parametrize("seed", range(5))
def test_digits_luring_beats_c_e_at_little_cost(seed):
    found = rows.select(rows.read(RESULTS / "digits/rows.jsonl"), seed=seed)
    accuracy = {row["architecture"]: row["test_accuracy"] for row in rows.select(found, kind="accuracy")}
    middle = {row["architecture"]: row for row in rows.select(found, kind="transfer", attack="mim", eps=0.2)}
    assert middle["luring"]["dac"] >= middle["c_e"]["dac"] + 0.25
    assert middle["luring"]["ac_mop"] <= 0.05
    assert accuracy["luring"] >= accuracy["base"] - 0.03


MNIST = rows.read(RESULTS / "mnist/rows.jsonl")
LONGER = rows.read(RESULTS / "mnist-32/rows.jsonl")
"""An earlier run with fewer and longer steps, on another machine."""
FITTED_LONGER = rows.read(RESULTS / "mnist-12000/rows.jsonl")
"""A later run, on another machine, too."""
BY_QUERY = ("spsa", "zoo", "hop-skip-jump")
TABLES_2_TO_4 = ("fgsm", "mim", "dim", "mim-ti", "dim-ti")
CELLS = [(attack, eps) for attack in TABLES_2_TO_4 for eps in (0.3, 0.4, 0.5)]


@pytest.mark.parametrize("run", [MNIST, FITTED_LONGER], ids=["mnist", "mnist-12000"])
def test_mnist_costs_no_more_accuracy_than_in_the_paper(run):
    lines = tables.accuracy(run)
    assert [line.architecture for line in lines] == ["base", "stack", "auto", "c_e", "luring"]
    for line in lines:
        assert not line.test_accuracy.short, line
        assert not line.agreement.short, line


@pytest.mark.parametrize("run", [MNIST, FITTED_LONGER, LONGER], ids=["mnist", "mnist-12000", "mnist-32"])
@pytest.mark.parametrize(("attack", "eps"), CELLS)
def test_mnist_luring_lets_less_through_than_c_e(attack, eps, run):
    cell = {row["architecture"]: row for row in rows.select(run, kind="transfer", attack=attack, eps=eps)}
    assert cell["luring"]["dac"] > cell["c_e"]["dac"]


def against_the_paper(run, measure):
    """Mean difference from the paper's Luring over the cells of Table 2 that it has, and those that are more than 0.05 short."""
    lines = [(line.attack, line.eps, line.cells["luring"][measure]) for line in tables.transfer(run)]
    known = [line for line in lines if line[2].paper == line[2].paper]  # the first FGSM cell is missing in the paper
    assert len(known) == 14
    return statistics.fmean(value.difference for *_, value in known), {
        (attack, eps) for attack, eps, value in known if value.short
    }


def test_mnist_luring_is_the_papers_in_the_mean_and_short_where_the_results_page_says():
    mean, short = against_the_paper(MNIST, "dac")
    assert mean >= 0
    assert short == {("dim", 0.5)}
    mean, short = against_the_paper(MNIST, "ac_m")
    assert mean >= 0
    assert short == {("dim", 0.4), ("mim-ti", 0.3), ("dim-ti", 0.3)}


@pytest.mark.parametrize("run", [FITTED_LONGER, LONGER], ids=["mnist-12000", "mnist-32"])
def test_mnist_luring_detects_what_the_papers_detects_on_other_targets(run):
    mean, short = against_the_paper(run, "dac")
    assert mean >= 0
    assert not short


def test_mnist_luring_on_another_target_is_short_where_the_results_page_says():
    mean, short = against_the_paper(FITTED_LONGER, "ac_m")
    assert round(mean, 3) == -0.015
    assert short == {("mim", 0.4), ("dim", 0.4), ("mim-ti", 0.3), ("mim-ti", 0.4)}


def test_mnist_more_steps_do_not_make_the_attack_stronger():
    by_steps = {row["settings"]["steps"]: row for row in rows.select(MNIST, kind="convergence")}
    (steps,) = {row["settings"]["steps"] for row in rows.select(MNIST, kind="transfer", attack="mim")}
    assert max(by_steps) == 1000
    # Of 100 images: two standard errors of a share of a half.
    for rate in ("ac_m", "dac"):
        assert by_steps[steps][rate] <= by_steps[1000][rate] + 0.1


RECIPES = rows.read(RESULTS / "research-mnist/rows.jsonl")
TABLE_2 = [line for line in tables.transfer(RECIPES) if (line.attack, line.eps) in CELLS]


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
    lines = [line for line in tables.transfer(found) if (line.attack, line.eps) in CELLS]
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
    found = rows.read(RESULTS / "research-cifar10/rows.jsonl")
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
    assert statistics.fmean(above(first, "luring_alt")) == pytest.approx(0.01, abs=0.005)
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
    assert {
        name: [round(line.cells[name]["dac"].mean, 2) for line in tables.worst(found)]
        for name in ("c_e", "luring", "luring_alt")
    } == {"c_e": [0.05, 0.01, 0.0], "luring": [0.18, 0.02, 0.02], "luring_alt": [0.42, 0.16, 0.04]}
    still = papers(rows.read(RESULTS / "cifar10-still/rows.jsonl"))
    for name, dac in (("luring", [0.30, 0.23]), ("c_e", [0.22, 0.09])):  # accuracy is paid for with strength
        assert [round(statistics.fmean(line.cells[name]["dac"].mean for line in of), 2) for of in (still, lines)] == dac
    masked = [line.cells["luring"]["ac_mop"].mean for line in lines if line.attack != "fgsm"]
    assert max(masked) < 0.005
    right = {row["architecture"]: round(1e4 * row["test_accuracy"]) for row in rows.select(found, kind="accuracy")}
    assert right["base"] >= 8500
    assert [right["base"] - right[name] for name in ("luring", "c_e", "luring_alt")] == [400, 123, 798]


@pytest.mark.parametrize(("dataset", "seed"), [("cifar10", 0), ("svhn", 1)])
def test_the_networks_kept_beside_the_rows_are_those_that_were_measured(dataset, seed):
    folder, shape = RESULTS / f"{dataset}-quick", (3, 32, 32)
    accuracies = rows.select(rows.read(folder / "rows.jsonl"), kind="accuracy", seed=seed)
    measured = {row["architecture"]: row["weights"] for row in accuracies}
    assert {"base", "stack", "c_e", "luring"} <= measured.keys()

    def kept(name, network):
        fill(network, read_tensors(folder / f"models/seed-{seed}/{name}.safetensors"), name)
        return network

    def fresh():
        return networks.make_target(f"{dataset}-narrow", shape, 10)

    target = kept("base", fresh())
    lures = {name: networks.make_lure(f"{dataset}-narrow", target, shape)[0] for name in measured if name != "base"}
    found = {"base": target, "stack": kept("stack", networks.compose(lures["stack"], fresh()))}
    found |= {name: networks.compose(kept(name, lures[name]), target) for name in measured if name not in found}
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


def test_fashion_mnist_luring_lets_less_through_than_c_e_and_costs_less_than_three_points():
    found = rows.read(RESULTS / "fashion_mnist/rows.jsonl")
    dac = {row["architecture"]: row["dac"] for row in rows.select(found, kind="transfer")}
    assert dac["luring"] >= dac["c_e"] + 0.15
    accuracy = {row["architecture"]: row["test_accuracy"] for row in rows.select(found, kind="accuracy")}
    assert accuracy["base"] - accuracy["luring"] <= 0.03


@pytest.mark.parametrize("kind", ["timm-resnet", "timm-vit", "transformers-vit", "program", "onnx-resnet"])
def test_every_kind_of_classifier_went_the_whole_way(kind):
    found = rows.read(RESULTS / "classifiers" / kind / "rows.jsonl")
    accuracy = {row["architecture"]: row["test_accuracy"] for row in rows.select(found, kind="accuracy")}
    attacked = {row["attack"]: row["dac"] for row in rows.select(found, kind="transfer")}
    assert accuracy["base"] >= 0.55
    assert accuracy["base"] - accuracy["luring"] <= 0.13
    assert set(attacked) == {"mim", "dim-ti"}
    assert min(attacked.values()) >= 0.9


@pytest.mark.parametrize(
    ("folder", "scale", "seed", "past"),
    [
        ("mnist-audit", "full", 0, [0.05, 0, 0.54, 0.85, 1, 1]),
        ("mnist-narrow-audit", "full", 0, [0.267, 0, 0.975, 0.975, 1, 1]),
        ("mnist-strong-audit", "full", 0, [0, 0, 0.45, 0.217, 1, 0.95]),
        ("mnist-strong-audit", "quick", 0, [0, 0, 0.225, 0.2, 1, 0]),
        ("mnist-strong-audit", "quick", 1, [0, 0.05, 0.225, 0.2875, 1, 0.15]),
        ("mnist-strong-audit", "quick", 2, [0, 0, 0.2375, 0.2875, 1, 0]),
        ("cifar10-audit", "quick", 0, [0.4875, 0.1, 0.3375, 0.7375, 1, 0.1]),
    ],
)
def test_what_each_adversary_gets_past_the_score(folder, scale, seed, past):
    found = rows.select(
        rows.read(RESULTS / folder / "rows.jsonl"), kind="audit", architecture="luring", scale=scale, seed=seed
    )
    fooled = [float((worst(found, (rung,), "score") == FOOLED).mean()) for rung in (1, 2, 3, 4, 5, 6)]
    assert fooled == pytest.approx(past, abs=0.005)


@pytest.mark.parametrize(
    "folder", ["mnist-audit", "mnist-narrow-audit", "mnist-strong-audit", "cifar10-audit", "digits-audit"]
)
def test_no_sanity_check_failed(folder):
    checks = [
        check
        for row in rows.select(rows.read(RESULTS / folder / "rows.jsonl"), kind="sanity")
        for check in row["checks"]
    ]
    assert len(checks) >= 20
    assert [check for check in checks if not check["passed"]] == []


GUARD = rows.read(RESULTS / "mnist-guard/rows.jsonl")


def test_the_guards_score_beats_bare_agreement_everywhere():
    cells = [cell for line in tables.detection(GUARD) for cell in line.cells.values()]
    assert len(cells) == 15
    gains = [cell["score_same"].mean - cell["agreement"].mean for cell in cells]
    assert min(gains) > 0
    assert statistics.fmean(gains) >= 0.15


def test_the_guard_keeps_its_false_alarm_rate():
    (alarms,) = rows.select(GUARD, kind="guard")
    wanted = alarms["settings"]["fpr"]
    _, low, high = alarms["false_alarms"]["score"]
    assert low <= wanted <= high
    # The comparison is at one rate: the score's is within a point of agreement's.
    assert alarms["false_alarms"]["score_same"][0] == pytest.approx(alarms["false_alarms"]["agreement"][0], abs=0.01)


def test_most_of_what_the_guard_notices_m_alone_would_have_noticed():
    """What the results' README says in so many words: the rival without a lure is near."""
    cells = [cell for line in tables.detection(GUARD) for cell in line.cells.values()]
    assert statistics.fmean(cell["score_same"].mean - cell["confidence"].mean for cell in cells) < 0.05


def test_every_stored_row_says_where_it_comes_from():
    for file in RESULTS.glob("*/rows.jsonl"):
        found = rows.read(file)
        assert len({rows.key(row) for row in found}) == len(found)
        for row in found:
            assert set(rows.COMMON) <= set(row), file
            assert not str(row["commit"]).endswith("dirty"), file


def test_pages_stand_beside_their_rows():
    for file in RESULTS.glob("*/rows.jsonl"):
        page = (file.parent / "report.html").read_text()
        found = rows.read(file)
        assert len(tables.sections(found)) == len({(row["dataset"], row["scale"]) for row in found})
        assert "Luring" in page


BUNDLES = sorted(file.parent for file in (RESULTS / "bundles").glob("*/config.json"))


def test_the_bundles_are_small():
    sizes = {folder.name: sum(file.stat().st_size for file in folder.iterdir()) for folder in BUNDLES}
    assert "digits" in sizes
    assert max(sizes.values()) < 4e6, sizes
    assert sum(sizes.values()) < 25e6


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_a_bundle_is_whole_and_its_card_is_drawn_from_it(folder):
    found = bundle.load(folder)
    assert found.config["method"] == "luring"
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


SPEED = rows.select(rows.read(Path(__file__).parents[1] / "benchmarks/rows.jsonl"), kind="speed")


@pytest.mark.parametrize(("network", "most", "times"), [("vgg", 0.75, 1.4), ("mnist", 0.9, 1.15)])
def test_every_attack_takes_less_than_the_bare_steps_and_the_fastest_peer_takes_longer(network, most, times):
    for attack in ("fgsm", "pgd", "mim", "dim", "mim-ti", "dim-ti"):
        cells = {row["architecture"]: row["of_floor"] for row in rows.select(SPEED, dataset=network, attack=attack)}
        ours = cells.pop("luring")
        assert ours <= most
        assert all(theirs >= times * ours for theirs in cells.values())
        assert cells or (network, attack) in {("mnist", "mim-ti"), ("mnist", "dim-ti")}
