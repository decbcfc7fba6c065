"""Recipes beside the paper's: what is compared with what."""

import base64

import pytest

from luring.paper import gains, trials, words
from paper_rows import accuracy, row


def labelled(attack, eps, recipe, seed, m, mop):
    """A transfer row of four images of class 0, with what M and M∘P say of the examples."""
    packed = {"y": bytes(4), "m": bytes(m), "mop": bytes(mop)}
    rates = {
        "ac_mop": mop.count(0) / 4,
        "ac_m": m.count(0) / 4,
        "dac": sum(a == 0 or a != b for a, b in zip(m, mop, strict=True)) / 4,
    }
    labels = {name: base64.b64encode(part).decode() for name, part in packed.items()}
    return row("transfer", recipe, seed, scale="research", attack=attack, eps=eps, labels=labels, **rates | {"n": 4})


def clean(recipe, seed, right, differ=None):
    return accuracy(recipe, right, None, differ, seed=seed, scale="research")


FOOLED, NOTICED = [1, 1, 1, 1], [2, 2, 1, 1]
ROWS = [
    clean("base", 0, 0.99),
    clean("luring", 0, 0.95, 0.04),
    # The paper's recipe alone: no seed of it is beside the other.
    labelled("mim", 0.3, "luring", 0, [0, 0, 0, 0], FOOLED),
    *(
        line
        for seed, right, differ in ((1, 0.97, 0.02), (2, 0.96, 0.01))
        for line in (
            clean("base", seed, 0.98),
            clean("luring", seed, 0.94, 0.05),
            clean("mine", seed, right, differ),
            labelled("mim", 0.3, "luring", seed, FOOLED, FOOLED),
            labelled("dim-ti", 0.3, "luring", seed, FOOLED, FOOLED),
            labelled("mim", 0.3, "mine", seed, FOOLED, NOTICED),
            labelled("dim-ti", 0.3, "mine", seed, [0] * seed + [1] * (4 - seed), FOOLED),
        )
    ),
]


def test_a_recipe_is_held_against_the_papers_on_the_seeds_that_both_have():
    found = gains.gains(ROWS, "mine")
    assert (found.under.mean, found.under.seeds) == (pytest.approx(1.5), 2)
    assert found.papers.mean == pytest.approx(4.0)
    assert (found.refused.mean, found.refused.spread) == (pytest.approx(0.3), pytest.approx(0.1414, abs=1e-4))
    assert {cell: gain.mean for cell, gain in found.cells.items()} == {("mim", 0.3): 0.5, ("dim-ti", 0.3): 0.375}
    assert (found.dac.mean, found.ac_m.mean, found.hardest.mean) == pytest.approx((0.4375, 0.1875, 0.375))


def test_all_attacks_together_are_one_adversary():
    # MIM is noticed on the first two images, DIM-TI leaves M right on the first one or two: both on these alone.
    assert {eps: gain.mean for eps, gain in gains.gains(ROWS, "mine").together.items()} == {0.3: 0.375}


def test_the_table_says_what_the_gains_are():
    line = next(line for line in gains.markdown(ROWS).splitlines() if line.startswith("| mine"))
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "mine",
        "2",
        "1.5 ± 0.7",
        "4.0 ± 0.0",
        "0.30 ± 0.14",
        "+0.44 ± 0.09",
        "+0.19 ± 0.09",
        "+0.38 ± 0.18",
        "+0.38 ± 0.18",
        "2 of 2, +0.38",
    ]
    assert gains.markdown(ROWS) in trials.markdown(ROWS)


def test_a_recipe_with_no_seed_of_the_papers_is_not_in_the_table():
    alone = [row for row in ROWS if row["architecture"] != "luring"]
    assert gains.markdown(alone) == ""
    assert "mine" in trials.markdown(alone)


def test_what_one_of_them_lacks_is_missing_and_not_nothing():
    fewer = [row for row in ROWS if not (row["architecture"] == "mine" and row.get("attack") == "dim-ti")]
    found = gains.gains(fewer, "mine")
    assert set(found.cells) == {("mim", 0.3)}
    assert found.hardest.seeds == 0
    assert found.together[0.3].seeds == 0
    assert f"| {words.MISSING} | {words.MISSING} |" in gains.markdown(fewer)
