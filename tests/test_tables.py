# ruff: noqa: RUF001 - the dash and the minus sign are what is shown
import base64
import io
from math import isnan, nan, sqrt

import numpy as np
import pytest
from rich.console import Console

from luring.paper import printed, published, summary, tables, words
from luring.paper.opposite import opposite
from paper_rows import accuracy, lines, row, transfer

ARCHITECTURES = ("stack", "auto", "c_e", "luring")


def shown(renderable, width=100):
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


# The paper's tables


def test_every_line_of_the_csv_is_found():
    for line in lines("table1.csv"):
        found = published.table1(line["dataset"], line["architecture"])
        assert found is not None
        for field in ("test_accuracy", "agreement"):
            assert found[field] == float(line[field]) if line[field] else isnan(found[field])
    for line in lines("tables2-4.csv"):
        found = published.transfer(line["dataset"], line["attack"], float(line["epsilon"]), line["architecture"])
        assert found is not None
        for field in ("ac_mop", "ac_m", "dac"):
            assert found[field] == float(line[field]) if line[field] else isnan(found[field])


def test_empty_cells_are_nan_and_unknown_ones_none():
    assert published.table1("mnist", "luring") == {"test_accuracy": 0.974, "agreement": 0.969}
    missing = published.transfer("mnist", "fgsm", 0.3, "luring")
    assert missing is not None
    assert missing["ac_mop"] == 0.52
    assert isnan(missing["ac_m"])
    assert isnan(missing["dac"])
    assert published.transfer("mnist", "mim", 0.1 + 0.2, "luring") == {"ac_mop": 0.11, "ac_m": 0.9, "dac": 0.94}
    assert published.table1("digits", "luring") is None
    assert published.table1("cifar10", "auto") is None
    assert published.transfer("mnist", "pgd", 0.3, "luring") is None


# Words


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (0.125, 2, "0.13"),
        (0.285, 2, "0.29"),
        (0.8849, 2, "0.88"),
        (1.0, 2, "1.00"),
        (0.97049, 3, "0.970"),
        (0.0, 2, "0.00"),
        (-0.001, 2, "0.00"),
        (-0.5, 1, "−0.5"),
        (nan, 2, "–"),
        (float("inf"), 2, "–"),
    ],
)
def test_numbers_are_rounded_as_by_hand(value, digits, expected):
    assert words.number(value, digits) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0.004, "0.00"), (0.006, "+0.01"), (-0.006, "−0.01"), (-0.004, "0.00"), (nan, "–")]
)
def test_differences_carry_their_sign(value, expected):
    assert words.signed(value) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.4, "0 s"), (89.0, "89 s"), (150.0, "2 min"), (3590.0, "1 h 0 min"), (9240.0, "2 h 34 min")],
)
def test_durations(seconds, expected):
    assert words.duration(seconds) == expected


def test_listing():
    assert words.listing(["a"]) == "a"
    assert words.listing(["a", "b", "c"]) == "a, b and c"


# Tables


def test_one_seed_is_the_value_alone():
    (line,) = tables.transfer([transfer("luring", 0.104, 0.875, 0.936)])
    value = line.cells["luring"]["dac"]
    assert (value.mean, value.seeds) == (0.936, 1)
    assert isnan(value.spread)
    assert value.text() == "0.94"
    assert line.cells["luring"]["ac_m"].text() == "0.88"


def test_several_seeds_by_hand():
    rows = [transfer("luring", 0.0, ac_m, 0.9, seed=seed) for seed, ac_m in enumerate((0.80, 0.90, 0.85))]
    (line,) = tables.transfer(rows)
    value = line.cells["luring"]["ac_m"]
    assert value.mean == pytest.approx(0.85)
    assert value.spread == pytest.approx(sqrt((0.05**2 + 0.05**2 + 0) / 2))
    assert value.seeds == 3
    assert value.text() == "0.85 ± 0.05"
    assert tables.seeds([line]) == "Mean ± standard deviation over 3 seeds."


def test_a_seed_without_the_figure_is_left_out_and_none_at_all_is_nan():
    rows = [transfer("luring", 0.0, 0.8, None, seed=0), transfer("luring", 0.0, None, None, seed=1)]
    cell = tables.transfer(rows)[0].cells["luring"]
    assert (cell["ac_m"].mean, cell["ac_m"].seeds) == (0.8, 1)
    assert (cell["dac"].text(), cell["dac"].seeds) == ("–", 0)
    mixed = [*rows, transfer("stack", 0.1, 0.2, 0.3, seed=0), transfer("stack", 0.1, 0.2, 0.3, seed=1)]
    assert tables.seeds(tables.transfer(mixed)) == "Mean ± standard deviation over 1 to 2 seeds."


def test_of_two_rows_of_the_same_cell_the_later_stands():
    cell = tables.transfer([transfer("luring", 0.0, 0.1, 0.1), transfer("luring", 0.0, 0.8, 0.9)])[0].cells["luring"]
    assert (cell["ac_m"].mean, cell["ac_m"].seeds) == (0.8, 1)


def test_lines_and_columns_stand_in_the_papers_order():
    rows = [
        transfer(name, 0.0, 0.5, 0.5, attack=attack, eps=eps)
        for attack in ("zoo", "dim-ti", "fgsm")
        for eps in (0.5, 0.3)
        for name in ("mine", "luring", "stack")
    ]
    found = tables.transfer(rows)
    assert [(line.attack, line.eps) for line in found] == [
        (attack, eps) for attack in ("fgsm", "dim-ti", "zoo") for eps in (0.3, 0.5)
    ]
    assert tables.architectures(found) == ["stack", "luring", "mine"]


@pytest.mark.parametrize(("ours", "short"), [(0.89, False), (0.8899, True), (0.95, False), (None, False)])
def test_transfer_is_marked_more_than_5_points_below_the_paper(ours, short):
    value = tables.transfer([transfer("luring", 0.0, 0.9, ours)])[0].cells["luring"]["dac"]
    assert value.paper == 0.94
    assert value.short is short


def test_float_noise_marks_nothing():
    assert 0.35 - 0.40 < -0.05
    assert not tables.Value(0.35, nan, 1, 0.40, 0.05).short


@pytest.mark.parametrize(("ours", "short"), [(0.964, False), (0.9639, True), (0.99, False)])
def test_table_1_is_marked_more_than_1_point_below_the_paper(ours, short):
    (line,) = tables.accuracy([accuracy("luring", ours, 0.969)])
    assert line.test_accuracy.short is short
    assert not line.agreement.short


def test_a_stronger_attack_is_not_marked():
    assert (
        not tables.transfer([transfer("luring", 0.0, 0.9, 0.94, attack="fgsm", eps=0.5)])[0]
        .cells["luring"]["ac_mop"]
        .short
    )


def test_best_dac_and_its_ties():
    def best(*dacs):
        rows = [transfer(name, 0, 0, dac) for name, dac in zip(ARCHITECTURES, dacs, strict=False)]
        return tables.transfer(rows)[0].best

    assert best(0.1, 0.2, 0.9, 0.3) == {"c_e"}
    assert best(0.1, 0.901, 0.2, 0.899) == {"auto", "luring"}
    assert best(None, None, 0.2, 0.3) == {"luring"}
    assert best(0.1) == frozenset()
    assert best(None, 0.4) == frozenset()


def test_networks_of_your_own_are_not_compared_with_the_paper():
    rows = [accuracy("luring", 0.5, 0.5, scale="custom"), transfer("luring", 0.0, 0.1, 0.1, scale="custom")]
    assert not tables.has_paper(tables.accuracy(rows))
    assert not tables.has_paper(tables.transfer(rows))


def test_sections_by_data_set_and_scale():
    rows = [
        accuracy("base", 1.0, None, dataset=name, scale=scale) for name, scale in [("b", "x"), ("a", "x"), ("b", "y")]
    ]
    found = tables.sections([*rows, accuracy("luring", 1.0, None, dataset="b", scale="x")])
    assert [(part[0]["dataset"], part[0]["scale"], len(part)) for part in found] == [
        ("b", "x", 2),
        ("a", "x", 1),
        ("b", "y", 1),
    ]


def answered(architecture, attack, m, mop, seed=0, eps=0.3):
    """A `transfer` row over images of class 1, by what M and M∘P answer."""
    packed = {name: base64.b64encode(bytes(found)).decode() for name, found in (("y", [1] * 4), ("m", m), ("mop", mop))}
    return transfer(architecture, 0, 0, 0, attack=attack, eps=eps, seed=seed, n=4, labels=packed)


def test_the_worst_case_goes_image_by_image():
    # Neither attack does better than a DAC of 0.75; together they leave 0.5.
    rows = [
        answered("luring", "fgsm", m=[2, 1, 1, 2], mop=[2, 1, 2, 3]),
        answered("luring", "mim", m=[1, 2, 1, 1], mop=[2, 2, 1, 3]),
        answered("c_e", "fgsm", m=[1, 1, 1, 1], mop=[1, 1, 1, 1]),
    ]
    (line,) = tables.worst(rows)
    assert set(line.cells) == {"luring"}, "C_E lacks an attack"
    assert {name: value.mean for name, value in line.cells["luring"].items()} == {
        "ac_mop": 0.0,
        "ac_m": 0.25,
        "dac": 0.5,
    }
    assert [line.attack for line in tables.worst([*rows, answered("c_e", "mim", [1] * 4, [1] * 4)])] == ["worst"]
    assert tables.worst(rows[:1]) == []
    assert "Worst: image by image" in shown(printed.terminal(rows))


def test_the_worst_case_is_taken_over_seeds_that_have_every_attack():
    rows = [answered("luring", attack, [1] * 4, [2] * 4, seed=seed) for attack in ("fgsm", "mim") for seed in (0, 1)]
    rows.append(answered("luring", "fgsm", [2] * 4, [2] * 4, seed=2))
    (line,) = tables.worst(rows)
    assert (line.cells["luring"]["dac"].mean, line.cells["luring"]["dac"].seeds) == (1.0, 2)


def test_convergence_holds_the_cells_own_steps():
    rows = [
        transfer("luring", 0.0, 0.7, 0.8, settings={"steps": 100}),
        transfer("auto", 0.0, 0.7, 0.8, settings={}),
        transfer("luring", 0.0, 0.1, 0.8, eps=0.5, settings={"steps": 100}),
        row("convergence", "luring", attack="mim", eps=0.3, ac_mop=0, ac_m=0.6, dac=0.7, settings={"steps": 1000}),
    ]
    ((attack, eps, steps),) = tables.convergence(rows)
    assert (attack, eps) == ("mim", 0.3)
    assert [(s.architecture, s.steps, s.own, s.rates["ac_m"].mean) for s in steps] == [
        ("luring", 100, True, 0.7),
        ("luring", 1000, False, 0.6),
    ]
    # The cell's own steps on the few images that the others were run on, and not on all of the cell's.
    few = row(
        "convergence", "luring", attack="mim", eps=0.3, n=60, ac_mop=0, ac_m=0.5, dac=0.7, settings={"steps": 100}
    )
    ((_, _, steps),) = tables.convergence([*rows, few])
    assert (steps[0].own, steps[0].n, steps[0].rates["ac_m"].mean) == (True, 60, 0.5)


# Printed


def test_terminal_fits_100_columns_and_keeps_every_figure():
    names = ("stack", "auto", "c_e", "luring", "luring_alt")
    rows = [
        transfer(name, 0.25, 0.5, 0.75, attack=attack, eps=eps, seed=seed)
        for name in names
        for attack in ("fgsm", "dim-ti")
        for eps in (0.3, 0.4, 0.5)
        for seed in (0, 1)
    ]
    rows += [accuracy(name, 0.9, 0.9, 0.1, seed=seed) for name in ("base", *names) for seed in (0, 1)]
    text = shown(printed.terminal(rows))
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert text.count("0.25 0.50 0.75*") == 6 * 5
    assert "DIM-TI" in text
    assert "0.900 ± 0.000" in text


def test_terminal_splits_many_architectures():
    text = shown(printed.terminal([transfer(f"mine{n}", 0.1, 0.2, 0.3) for n in range(7)]))
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("0.10 0.20 0.30") == 7


def test_terminal_marks_and_missing_figures():
    rows = [transfer("luring", 0.5, 0.9, 0.9, attack="fgsm"), transfer("stack", None, 0.82, 0.8, attack="fgsm")]
    text = shown(printed.terminal(rows))
    assert "0.50 0.90 0.90*" in text
    assert "–    0.82 0.80" in text
    assert "0.31 0.82 0.93▼" in text
    assert "0.52 –    –" in text
    assert "▼ below the paper by more than 0.05." in text
    assert "paper" not in shown(printed.terminal([transfer("luring", 0.5, 0.9, 0.9, dataset="digits", scale="demo")]))


def test_hostile_names_are_text_in_a_terminal():
    text = shown(printed.terminal([transfer("[red]x", 0.1, 0.2, 0.3, dataset="[bold]d")]))
    assert "[red]x" in text
    assert "[bold]d" in text


def test_markdown():
    rows = [
        accuracy("base", 0.99, None),
        accuracy("luring", 0.95, 0.969, 0.02),
        transfer("stack", 0.0, 0.59, 0.66),
        transfer("luring", 0.11, 0.84, 0.94),
        transfer("luring", 0.11, 0.84, 0.94, attack="pgd"),
    ]
    text = printed.markdown(rows)
    assert "| Base (M) | 0.990 | 0.991 | −0.001 | – | – | – | – |" in text
    assert "| Luring | 0.950 | 0.974 | −0.024▼ | 0.969 | 0.969 | 0.000 | 0.020 |" in text
    assert "| PGD | 0.3 | – | 0.11 / 0.84 / 0.94 |" in text
    assert "0.00 / 0.59 / 0.66<br>paper 0.00 / 0.59 / 0.66" in text
    assert "0.11 / 0.84 / **0.94**<br>paper 0.11 / 0.90▼ / 0.94" in text
    assert "paper" not in printed.markdown([accuracy("luring", 0.9, 0.9, dataset="a|b", scale="quick")]).lower()


# More than the paper's attacks, less than its images


def zeros(architecture, attack, m, mop, **fields):
    """A cell of images of class 0."""
    packed = {name: base64.b64encode(bytes(labels)).decode() for name, labels in (("m", m), ("mop", mop))}
    labels = packed | {"y": base64.b64encode(bytes(len(m))).decode()}
    return transfer(architecture, 0.0, 0.5, 0.5, attack=attack, labels=labels, **fields) | {"n": len(m)}


def test_worst_over_the_papers_attacks_and_over_all_are_kept_apart():
    rows = [
        zeros("luring", "fgsm", [0, 0, 0, 1], [1, 1, 1, 1]),
        zeros("luring", "mim", [0, 0, 1, 0], [1, 1, 2, 1]),
        zeros("luring", "vmi", [0, 1], [1, 1]),  # on the first two images alone
        zeros("stack", "fgsm", [0, 0, 0, 0], [1, 1, 1, 1]),
        zeros("stack", "mim", [0, 0, 0, 0], [1, 1, 1, 1]),
    ]
    found = tables.attacked(rows)
    assert [line.attack for line in found] == ["fgsm", "mim", "worst-paper", "vmi", "worst"]
    papers, every = found[2], found[4]
    assert (papers.cells["luring"]["ac_m"].mean, papers.cells["luring"]["dac"].mean) == (0.5, 0.75)
    assert papers.cells["stack"]["dac"].mean == 1.0
    assert (every.cells["luring"]["ac_m"].mean, every.cells["luring"]["dac"].mean) == (0.5, 0.5)
    assert "stack" not in every.cells  # it was not shown all of them
    assert [line.attack for line in tables.attacked(rows[:2])] == ["fgsm", "mim", "worst"]
    assert "on the images that all of them were run on" in printed.transfer_note(found)
    claims = {finding.claim: finding for finding in summary.findings(rows) if finding.claim}
    assert claims["DAC is higher with Luring than with every other architecture"].verdict == "does not hold"


def counted(architecture, counts, images=(3, 5), **fields):
    packed = base64.b64encode(np.array(counts, "<u4").tobytes()).decode()
    chosen = base64.b64encode(np.array(images, "<u4").tobytes()).decode()
    share = {"of": 100, "mean": float(np.mean(counts))}
    return row("opposite", architecture, dataset="svhn", counts=packed, index_of=chosen, **share, **fields)


def test_opposite_directions_are_compared_image_by_image_and_class_by_class():
    rows = [
        counted("luring", [[50, 40], [30, 20]]),
        counted("c_e", [[40, 40], [10, 10]]),  # a tie is not more
        counted("stack", [[60, 10], [10, 30]]),
        counted("luring_alt", [[99, 99], [99, 99]], images=(3, 6)),  # other images
    ]
    found = {line.architecture: line for line in opposite(rows)}
    assert found["luring"].share.mean == pytest.approx(0.35)
    assert (found["luring"].highest.mean, found["luring"].without_stack.mean) == (0.25, 0.75)
    assert (found["luring"].highest.paper, found["luring"].without_stack.paper) == (0.74, 0.81)
    assert isnan(found["c_e"].highest.mean)
    (finding,) = summary.findings(rows)
    assert finding.verdict == "does not hold"
    assert "for 0.25 (paper 0.74) of all images and classes, and for 0.75 (paper 0.81) without Stack" in finding.text


def test_a_part_of_a_data_set_is_called_so_wherever_the_papers_figures_are():
    part, whole = {"train": 10_854, "test": 1_952}, {"train": 73_257, "test": 26_032}
    rows = [transfer("luring", 0.0, 0.2, 0.3, dataset="svhn", eps=0.06, source=part)]
    called = "SVHN part, 10\N{NO-BREAK SPACE}854 / 1\N{NO-BREAK SPACE}952"
    assert tables.name(rows) == f"{called}, paper scale"
    assert called in tables.caveat(rows)
    assert {finding.verdict for finding in summary.findings(rows)} == {"measured"}
    for text in (shown(printed.terminal(rows)), printed.markdown(rows)):
        assert called in text
        assert "not for comparison" in " ".join(text.split())
    rows = [row | {"source": whole} for row in rows]
    assert tables.name(rows) == "SVHN, paper scale"
    assert tables.caveat(rows) == ""
    assert {finding.verdict for finding in summary.findings(rows)} == {"does not hold"}
    assert "narrower than the paper's" in tables.caveat([row | {"scale": "quick"} for row in rows])
