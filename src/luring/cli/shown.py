"""What a command shows in the end: page, tables, findings."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from luring.cli.app import say


def show(rows: list[dict[str, object]], folder: Path) -> None:
    """Write the page, print the tables and the findings, and say where the page is; an audit's rows have a page of their own."""
    from luring.audit.tables import is_audit
    from luring.paper import printed, report, summary, tables, trials

    audited = [row for row in rows if is_audit(row)]
    rows = [row for row in rows if not is_audit(row)]
    if audited:
        _show_audit(audited, folder / ("audit.html" if rows else "report.html"))
    if audited and not rows:
        return
    report.write(rows, folder / "report.html", title="Luring of adversarial perturbations, recomputed")
    console = Console()
    console.print(printed.terminal(rows))
    for section in tables.sections(rows):
        found = summary.findings(section)
        for line in [summary.verdicts(found)] * bool(found) + [
            f"{finding.verdict}: {finding.text}" for finding in found
        ]:
            console.print(escape(line), highlight=False)
    if tried := [row for row in rows if row["scale"] == "research"]:
        say(trials.markdown(tried))
    say(f"\nThe page is {(folder / 'report.html').resolve()}")


def _show_audit(rows: list[dict[str, object]], file: Path) -> None:
    from luring.audit import page, printed

    page.write(rows, file)
    Console().print(printed.terminal(rows))
    say(f"\nThe page is {file.resolve()}")
