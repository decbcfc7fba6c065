import re
import runpy
from pathlib import Path

import pytest
import torch

from luring import rows
from luring.audit import printed as audited
from luring.paper import printed, trials

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_example_runs_and_shows_the_effect(capsys):
    exec(EXAMPLES[0], {})
    measured = eval(capsys.readouterr().out)
    assert measured["ac_mop"] <= 0.1
    assert measured["dac"] >= 0.6


def test_the_attacks_run_alone():
    x, y = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3])
    weight = torch.randn(5, 192, generator=torch.Generator().manual_seed(1))
    given = {"model": lambda images: images.flatten(1) @ weight.T, "x": x, "y": y}
    exec(EXAMPLES[1], given)
    assert (given["examples"] - x).abs().max() <= 8 / 255 + 1e-6
    assert given["asked"].queries.max() <= 500
    assert given["worst"].fooled.tolist() == (given["model"](given["worst"].images).argmax(1) != y).tolist()


def test_ci_runs_the_second_command():
    first, second = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)[:2]
    assert first == "sh scripts/demo"
    assert second in (ROOT / ".ci/run").read_text().splitlines()


def test_the_table_is_drawn_from_the_stored_rows():
    shown = README.split("<!-- demo -->\n")[1].split("<!-- /demo -->")[0]
    assert shown.strip() == printed.markdown(rows.read(ROOT / "results/digits/rows.jsonl")).strip()


def test_the_audits_tables_are_drawn_from_the_stored_rows():
    for folder, text in (("mnist-audit", README), ("digits-audit", (ROOT / "docs/audit.md").read_text())):
        shown = text.split("<!-- audit -->\n")[1].split("<!-- /audit -->")[0]
        assert shown.strip() == audited.markdown(rows.read(ROOT / f"results/{folder}/rows.jsonl")).strip()


@pytest.mark.parametrize(
    ("table", "page", "mark"),
    [
        ("markdown", "attacks", "benchmark"),
        ("fitting", "training", "fitting"),
        ("step_costs", "research", "steps"),
        ("serving", "serving", "serving"),
        ("exported", "export", "exported"),
    ],
)
def test_the_tables_of_benchmarks_are_drawn_from_the_stored_rows(table, page, mark):
    drawn = runpy.run_path(str(ROOT / "benchmarks/table.py"))[table](rows.read(ROOT / "benchmarks/rows.jsonl"))
    shown = (ROOT / f"docs/{page}.md").read_text().split(f"<!-- {mark} -->\n")[1].split(f"<!-- /{mark} -->")[0]
    assert shown.strip() == drawn.strip()


def test_the_table_of_classifiers_is_drawn_from_the_stored_rows():
    drawn = runpy.run_path(str(ROOT / "benchmarks/table.py"))["classifiers"](ROOT / "results/classifiers")
    shown = (
        (ROOT / "results/README.md").read_text().split("<!-- classifiers -->\n")[1].split("<!-- /classifiers -->")[0]
    )
    assert shown.strip() == drawn.strip()


@pytest.mark.parametrize(
    ("mark", "folders"),
    [
        ("research", ("research-mnist", "research-digits")),
        ("research-cifar10", ("research-cifar10",)),
        ("research-cifar10-strong", ("research-cifar10-strong",)),
    ],
)
def test_the_trials_are_drawn_from_the_stored_rows(mark, folders):
    shown = (ROOT / "docs/research.md").read_text().split(f"<!-- {mark} -->\n")[1].split(f"<!-- /{mark} -->")[0]
    found = [row for folder in folders for row in rows.read(ROOT / f"results/{folder}/rows.jsonl")]
    assert shown.strip() == trials.markdown(found).strip()
