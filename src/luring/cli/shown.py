"""What a command shows in the end: page, tables, findings."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from luring.cli.app import say


def show(rows: list[dict[str, object]], folder: Path) -> None:
    """Write the page, print the tables and the findings, and say where the page is."""
    from luring.paper import printed, report, summary, tables

    report.write(rows, folder / "report.html", title="Luring of adversarial perturbations, recomputed")
    console = Console()
    console.print(printed.terminal(rows))
    for section in tables.sections(rows):
        found = summary.findings(section)
        for line in [summary.verdicts(found)] * bool(found) + [
            f"{finding.verdict}: {finding.text}" for finding in found
        ]:
            console.print(escape(line), highlight=False)
    say(f"\nThe page is {(folder / 'report.html').resolve()}")
