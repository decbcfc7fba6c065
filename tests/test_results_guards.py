"""The stored rows of audits and of the guard say what the pages claim."""

import statistics
from pathlib import Path

import pytest

from luring import rows
from luring.audit.defence import FOOLED
from luring.audit.tables import architectures, worst
from luring.paper import tables

RESULTS = Path(__file__).parents[1] / "results"


@pytest.mark.parametrize(
    ("folder", "scale", "seed", "past"),
    [
        ("mnist-audit", "full", 0, [0.05, 0, 0.54, 0.85, 1, 1]),
        ("mnist-narrow-audit", "full", 0, [0.267, 0, 0.975, 0.975, 1, 1]),
        ("mnist-strong-audit", "full", 0, [0, 0, 0.45, 0.217, 1, 0.95]),
        ("mnist-strong-audit", "quick", 0, [0, 0, 0.225, 0.2, 1, 0]),
        ("mnist-strong-audit", "quick", 1, [0, 0.05, 0.225, 0.2875, 1, 0.15]),
        ("mnist-strong-audit", "quick", 2, [0, 0, 0.2375, 0.2875, 1, 0]),
        ("mnist-annealed-audit", "quick", 0, [0, 0, 0.2, 0.125, 1, 0]),
        ("cifar10-audit", "quick", 0, [0.4875, 0.1, 0.3375, 0.7375, 1, 0.1]),
        ("cifar10-turned-audit", "quick", 0, [0, 0.1, 0.1875, 0.675, 1, 0.1]),
    ],
)
def test_what_each_adversary_gets_past_the_score(folder, scale, seed, past):
    run = rows.select(rows.read(RESULTS / folder / "rows.jsonl"), scale=scale, seed=seed)
    found = rows.select(run, kind="audit", architecture=architectures(run)[0])
    fooled = [float((worst(found, (rung,), "score") == FOOLED).mean()) for rung in (1, 2, 3, 4, 5, 6)]
    assert fooled == pytest.approx(past, abs=0.005)


@pytest.mark.parametrize(
    "folder",
    [
        "mnist-audit",
        "mnist-narrow-audit",
        "mnist-strong-audit",
        "mnist-annealed-audit",
        "cifar10-audit",
        "cifar10-turned-audit",
        "digits-audit",
    ],
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
