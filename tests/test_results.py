"""The stored rows say what the README and the pages claim."""

from pathlib import Path

import pytest

from luring import rows
from luring.paper import tables

RESULTS = Path(__file__).parents[1] / "results"


@pytest.mark.parametrize("seed", range(5))
def test_digits_luring_beats_c_e_at_little_cost(seed):
    found = rows.select(rows.read(RESULTS / "digits/rows.jsonl"), seed=seed)
    accuracy = {row["architecture"]: row["test_accuracy"] for row in rows.select(found, kind="accuracy")}
    middle = {row["architecture"]: row for row in rows.select(found, kind="transfer", attack="mim", eps=0.2)}
    assert middle["luring"]["dac"] >= middle["c_e"]["dac"] + 0.25
    assert middle["luring"]["ac_mop"] <= 0.05
    assert accuracy["luring"] >= accuracy["base"] - 0.03


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
        assert len(tables.sections(rows.read(file))) == 1
        assert "Luring" in page
