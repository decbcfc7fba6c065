"""One attack on one image, as M, P and the guard see it after each of its steps; what the playground shows is computed here."""

import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import torch
from jaxtyping import Float
from torch import Tensor

from luring import answers, guard
from luring.attacks.watched import watching
from luring.bundle import Bundle
from luring.guard import Detector
from luring.types import Classifier, Images, Labels

MOST = 200
"""Steps of an attack that are kept: of longer ones every second, every fourth, …"""

Picture = Float[Tensor, "channels height width"]


@dataclass(frozen=True, eq=False)
class Look:
    """How things stand at an image.

    Attributes:
        step: of the attack; 0 is the clean image.
        image: x, or x′ as it is after that step, [channels, height, width], in [0, 1].
        lured: what P makes of it, likewise.
        m: M's probabilities, [classes].
        mop: M∘P's.
        score: the detector's.
        flagged: whether it is above the threshold.
    """

    step: int
    image: Tensor
    lured: Tensor
    m: Tensor
    mop: Tensor
    score: float
    flagged: bool


def detector_of(folder: Path, loaded: Bundle) -> tuple[Detector, bool]:
    """The bundle's guard, where 'luring calibrate' has set one up; else bare agreement. And whether it is the bundle's own.

    Raises:
        InputError: as for `Detector.load`.
    """
    if (folder / "guard.json").exists():
        return Detector.load(folder, loaded.target, loaded.decoy), True
    return Detector(loaded.target, loaded.decoy, policy="agreement"), False


def look(loaded: Bundle, detector: Detector, image: Picture, step: int = 0) -> Look:
    """Ask M, M∘P and the guard about an image."""
    one = image.detach()[None]
    m, mop = (answers.logits(model, one).cpu() for model in (loaded.target, loaded.decoy))
    with torch.no_grad():
        lured = loaded.lure(answers.prepare(one, loaded.lure))[0].cpu()
    score = float(guard.scored(detector.policy, m, mop, detector.reference)[0])
    assert detector.threshold is not None, "a detector of a bundle has a threshold"
    flagged = score > detector.threshold
    return Look(step, one[0].cpu().clone(), lured, m[0].softmax(0), mop[0].softmax(0), score, flagged)


def attempt(
    loaded: Bundle,
    detector: Detector,
    attack: Callable[[Classifier, Images, Labels], Tensor],
    image: Picture,
    label: int,
) -> Generator[Look]:
    """Attack the decoy, and look after each step of the attack itself, while it runs.

    Args:
        loaded: networks.
        detector: with a threshold.
        attack: `attack(model, x, y)`, such as a preset.
        image: clean.
        label: that the attack goes away from.

    Yields:
        The clean image, then the attack's own iterates, then what it gives back, where that is another image than its last. Closing the
        generator ends the attack.

    Raises:
        InputError: what the attack raises.
    """
    found: SimpleQueue[Look | Exception | None] = SimpleQueue()
    ended = threading.Event()
    clean = answers.prepare(image[None], loaded.decoy)
    last = look(loaded, detector, image)
    yield last

    def at(images: Tensor) -> None:
        nonlocal last
        if ended.is_set():
            raise _EndedError
        last = look(loaded, detector, images[0], last.step + 1)
        found.put(last)

    def work() -> None:
        try:
            with watching(at):
                made = attack(loaded.decoy, clean, torch.tensor([label], device=clean.device))
            if last.step == 0 or not torch.equal(made[0].cpu(), last.image):
                at(made)
        except _EndedError:
            pass
        except Exception as error:  # raised again in the thread of who asked
            found.put(error)
        finally:
            found.put(None)

    thread = threading.Thread(target=work, name="attack", daemon=True)
    thread.start()
    _running[thread] = ended
    try:
        while (one := found.get()) is not None:
            if isinstance(one, Exception):
                raise one
            yield one
    finally:
        ended.set()
        thread.join()
        _running.pop(thread, None)


def end_all() -> None:
    """End every attack that still runs, and wait for it: an interpreter that ends under a thread inside torch is aborted."""
    for thread, ended in tuple(_running.items()):
        ended.set()
        thread.join()


def followed(
    looks: Generator[Look], *, most: int = MOST, now: Callable[[], bool] = lambda: True
) -> Generator[list[Look]]:
    """What was seen so far, whenever `now` says so, and in the end: at most about `most` looks, evenly spread, with the first and the last."""
    kept: list[Look] = []
    every, newest = 1, None
    with closing(looks):
        for newest in looks:
            if newest.step % every == 0:
                kept.append(newest)
                if len(kept) > most:
                    every *= 2
                    kept = kept[::2]
            if now():
                yield [*kept, newest] if kept[-1] is not newest else list(kept)
    if newest is not None:
        yield [*kept, newest] if kept[-1] is not newest else kept


_running: dict[threading.Thread, threading.Event] = {}
"""Attacks at work, and what ends each."""


class _EndedError(Exception):
    """Nobody looks any longer."""
