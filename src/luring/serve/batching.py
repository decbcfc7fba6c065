"""Requests answered together: what came in while the network was busy makes the next batch."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic

import numpy as np

Answers = dict[str, np.ndarray]
"""By name, one row an image."""


class BusyError(Exception):
    """More is waiting than can be answered in time."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"busy: try again in {seconds} s.")
        self.seconds = seconds


@dataclass(eq=False)
class _Waiting:
    images: np.ndarray
    answer: asyncio.Future[Answers]


class Batcher:
    """One network, asked for one batch at a time in a thread of its own."""

    def __init__(
        self,
        network: Callable[[np.ndarray], Answers],
        *,
        batch: int,
        queue: int,
        seconds: float,
        seen: Callable[[int], None],
    ) -> None:
        """Nothing is asked before `start`.

        Args:
            network: images, [n, channels, height, width] float32, to its answers.
            batch: images at most in a batch, and in a request.
            queue: images waiting at most.
            seconds: a request may take: what would wait for more than half of them is refused.
            seen: told the size of each batch.
        """
        self.network, self.batch, self.queue, self.seconds, self.seen = network, batch, queue, seconds, seen
        self.waiting: deque[_Waiting] = deque()
        self.held = 0
        self.pace = 0.0
        self.thread = ThreadPoolExecutor(1, "network")
        self.arrived = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to answer, in the running event loop."""
        self.task = asyncio.create_task(self._answer_all())

    async def stop(self) -> None:
        """Answer what is waiting, and end."""
        while self.held:
            await asyncio.sleep(0.01)
        if self.task is not None:
            self.task.cancel()
        self.thread.shutdown()

    def working(self) -> bool:
        """Whether requests are being answered."""
        return self.task is not None and not self.task.done()

    async def ask(self, images: np.ndarray) -> Answers:
        """The network's answers to the images of one request.

        Raises:
            BusyError: too much is waiting.
            TimeoutError: the time was over before an answer came.
        """
        ahead = self.held * self.pace
        if self.held + len(images) > self.queue or ahead > self.seconds / 2:
            raise BusyError(max(1, math.ceil(ahead)))
        one = _Waiting(images, asyncio.get_running_loop().create_future())
        self.waiting.append(one)
        self.held += len(images)
        self.arrived.set()
        async with asyncio.timeout(self.seconds):
            return await one.answer

    async def _answer_all(self) -> None:
        while True:
            await self.arrived.wait()
            taken = self._take()
            if not taken:
                self.arrived.clear()
                continue
            n = sum(len(one.images) for one in taken)
            started = monotonic()
            try:
                found = await asyncio.get_running_loop().run_in_executor(self.thread, self._together, taken)
            except Exception as error:  # whatever a network may raise belongs to the requests of this batch alone
                for one in taken:
                    if not one.answer.done():
                        one.answer.set_exception(error)
            else:
                for one, answers in zip(taken, found, strict=True):
                    if not one.answer.done():
                        one.answer.set_result(answers)
            finally:
                self.held -= n
            each = (monotonic() - started) / n
            self.pace = each if not self.pace else 0.8 * self.pace + 0.2 * each
            self.seen(n)

    def _take(self) -> list[_Waiting]:
        """The requests that have waited longest, as many as a batch holds; those that gave up are dropped."""
        taken: list[_Waiting] = []
        room = self.batch
        while self.waiting and len(self.waiting[0].images) <= room:
            one = self.waiting.popleft()
            if one.answer.done():
                self.held -= len(one.images)
                continue
            taken.append(one)
            room -= len(one.images)
        return taken

    def _together(self, taken: list[_Waiting]) -> list[Answers]:
        found = self.network(np.concatenate([one.images for one in taken]))
        ends = np.cumsum([len(one.images) for one in taken])[:-1]
        parts = {name: np.split(values, ends) for name, values in found.items()}
        return [{name: values[place] for name, values in parts.items()} for place in range(len(taken))]
