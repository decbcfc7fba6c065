# ruff: noqa: RUF001 - the dash and the minus sign are what is shown
import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from luring.errors import InputError
from luring.paper import figures, report

ARCHITECTURES = ("stack", "auto", "c_e", "luring")
VOID = {"meta", "img", "br", "link", "input", "hr"}


def png(grey):
    drawn = io.BytesIO()
    Image.new("L", (4, 4), grey).save(drawn, "PNG")
    return base64.b64encode(drawn.getvalue()).decode()


def make(seeds=(0,), dataset="mnist", scale="quick", classes=tuple("0123456789")):
    """Rows of every kind."""
    rows = []
    for seed in seeds:
        common = {
            "dataset": dataset,
            "scale": scale,
            "seed": seed,
            "n": 1000,
            "settings": {"steps": 100, "note": "as <given>"},
            "seconds": 60.0,
            "commit": "abc123-dirty",
            "versions": {"luring": "0.1.0", "torch": "2.13.0", "datasets": None},
            "hardware": {"cpu": "Some CPU", "cores": 2, "gpu": None},
            "date": f"2026-01-0{seed + 1}",
        }

        def add(kind, architecture, common=common, **fields):
            rows.append(common | {"kind": kind, "architecture": architecture} | fields)

        add("accuracy", "base", test_accuracy=0.99, agreement=None, disagreement=None, weights="f" * 64)
        for place, name in enumerate(ARCHITECTURES):
            add(
                "accuracy",
                name,
                test_accuracy=0.95 + 0.01 * place,
                agreement=0.965,
                disagreement=0.02,
                weights="f" * 64,
            )
            for attack in ("fgsm", "pgd", "mim", "dim"):
                for eps in (0.3, 0.4, 0.5):
                    ac_m = round(0.9 - eps + 0.1 * place + 0.01 * seed, 3)
                    tried = [
                        {
                            "settings": {"probability": p, "kernel": 3},
                            "n": 1000,
                            "ac_mop": 0.0,
                            "ac_m": ac_m + lost,
                            "dac": None,
                        }
                        for p, lost in ((0.1, 0.002), (0.6, 0.0), (1.0, 0.001))
                    ]
                    rates = {"ac_mop": 0.0, "ac_m": ac_m, "dac": None if attack == "pgd" else ac_m + 0.05}
                    add(
                        "transfer",
                        name,
                        attack=attack,
                        eps=eps,
                        **rates,
                        l0=[100, 200, 300 + place, 400, 500],
                        **({"tried": tried} if attack == "dim" else {}),
                    )
                    if attack != "dim":
                        add("effect", name, attack=attack, eps=eps, dr=0.5 + 0.1 * place, adq=0.4, of=1000)
            rates = {"ac_mop": 0.0, "ac_m": 0.123, "dac": 0.456}
            add("convergence", name, attack="mim", eps=0.3, **rates, settings={"steps": 1000})
            picture = {"x": png(0), "p_x": png(1), "x_adv": png(2), "p_x_adv": png(3), "perturbation": png(4)}
            labels = {"x": [7, 7], "x_adv": [7, 3]}
            at = {"index": 17, "label": 7, "classes": list(classes)}
            add("picture", name, attack="mim", eps=0.3, **at, images=picture, labels=labels)
            add("gradient", name, **at, images={"x": png(0), "gradient": png(9)}, background=0.1 * place or None)
    return rows


class Page(HTMLParser):
    """The page's text, its elements, and whether every element is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += f" {data.strip()}" if data.strip() else ""


def draw(rows, tmp_path, title="A title"):
    out = tmp_path / "report.html"
    report.write(rows, out, title=title)
    return out.read_text(encoding="utf-8")


def test_every_part_stands_in_the_page(tmp_path):
    text = draw(make(), tmp_path)
    page = Page(text)
    assert re.findall(r"<(h[1-3])[^>]*>([^<]*)</h", text) == [
        ("h1", "A title"),
        ("h2", "In short"),
        ("h3", "MNIST, quick scale"),
        ("h2", "MNIST, quick scale"),
        ("h3", "Test accuracy and agreement (Table 1)"),
        ("h3", "Transfer of adversarial examples to M (Table 2)"),
        ("h3", "More steps"),
        ("h3", "Detection and adequation (Figure 4)"),
        ("h3", "Distortion (Figure 5)"),
        ("h3", "What P looks at (Figure 6)"),
        ("h3", "Examples"),
        ("h3", "The adversary's search"),
        ("h3", "Settings"),
        ("h2", "What this defence does not protect against"),
        ("h2", "How it was run"),
    ]
    assert sum(tag == "svg" and attrs.get("role") == "img" for tag, attrs in page.elements) == 1 + 3 + 1
    assert all(attrs.get("alt") for tag, attrs in page.elements if tag == "img")
    for fact in ("abc123-dirty", "torch 2.13.0", "cpu Some CPU, cores 2", "2026-01-01", "transfer: 1,000 images"):
        assert fact in page.text


def test_figures_of_the_rows_stand_in_the_tables(tmp_path):
    text = draw(make(), tmp_path)
    luring = re.search(r'<tr><th scope="row">[^/]*</span> Luring</th>(.*?)</tr>', text, re.DOTALL)
    assert re.findall(r">([^<>\s][^<>]*)<", luring[1]) == [
        "0.980",
        "0.974",
        "+0.006",
        "0.965",
        "0.969",
        "−0.004",
        "0.020",
    ]
    auto = re.search(r'<tr><th scope="row">[^/]*</span> Auto</th>(.*?)</tr>', text, re.DOTALL)
    assert re.findall(r">([^<>\s][^<>]*)<", auto[1])[:3] == ["0.960", "0.971", "▼ −0.011"]
    # MIM at 0.3: AC_M 0.60 (paper 0.59), ... 0.90 (0.90); DAC 0.65 (0.66), ... 0.95 (0.94), the best
    mim = re.search(r'>MIM</span> <span class="eps">0.3</span>(.*?)</tr>', text, re.DOTALL)
    cells = [re.findall(r">([^<>\s][^<>]*)<", cell) for cell in re.findall(r"<td.*?/td>", mim[1], re.DOTALL)]
    assert cells[:3] == [["0.00", "0.00"], ["0.60", "0.59"], ["0.65", "0.66"]]
    assert cells[6:9] == [["0.00", "0.00"], ["0.80", "0.80"], ["0.85", "0.85"]]
    assert cells[9:] == [["0.00", "0.11"], ["0.90", "0.90"], ["0.95", "0.94"]]
    assert mim[1].count('class="best"') == 1
    assert "#s1-steps-1" in mim[1]
    assert 'id="s1-steps-1"' in text


def test_missing_figures_are_dashes(tmp_path):
    text = draw(make(), tmp_path)
    pgd = re.search(r'>PGD</span> <span class="eps">0.3</span>(.*?)</tr>', text, re.DOTALL)
    cells = [re.findall(r">([^<>\s][^<>]*)<", cell) for cell in re.findall(r"<td.*?/td>", pgd[1], re.DOTALL)]
    assert [cell[0] for cell in cells[2::3]] == ["–"] * 4
    assert "best" not in pgd[1]
    assert all(len(cell) == 1 for cell in cells)  # the paper has no PGD
    fgsm = re.search(r'>FGSM</span> <span class="eps">0.3</span>(.*?)</tr>', text, re.DOTALL)
    cells = [re.findall(r">([^<>\s][^<>]*)<", cell) for cell in re.findall(r"<td.*?/td>", fgsm[1], re.DOTALL)]
    assert [cell[1] for cell in cells[9:]] == ["0.52", "–", "–"]
    assert "nan" not in Page(text).text.lower()


def test_an_architecture_without_a_cell_is_a_dash(tmp_path):
    rows = [
        r
        for r in make()
        if not (r["kind"] in ("transfer", "effect") and r["architecture"] == "auto" and r["eps"] == 0.4)
    ]
    page = Page(draw(rows, tmp_path))
    assert "0.50 / 0.40 – 0.70 / 0.40" in page.text


def test_differences_are_marked_in_words_that_need_no_colour(tmp_path):
    rows = [row for row in make() if row["kind"] == "transfer"]
    text = draw(rows, tmp_path)
    mim = re.search(r'>MIM</span> <span class="eps">0.5</span>(.*?)</tr>', text, re.DOTALL)
    assert "short" not in mim[1]  # everything is above the paper
    rows = [row | {"ac_m": 0.04, "dac": 0.66} for row in rows]
    text = draw(rows, tmp_path)
    mim = re.search(r'>MIM</span> <span class="eps">0.5</span>(.*?)</tr>', text, re.DOTALL)
    assert re.findall(r'class="paper short">([^<]*)<', mim[1]) == ["▼ 0.10", "▼ 0.10", "▼ 0.28", "▼ 0.46"]


def test_several_seeds_and_sections(tmp_path):
    rows = make(seeds=(0, 1)) + make(dataset="digits", scale="demo")
    text = draw(rows, tmp_path)
    page = Page(text)
    assert "Mean ± standard deviation over 2 seeds." in page.text
    assert "0.61 ± 0.01" in page.text  # 0.60 and 0.61: 0.605, half up; spread 0.0071
    assert "means over the seeds" in page.text
    assert "Digits, demo scale" in page.text
    digits = text[text.index('<h2 id="s2"') : text.index('<h2 id="limits"')]
    assert "paper" not in re.sub(r"<[^>]*>", " ", digits)
    assert "2026-01-01 to 2026-01-02" in page.text


@pytest.mark.parametrize(
    ("kind", "heading"),
    [
        ("accuracy", "(Table 1)"),
        ("transfer", "(Table 2)"),
        ("effect", "(Figure 4)"),
        ("gradient", "(Figure 6)"),
        ("picture", "Examples"),
        ("convergence", "More steps"),
    ],
)
def test_parts_without_rows_are_left_out(kind, heading, tmp_path):
    rows = make()
    without = draw([row for row in rows if row["kind"] != kind], tmp_path)
    alone = draw([row for row in rows if row["kind"] == kind], tmp_path)
    assert heading not in Page(without).text
    assert heading in Page(alone).text


def test_without_luring_nothing_is_claimed(tmp_path):
    assert "None of the paper's claims can be checked" in Page(draw(make()[:1], tmp_path)).text


def test_labels_under_the_pictures(tmp_path):
    rows = [row for row in make(classes=[f"class {n}" for n in range(10)]) if row["kind"] == "picture"]
    page = Page(draw(rows[-1:], tmp_path))
    expected = (
        "x M: class 7 M∘P: class 7 P(x) M: class 7 x\N{PRIME} M: class 7 M∘P: class 3 ✗ "
        "P(x\N{PRIME}) M: class 3 ✗ x\N{PRIME} − x Settings"
    )
    assert expected in page.text
    assert "image-rendering: pixelated" in draw(rows, tmp_path)


def test_pictures_without_a_lure(tmp_path):
    (row,) = [row for row in make() if row["kind"] == "picture" and row["architecture"] == "luring"]
    rows = [row | {"images": {key: row["images"][key] for key in ("x", "x_adv")}}]
    page = Page(draw(rows, tmp_path))
    assert sum(tag == "img" for tag, _ in page.elements) == 2


def test_the_search_names_what_differs_and_what_was_used(tmp_path):
    page = Page(draw(make(), tmp_path))
    assert "probability 0.6 ← used" in page.text
    assert page.text.count("← used") == 4 * 3
    assert "kernel 3" not in page.text
    (row,) = [r for r in make() if r.get("tried") and r["architecture"] == "luring" and r["eps"] == 0.3]
    page = Page(draw([row | {"tried": row["tried"][:1]}], tmp_path))
    assert "probability 0.1, kernel 3 ← used" in page.text


def test_hostile_names_are_text(tmp_path):
    hostile = '"><script>alert(1)</script>'
    rows = [row | {"dataset": hostile, "scale": hostile, "commit": hostile} for row in make(classes=[hostile] * 10)]
    rows = [row | ({"attack": hostile} if "attack" in row else {}) for row in rows]
    rows = [row | ({"architecture": hostile} if row["architecture"] == "auto" else {}) for row in rows]
    text = draw(rows, tmp_path, title=hostile)
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.elements}
    assert hostile in page.text


def test_nothing_is_fetched(tmp_path):
    text = draw(make(), tmp_path)
    page = Page(text)
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "object", "embed", "base"})
    for _, attrs in page.elements:
        for name, value in attrs.items():
            if name in ("src", "href", "xlink:href", "srcset", "poster", "action", "data"):
                assert value.startswith(("#", "data:image/png;base64,"))
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)'\"]*)", text))
    assert "@import" not in text


def test_ids_are_unique_and_links_lead_somewhere(tmp_path):
    page = Page(draw(make() + make(scale="paper"), tmp_path))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {
        value
        for _, attrs in page.elements
        for name, value in attrs.items()
        if name.endswith("href") and value[0] == "#"
    }
    labels = {f"#{attrs['aria-labelledby']}" for _, attrs in page.elements if "aria-labelledby" in attrs}
    assert links | labels <= {f"#{name}" for name in ids}


def test_same_rows_same_bytes(tmp_path):
    first = draw(make(), tmp_path)
    assert draw(make(), tmp_path) == first


def test_no_rows(tmp_path):
    with pytest.raises(InputError, match="There are no rows to draw a report from"):
        report.write([], tmp_path / "report.html", title="A title")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_page(tmp_path, monkeypatch):
    old = draw(make()[:1], tmp_path)

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("luring.atomic.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        report.write(make(), tmp_path / "report.html", title="A title")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == old


def test_the_folder_is_made(tmp_path):
    report.write(make()[:1], tmp_path / "a" / "b" / "report.html", title="A title")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["report.html"]


def contrast(one, other):
    def luminance(colour):
        parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_aa_in_light_and_dark(tmp_path):
    schemes = re.findall(r":root \{(.*?)\}", draw(make(), tmp_path), re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        for text in ("text", "quiet", "link", "short", "good", "part"):
            for behind in ("page", "tint", "own"):
                assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)
        for name in ARCHITECTURES:
            assert contrast(figures.style(name)[0], colours["page"]) >= 3, name
