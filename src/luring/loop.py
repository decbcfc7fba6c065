"""The loop that classifiers and lures are trained by, in one process or several.

Its state is a file, its data order and its learning rate are functions of seed and step, so a run that was killed goes on and ends with the weights of
one that was not. See `docs/training.md`.
"""

import json
import math
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from luring import answers, average, rooms, stopping
from luring.ahead import fetched
from luring.errors import InputError
from luring.processes import Processes
from luring.progress import progress, remark
from luring.schedule import Schedule, emulated
from luring.state import Reached
from luring.state import load as _load
from luring.state import save as _save

Log: TypeAlias = Callable[[Mapping[str, float], int], None]
"""What is told of a run as it goes: values by name, and after how many steps."""

SAVE_EVERY = 20.0
"""Seconds between two saved states: what a kill can cost."""

FELL = 0.1
"""How far the score at the end is under the best one where a fit is said to have diverged."""

LOOK_EVERY = 16
"""Steps after which a GPU is asked for the loss; more often it would wait for the answer. On the CPU each step's loss is looked at."""


@dataclass(frozen=True)
class Fitted:
    """What a fit reached.

    Attributes:
        score: of the state that was kept, on the validation images: accuracy for a classifier, agreement with the target for a
            lure, minus the loss for `auto`.
        step: after how many steps that was.
        seconds: time spent training in this process (not what earlier, stopped runs spent).
        images_per_second: of all processes together, in that time.
        waiting: share of that time spent waiting for images, from 0 to 1.
    """

    score: float
    step: int
    seconds: float
    images_per_second: float
    waiting: float


def run(
    crew: Processes,
    network: nn.Module,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor],
    score: Callable[[], tuple[float, dict[str, float]]],
    images: Tensor,
    schedule: Schedule,
    seed: int,
    state: Path | None,
    identity: Mapping[str, object],
    show: bool,
    log: Log | None,
) -> Fitted:
    """The loop: `loss` of some images and their indices down, the state with the best `score` kept."""
    schedule.check(len(images), crew.count)
    device = next(network.parameters()).device
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    settings, what = json.dumps(identity, sort_keys=True), f"fit {identity['fit']}"
    if show and crew.main and schedule.precision == "bfloat16" and emulated(device):
        remark(
            f"{what}: this processor does not compute in bfloat16 itself, and takes longer than in float32: begin again with --precision float32."
        )
    batch, steps = min(schedule.batch, len(images)), schedule.steps
    told = stopping.waiting() if state is not None else nullcontext(lambda: 0)
    with crew.together(kept(state)), _own_randomness(seed), told as signalled:
        net = crew.joined(network)
        adam = torch.optim.Adam(network.parameters(), lr=schedule.lr, betas=(0.9, schedule.beta2), fused=True)
        mean = average.start(network) if schedule.ema is not None else None
        reached = (
            _load(state, network, adam, settings, mean) if state is not None and _there(crew, state) else Reached()
        )
        first, done, order = reached.done, reached.done, _order(len(images), batch, seed, reached.done, images.device)
        started = saved = time.monotonic()

        def fetch(index: Tensor) -> list[tuple[Tensor, Tensor]]:
            own = index.tensor_split(crew.count)[crew.rank]
            return [
                (answers.prepare(_sent(images[part], device), network), _sent(part, device))
                for part in own.tensor_split(schedule.accumulate)
            ]

        def ended() -> bool:
            return done >= steps or (schedule.patience is not None and reached.still >= schedule.patience)

        with (
            fetched(fetch, order, ahead=rooms.large(images.nbytes)) as batches,
            progress(what, steps, done=done, show=show and crew.main) as advance,
        ):
            network.train()
            scores: dict[str, float] = {}
            found = math.nan
            since, taken, shown = torch.zeros((), device=device), 0, math.nan
            while not ended():
                rate = schedule.rate(done)
                for group in adam.param_groups:
                    group["lr"] = rate
                if crew.count > 1:
                    torch.manual_seed(((seed * 1_000_003 + done) * 65_537 + crew.rank) % 2**63)
                adam.zero_grad()
                since = since + _backward(crew, net, loss, batches.next(), batch, schedule.precision)
                taken += 1
                looked = device.type == "cpu" or done % LOOK_EVERY == 0 or schedule.validates(done + 1)
                stop = 0
                if looked:
                    sofar, stop = _agreed(crew, since, signalled())
                    if not math.isfinite(sofar):
                        raise InputError(
                            f"the loss is not finite after {done} steps: lower the learning rate ({schedule.lr:g}) or check the images."
                        )
                    since, taken, shown = torch.zeros((), device=device), 0, sofar / taken
                adam.step()
                done += 1
                if mean is not None and schedule.ema is not None:
                    average.follow(mean, network, schedule.ema, done)
                if schedule.validates(done):
                    with average.in_place_of_weights(network, mean):
                        crew.follow_main(network)
                        found, scores = score()
                        reached = reached.after(done, found, network)
                due = looked and (time.monotonic() - saved > SAVE_EVERY or bool(stop))
                if state is not None and crew.main and (due or ended()):
                    _save(state, network, adam, settings, reached.at(done), mean)
                    saved = time.monotonic()
                speed = (done - first) * batch / (time.monotonic() - started)
                advance(1, partial(_said, shown, scores, speed))
                validated = schedule.validates(done)
                if log is not None and crew.main and looked and (validated or done % max(1, steps // 1000) == 0):
                    now = {name.replace(" ", "_"): score for name, score in scores.items()} if validated else {}
                    log({"loss": shown, "rate": rate, "images_per_second": speed, **now}, done)
                if stop and not ended():
                    crew.meet()
                    raise stopping.stopped(stop, f"after {done} of {steps} steps of {what}")
        network.load_state_dict(reached.best.weights)
    network.eval()
    seconds = time.monotonic() - started
    images_per_second = (done - first) * batch / seconds
    best = reached.best
    if show and crew.main and best.score - found > FELL:
        remark(
            f"{what} diverged: its score on the validation images was {best.score:.3f} after {best.step} steps, and that state is kept; at the end it was "
            f"{found:.3f}. Fit again with a lower learning rate than {schedule.lr:g}."
        )
    return Fitted(best.score, best.step, seconds, images_per_second, batches.waited / seconds)


def _backward(
    crew: Processes,
    net: nn.Module,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor],
    parts: list[tuple[Tensor, Tensor]],
    batch: int,
    precision: str,
) -> Tensor:
    """Gradients of a batch, over all its parts and processes; this process's share of the loss, detached."""
    total: Tensor | None = None
    for at, (images, index) in enumerate(parts):
        later = at + 1 < len(parts) and crew.count > 1
        with net.no_sync() if later else nullcontext():  # pyright: ignore[reportCallIssue]
            with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                value = loss(net, images, index)
            if len(index) < batch:
                value = value * (len(index) / batch)
            # Gradients are averaged over processes: each counts as many times as there are.
            (value * crew.count if crew.count > 1 else value).backward()
        total = value.detach() if total is None else total + value.detach()
    assert total is not None
    return total


def _agreed(crew: Processes, value: Tensor, number: int) -> tuple[float, int]:
    """The sum of all processes' values, and a signal that any of them got."""
    if crew.count == 1:
        return float(value), number
    both = crew.add(torch.stack([value.double(), torch.tensor(float(number > 0), device=value.device).double()]))
    return float(both[0]), (number or int(signal.SIGTERM)) if float(both[1]) > 0 else 0


def _there(crew: Processes, state: Path) -> bool:
    """Whether there is a state to go on from, the same for every process."""
    found = int(crew.add(torch.tensor(int(state.exists()))))
    if found not in (0, crew.count):
        raise InputError(
            f"{state} is seen by {found} of {crew.count} processes: give a folder that all machines share."
        )
    return found > 0


def kept(state: Path | None) -> str:
    """What is left of a run that ends here, for whoever reads the log."""
    return "Nothing was kept of it." if state is None else f"The same command goes on from the last state in {state}."


def _said(loss: float, scores: Mapping[str, float], speed: float) -> str:
    """What progress tells of a step."""
    return ", ".join(
        (f"loss {loss:.3f}", *(f"{name} {score:.4f}" for name, score in scores.items()), f"{speed:.0f} images/s")
    )


def _order(count: int, batch: int, seed: int, done: int, device: torch.device) -> Iterator[Tensor]:
    """Indices of each batch from step `done` on: a permutation an epoch, of seed and epoch alone; what is left over is dropped."""
    an_epoch = count // batch
    epoch, skip = divmod(done, an_epoch)
    while True:
        shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)).to(device)
        yield from shuffled[skip * batch : an_epoch * batch].split(batch)
        epoch, skip = epoch + 1, 0


@contextmanager
def _own_randomness(seed: int) -> Generator[None]:
    """PyTorch's own generators seeded for the run (dropout draws from them), and put back afterwards."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; to a GPU without waiting for it."""
    return tensor if tensor.device == device else tensor.pin_memory().to(device, non_blocking=True)
