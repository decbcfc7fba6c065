import re
from pathlib import Path

from luring import rows
from luring.paper import printed

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_runs_and_shows_the_effect(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(example, {})
    measured = eval(capsys.readouterr().out)
    assert measured["ac_mop"] <= 0.1
    assert measured["dac"] >= 0.6


def test_ci_runs_the_second_command():
    first, second = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)[:2]
    assert first == "sh scripts/demo"
    assert second in (ROOT / ".ci/run").read_text().splitlines()


def test_the_table_is_drawn_from_the_stored_rows():
    shown = README.split("<!-- demo -->\n")[1].split("<!-- /demo -->")[0]
    assert shown.strip() == printed.markdown(rows.read(ROOT / "results/digits/rows.jsonl")).strip()
