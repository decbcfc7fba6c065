"""What long work says of itself: a bar on a terminal, a line now and then in a log; always on standard error."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_EVERY = 30.0
"""Seconds between two lines where standard error is not a terminal."""


@contextmanager
def progress(what: str, total: int, *, done: int = 0, show: bool = True) -> Generator[Callable[[int, str], None]]:
    """Show how far a piece of work is.

    Args:
        what: its name.
        total: pieces in all.
        done: pieces done before.
        show: say anything at all.

    Yields:
        A function to call with the number of pieces just done and a note (a loss, a rate).
    """
    console = Console(stderr=True)
    if not show:
        yield lambda _pieces, _note: None
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total, completed=done, note="")
            yield lambda pieces, note: bar.update(task, advance=pieces, note=note)
    else:
        yield _lines(console, what, total, done)


def _lines(console: Console, what: str, total: int, done: int) -> Callable[[int, str], None]:
    start = last = time.monotonic()
    reached = done

    def advance(pieces: int, note: str) -> None:
        nonlocal reached, last
        reached += pieces
        now = time.monotonic()
        if now - last >= LINE_EVERY:
            last = now
            left = (now - start) / max(1, reached - done) * (total - reached)
            console.print(f"{what}: {reached} of {total}, {left:.0f} s left, {note}", soft_wrap=True, highlight=False)

    return advance
