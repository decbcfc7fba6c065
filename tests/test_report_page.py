"""The report's page, drawn from the stored rows, in a real Chromium."""

from pathlib import Path

import pytest

from browser import SIZES, chromium, opened, sideways, violations  # noqa: F401
from luring import rows
from luring.paper import report

RESULTS = Path(__file__).parents[1] / "results"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "report.html"
    report.write(rows.read(RESULTS / "digits/rows.jsonl"), out, title="Luring of adversarial perturbations, recomputed")
    return out


@pytest.mark.parametrize(("size", "scheme"), [("wide", "dark"), ("narrow", "light")])
def test_the_page_can_be_read_at_any_width(chromium, page_file, size, scheme):  # noqa: F811
    with opened(chromium, page_file.as_uri(), size, scheme) as (page, asked):
        assert sideways(page) == 0
        assert violations(page) == []
        # Every picture is there, and no line of text is cut off at the window's edge but in what scrolls by itself.
        assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth)")
        width = SIZES[size][0]
        beyond = page.evaluate(
            "width => [...document.querySelectorAll('p, li, dd, dt, h1, h2, h3, figure, figcaption, svg')]"
            ".filter(one => !one.closest('.scroll') && one.getBoundingClientRect().right > width + 1).map(one => one.outerHTML.slice(0, 99))",
            width,
        )
        assert beyond == []
        assert asked == []


def test_the_keyboard_reaches_contents_tables_and_what_is_folded(chromium, page_file):  # noqa: F811
    with opened(chromium, page_file.as_uri(), "narrow") as (page, _):
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.url.endswith("#s1")
        table = page.locator(".scroll").nth(1)
        for _ in range(20):
            page.keyboard.press("Tab")
            if table.evaluate("one => one === document.activeElement"):
                break
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        page.wait_for_function("document.activeElement.scrollLeft > 0")
        folded = page.locator("summary").first
        assert not folded.evaluate("one => one.parentElement.open")
        folded.focus()
        page.keyboard.press("Enter")
        assert folded.evaluate("one => one.parentElement.open")
        assert sideways(page) == 0
