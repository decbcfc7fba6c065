# ruff: noqa: RUF001 - the dash and the minus sign are what is shown
from math import isnan

import pytest

from luring.paper import summary, tables
from paper_rows import accuracy, as_papers, row, transfer


def test_the_papers_own_figures_confirm_the_paper():
    rows = as_papers()
    against = summary.against_paper(tables.transfer(rows))
    assert len(against.figures) == 28  # 15 cells, the first FGSM cell lacks both
    assert (against.ac_m, against.dac, against.misses) == (0.0, 0.0, [])
    found = summary.findings(rows)
    said = "DAC is higher with Luring than with C_E in 14 of 14 comparisons; by +0.19 on average and +0.09 at least (MIM at ε 0.3)."
    assert found[0].text == said
    assert {finding.verdict for finding in found} == {"holds"}
    assert summary.verdicts(found) == "Of 4 claims checked against these rows, 4 hold."


def test_differences_from_the_paper_by_hand():
    rows = [
        transfer("luring", 0.1, 0.80, 0.95),  # AC_M 0.10 below, DAC 0.01 above
        transfer("luring", 0.1, 0.72, 0.80, eps=0.4),  # AC_M 0.02 above, DAC 0.02 below
        transfer("luring", 0.1, 0.72, 0.80, attack="pgd"),  # not in the paper
        transfer("luring", 0.1, None, None, eps=0.5),
    ]
    against = summary.against_paper(tables.transfer(rows))
    assert against.ac_m == pytest.approx(-0.04)
    assert against.dac == pytest.approx(-0.005)
    assert str(against.worst) == "AC_M of MIM at ε 0.3 (0.80, paper 0.90)"
    assert list(map(str, against.misses)) == ["AC_M of MIM at ε 0.3 (0.80, paper 0.90)"]
    (finding,) = summary.findings(rows)
    assert finding.verdict == "holds in part"
    assert "in 3 of 4 comparisons" in finding.text
    assert "Below by more than 0.05: AC_M of MIM at ε 0.3 (0.80, paper 0.90)." in finding.text


def test_lost_comparisons_are_named():
    rows = [
        *(
            transfer(name, 0, 0.5, dac, dataset="digits")
            for name, dac in (("c_e", 0.7), ("stack", None), ("luring", 0.6))
        ),
        *(transfer(name, 0, 0.5, 0.6, dataset="digits", eps=0.4) for name in ("c_e", "luring")),
        *(transfer(name, 0, 0.5, None, dataset="digits", eps=0.5) for name in ("c_e", "luring")),
    ]
    found = summary.findings(rows)
    assert found[0].verdict == "does not hold"
    expected = "in 0 of 2 comparisons, not in MIM at ε 0.3 (0.60 against 0.70) and MIM at ε 0.4 (0.60 against 0.60); "
    assert found[0].text.endswith(expected + "by −0.05 on average and −0.10 at worst (MIM at ε 0.3).")
    assert summary.verdicts(found) == "Of 3 claims checked against these rows, 3 do not hold."


def test_architectures_are_compared_over_the_seeds_that_all_of_them_have():
    rows = [transfer("luring", 0, 0.5, dac, dataset="digits", seed=seed) for seed, dac in enumerate((0.6, 0.9))]
    rows += [
        transfer("c_e", 0, 0.5, 0.7, dataset="digits"),
        transfer("luring_alt", 0, 0.5, 0.8, dataset="digits", seed=1),
    ]
    found = {finding.claim: finding.text for finding in summary.findings(rows)}
    for other, said in (
        ("C_E", "0 of 1 comparisons, not in MIM at ε 0.3 (0.60 against 0.70)"),
        ("L'", "1 of 1 comparisons; by +0.10"),
    ):
        assert said in found[f"DAC is higher with Luring than with {other}"]
    assert not summary.findings(
        [row for row in rows if (row["architecture"], row["seed"]) not in {("luring", 0), ("luring_alt", 1)}]
    )


def test_without_luring_nothing_is_claimed():
    rows = [transfer("stack", 0.0, 0.5, 0.5), accuracy("base", 0.9, None)]
    assert summary.findings(rows) == []
    assert isnan(summary.against_paper(tables.transfer(rows)).dac)
    assert summary.verdicts([]) == "The paper claims nothing that these rows can be checked against."


def test_accuracy_effect_distortion_and_gradient():
    rows = [
        accuracy("base", 0.99, None, dataset="digits"),
        accuracy("luring", 0.95, 0.94, 0.03, dataset="digits"),
    ]
    (finding,) = summary.findings(rows)
    assert finding.verdict == "measured"
    assert "0.950" in finding.text
    assert "target alone 0.990" in finding.text
    assert "0.030 of the clean images" in finding.text

    rows = [accuracy("luring", 0.95, 0.969)]
    assert summary.findings(rows)[0].verdict == "does not hold"  # one of two

    rows = [
        row("effect", name, attack="fgsm", eps=0.3, dr=dr, adq=0.4) for name, dr in (("luring", 0.9), ("auto", 0.5))
    ]
    assert "in 1 of 2 comparisons, not in Adq of FGSM at ε 0.3 (0.40 against 0.40);" in summary.findings(rows)[0].text

    l0 = {"luring": [1, 2, 300, 400, 500], "auto": [1, 2, 310, 400, 500]}
    rows = [transfer(name, 0, None, None, attack="pgd", l0=numbers) for name, numbers in l0.items()]
    assert "not in PGD at ε 0.3 (300 against 310); by −10 on average" in summary.findings(rows)[0].text
    assert summary.findings([r | {"dataset": "svhn"} for r in rows]) == []

    shares = {("luring", 1): 0.5, ("luring", 2): 0.7, ("auto", 1): 0.2, ("auto", 2): None}
    rows = [row("gradient", name, index=index, background=share) for (name, index), share in shares.items()]
    (finding,) = summary.findings(rows)
    assert (finding.verdict, "0.60" in finding.text, "0.20" in finding.text) == ("holds", True, True)


def test_what_was_run():
    rows = [
        accuracy("base", 0.99, None) | {"n": 10000},
        transfer("luring", 0, 0.5, 0.5),
        transfer("luring", 0, 0.5, 0.5, seed=1, n=900),
    ]
    assert summary.ran(rows) == (
        "Base (M) and Luring; test accuracy on 10,000 images; MIM at ε 0.3, crafted on M∘P and shown to M, "
        "on 900 to 1,000 images; 2 seeds."
    )


def test_one_table_of_all_claims():
    sections = [as_papers(), as_papers(dataset="svhn")]
    found = summary.overview([summary.findings(rows) for rows in sections])
    assert len({line.claim for line in found}) == len(found)
    first = found[0]
    assert first.claim == "DAC is higher with Luring than with C_E"
    assert {place: finding.by.split(",")[0] for place, finding in first.verdicts.items()} == {
        0: "14 of 14",
        1: "14 of 14",
    }
