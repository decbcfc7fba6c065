"""A real Chromium for the tests of pages; they are skipped, with the reason, where there is none."""

import os
import shutil
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZES = {"wide": (1280, 900), "narrow": (390, 844)}


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("there is no Chromium on PATH: apt-get install chromium")
    with playwright.sync_playwright() as running:
        try:
            # Chromium's sandbox does not run as root.
            browser = running.chromium.launch(executable_path=found, args=["--no-sandbox"] * (os.geteuid() == 0))
        except playwright.Error as error:  # Ubuntu's package is a stub that asks for a snap
            pytest.skip(f"{found} does not start: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@contextmanager
def opened(browser, url, size, scheme="light"):
    """A page, and a list of what it asked for beside its own server; nothing of that leaves the machine."""
    width, height = SIZES[size]
    own = url.split("/")[2] if url.startswith("http") else "nowhere"
    asked, wrong = [], []
    with browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    ) as context:
        context.set_default_timeout(120_000)

        def look(route):
            there = route.request.url
            if there.startswith(("data:", "blob:", "file:")) or there.split("/")[2] == own:
                route.continue_()
            else:
                asked.append(there)
                route.abort()

        context.route("**/*", look)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url)
        yield page, asked
        assert wrong == []


def violations(page):
    """What axe-core finds that is serious or worse: contrast (AA), names, roles, labels."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response
    assert any(rule["id"] == "color-contrast" for rule in found["passes"]), "contrast was looked at"
    return [
        (rule["id"], node["html"][:200], node.get("failureSummary"))
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def sideways(page):
    """By how many pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
