"""What long work says of itself: a bar on a terminal, a line now and then in a log; always on standard error."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_EVERY = 30.0
"""Seconds between two lines where standard error is not a terminal."""

BAR_EVERY = 0.1
"""Seconds between two movements of the bar on a terminal."""

Note: TypeAlias = str | Callable[[], str]
"""A loss, a rate; a function is called only when it is shown."""


@contextmanager
def progress(what: str, total: int, *, done: int = 0, show: bool = True) -> Generator[Callable[[int, Note], None]]:
    """Show how far a piece of work is.

    Args:
        what: its name.
        total: pieces in all.
        done: pieces done before.
        show: say anything at all.

    Yields:
        A function to call with the number of pieces just done and a note (a loss, a rate).
    """
    if not show:
        yield lambda _pieces, _note: None
        return
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total, completed=done, note="")
            yield _now_and_then(
                lambda reached, _, note: bar.update(task, completed=reached, note=note), total, done, BAR_EVERY
            )
    else:

        def line(reached: int, per_piece: float, note: str) -> None:
            left = per_piece * (total - reached)
            said = f"{what}: {reached} of {total}, {left:.0f} s left" + (f", {note}" if note else "")
            console.print(said, soft_wrap=True, highlight=False)

        yield _now_and_then(line, total, done, LINE_EVERY)


def remark(sentence: str) -> None:
    """Say on standard error what should be known of work that is done."""
    Console(stderr=True).print(sentence, soft_wrap=True, highlight=False)


def _now_and_then(
    show: Callable[[int, float, str], None], total: int, done: int, every: float
) -> Callable[[int, Note], None]:
    """A function to call after each piece that shows pieces, seconds a piece and note at most every so many seconds."""
    start = last = time.monotonic()
    reached = done

    def advance(pieces: int, note: Note) -> None:
        nonlocal reached, last
        reached += pieces
        now = time.monotonic()
        if now - last >= every or (every == BAR_EVERY and reached == total):
            last = now
            show(reached, (now - start) / max(1, reached - done), note if isinstance(note, str) else note())

    return advance
