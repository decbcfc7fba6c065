import html
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import matplotlib as mpl
import pytest

from luring.paper import figures, tables


def effect(architecture, attack, eps, dr, adq=0.3, seed=0):
    return {
        "kind": "effect",
        "architecture": architecture,
        "attack": attack,
        "eps": eps,
        "dr": dr,
        "adq": adq,
        "seed": seed,
    }


def transfer(architecture, attack, eps, l0, seed=0):
    fields = {"kind": "transfer", "dataset": "digits", "scale": "demo", "ac_mop": 0.0, "ac_m": 0.5, "dac": 0.5}
    return fields | {"architecture": architecture, "attack": attack, "eps": eps, "l0": l0, "seed": seed, "settings": {}}


def parsed(svg):
    return ET.fromstring(svg)


def texts(svg):
    return ["".join(node.itertext()).strip() for node in parsed(svg).iter() if node.tag.endswith("text")]


def effects(**fields):
    names = ("stack", "auto", "c_e", "luring")
    return [effect(n, a, e, 0.5, **fields) for a in ("mim", "fgsm") for e in (0.3, 0.4, 0.5) for n in names]


def test_figure_4_has_a_panel_for_each_attack():
    found = figures.effect(effects())
    assert [next(text for text in texts(svg) if text in ("FGSM", "MIM")) for svg in found] == ["FGSM", "MIM"]
    for svg in found:
        assert {"0.3", "0.4", "0.5", "ε", "rate"} <= set(texts(svg))
        assert all(svg.lower().count(figures.style(name)[0].lower()) > 0 for name in ("stack", "auto", "c_e", "luring"))
        assert "stroke-dasharray" in svg
    assert figures.effect([]) == []


def test_the_height_of_a_point_is_its_rate():
    def heights(dr, adq):
        (svg,) = figures.effect([effect("luring", "fgsm", 0.3, dr, adq), effect("luring", "fgsm", 0.4, dr, adq)])
        colour = figures.style("luring")[0].lower()
        return [
            float(re.search(r"M \S+ (\S+)", node.get("d"))[1])
            for node in parsed(svg).iter()
            if node.tag.endswith("path") and colour in node.get("style", "") and "L" in node.get("d")
            if "stroke-width: 1.6" in node.get("style")
        ]

    one, quarter = heights(1.0, 0.25)
    half, zero = heights(0.5, 0.0)
    assert (half - one) / (zero - one) == pytest.approx(0.5, abs=1e-3)
    assert (quarter - one) / (zero - one) == pytest.approx(0.75, abs=1e-3)


def test_missing_rates_and_one_radius_are_drawn_without_a_word():
    rows = [
        effect("luring", "fgsm", 0.3, None, None),
        effect("stack", "fgsm", 0.4, 0.5),
        effect("stack", "pgd", 0.1, 0.5),
    ]
    assert len(figures.effect(rows)) == 2


def test_several_seeds():
    assert figures.effect(effects() + effects(seed=1)) != figures.effect(effects())


def test_same_rows_same_bytes_and_settings_left_alone():
    before = dict(mpl.rcParams)
    rows = effects()
    assert figures.effect(rows) == figures.effect(rows)
    box = [transfer("luring", "pgd", 0.3, [1, 2, 3, 4, 5])]
    assert figures.distortion(box) == figures.distortion(box)
    assert dict(mpl.rcParams) == before


def test_figures_refer_to_nothing_outside_and_share_no_id():
    drawn = [*figures.effect(effects()), figures.distortion([transfer("luring", "pgd", 0.3, [1, 2, 3, 4, 5])])]
    ids = [name for svg in drawn for name in re.findall(r'\sid="([^"]*)"', svg)]
    assert len(ids) == len(set(ids))
    for svg in drawn:
        assert "<metadata" not in svg
        assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', svg))
        assert "currentColor" in svg
        assert "#010203" not in svg


def test_figure_5_is_pgds_and_mims_where_there_is_none():
    five = [10, 20, 30, 40, 50]
    pgd, mim = transfer("luring", "pgd", 0.3, five), transfer("luring", "mim", 0.3, five)
    assert "PGD: values of an image changed" in texts(figures.distortion([mim, pgd]))
    assert "MIM: values of an image changed" in texts(figures.distortion([mim, transfer("luring", "fgsm", 0.3, five)]))
    assert figures.distortion([transfer("luring", "fgsm", 0.3, five), transfer("luring", "mim", 0.3, None)]) is None


def test_five_numbers_are_means_over_seeds():
    rows = [transfer("luring", "pgd", 0.3, [0, 1, 2, 3, 4]), transfer("luring", "pgd", 0.3, [2, 3, 4, 5, 6], seed=1)]
    (line,) = tables.distortion(rows)
    assert [value.mean for value in line.cells["luring"].values()] == [1, 2, 3, 4, 5]


def test_convergence():
    row = transfer("luring", "mim", 0.3, None) | {"n": 60, "settings": {"steps": 100}}
    more = [row | {"kind": "convergence", "settings": {"steps": steps}} for steps in (10, 1000, 5000)]
    ((attack, eps, lines),) = tables.convergence([row, *more])
    svg = figures.convergence(attack, eps, lines)
    assert {"10", "100", "1000", "5000", "MIM at ε 0.3"} <= set(texts(svg))
    assert svg == figures.convergence(attack, eps, lines)
    ((attack, eps, lines),) = tables.convergence([more[0]])
    assert "10" in texts(figures.convergence(attack, eps, lines))


def test_a_name_is_escaped_in_the_label():
    class Labels(HTMLParser):
        found = ""

        def handle_starttag(self, tag, attrs):
            if tag == "svg":
                self.found = dict(attrs)["aria-label"]

    hostile = '"><script>x</script>'
    (svg,) = figures.effect([effect("luring", hostile, 0.3, 0.5)])
    labels = Labels()
    labels.feed(svg)
    assert labels.found.startswith(hostile)
    assert "<script>" not in svg
    assert html.escape(hostile) in svg


def test_architectures_differ_in_colour_and_in_marker():
    for part in range(3):
        assert (
            len({figures.style(name)[part] for name in (*figures.STYLES, "mine")} - {"#777777"})
            >= len(figures.STYLES) - 1
        )
