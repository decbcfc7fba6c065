"""Being told to stop, as schedulers do before they take a machine away: SIGTERM, or SIGUSR1."""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))

LOST = 75
"""Exit code where another process of the run was lost: EX_TEMPFAIL of sysexits.h, 'try again'."""


class Stopped(SystemExit):
    """Work that was ended from outside before it was done; what it saved stays, and the same command goes on.

    Uncaught it ends the process with `code`: 128 and the signal's number (143 for SIGTERM, 138 for SIGUSR1 on Linux), or 75.

    Attributes:
        sentence: what happened, for whoever reads the log.
    """

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(code)
        self.sentence = sentence


@contextmanager
def at_once() -> Generator[None]:
    """Signals raise `Stopped` wherever the work is, so that unfinished files are cleaned up; for work that cannot wait for a good moment."""
    with _handling(_raise):
        yield


@contextmanager
def waiting() -> Generator[Callable[[], int]]:
    """Signals are noted, for work that looks now and then whether it should end; one that came too late for that is obeyed afterwards.

    Yields:
        A function that gives the number of the signal that came, 0 for none.
    """
    came = 0

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal came
        came = number

    with _handling(note):
        yield lambda: came
    if came:
        signal.raise_signal(came)


def stopped(number: int, after: str) -> Stopped:
    """The exception for a signal; `after` says how far the work is."""
    return Stopped(
        f"stopped by {signal.Signals(number).name} {after}; the same command goes on from there.", 128 + number
    )


def _raise(number: int, _frame: FrameType | None) -> None:
    raise stopped(number, "between two pieces of work")


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Generator[None]:
    """The signals handled this way. A handler that somebody else set stays, and only the main thread can set one."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ours = {number: old for number, old in before.items() if old in (signal.SIG_DFL, _raise)}
    if threading.current_thread() is not threading.main_thread():
        ours = {}
    for number in ours:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in ours.items():
            signal.signal(number, old)
