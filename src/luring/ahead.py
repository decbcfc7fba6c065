"""Pieces that are needed one after the other, fetched while the ones before are worked on."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

Key = TypeVar("Key")
Piece = TypeVar("Piece")

DEPTH = 4
"""Pieces under way at a time, in as many threads: a disk answers several questions in the time of one."""


@dataclass
class Fetched(Generic[Piece]):
    """What `fetched` yields: call `next`, and see in `waited` how many seconds all calls took."""

    take: Callable[[], Piece]
    waited: float = 0.0

    def next(self) -> Piece:
        """The next piece."""
        start = time.perf_counter()
        piece = self.take()
        self.waited += time.perf_counter() - start
        return piece


@contextmanager
def fetched(fetch: Callable[[Key], Piece], keys: Iterator[Key], *, ahead: bool) -> Generator[Fetched[Piece]]:
    """The pieces of all keys, in their order.

    Args:
        fetch: gives the piece of a key.
        keys: one a piece, never at an end.
        ahead: fetch in threads, before a piece is asked for; not worth it for what already lies in memory.
    """
    if not ahead:
        yield Fetched(lambda: fetch(next(keys)))
        return
    with ThreadPoolExecutor(DEPTH, thread_name_prefix="luring-fetch") as threads:
        pending: deque[Future[Piece]] = deque(threads.submit(fetch, key) for key in islice(keys, DEPTH))

        def take() -> Piece:
            piece = pending.popleft().result()
            pending.append(threads.submit(fetch, next(keys)))
            return piece

        try:
            yield Fetched(take)
        finally:
            for future in pending:
                future.cancel()
