"""How `luring fit` trains: the options, and the processes, signals and curves around the work."""

import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from luring.cli.app import place_of, writable
from luring.errors import InputError

if TYPE_CHECKING:
    from luring.augment import Moves
    from luring.schedule import Schedule
    from luring.training import Log

MIXED = {"no": "float32", "bf16": "bfloat16"}
"""What `accelerate launch` calls the precisions."""


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        precision: of the convolutions: float32, or bfloat16, which is faster on GPUs and on CPUs that know it; otherwise what
            accelerate launch says, or float32.
        accumulate: parts that each process takes its share of a batch in, one after the other, where memory is short.
        ema: decay of a moving average of the weights, 0.999 say, which is then what is validated and kept.
        patience: validations (there are 40) without a better one after which training ends.
        angle: of the images trained on, each is turned at random, by up to this many degrees either way.
        shift: they are shifted, too, by up to this share of their sides.
        mirror: half of them are mirrored, left to right.
        track: write curves for tensorboard, wandb or mlflow into a folder 'tracking' under --out; nothing leaves the machine.
    """

    precision: Literal["float32", "bfloat16"] | None = None
    accumulate: int = 1
    ema: float | None = None
    patience: int | None = None
    angle: float = 0.0
    shift: float = 0.0
    mirror: bool = False
    track: Literal["tensorboard", "wandb", "mlflow"] | None = None

    def schedule(self, steps: int, batch: int, lr: float) -> "Schedule":
        """These options as a schedule."""
        from luring.schedule import Schedule

        launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        precision = self.precision or MIXED.get(launched)
        if precision is None:
            raise InputError(
                f"accelerate launch says {launched}, a lure is trained in float32 or bfloat16: give --precision."
            )
        given = {"accumulate": self.accumulate, "ema": self.ema, "patience": self.patience}
        return Schedule(steps, batch, lr, precision=precision, **given)  # pyright: ignore[reportArgumentType]

    def moves(self) -> "Moves | None":
        """How the images are moved, if they are."""
        from luring.augment import Moves

        return Moves(self.angle, self.shift, self.mirror) if self.angle or self.shift or self.mirror else None


class Run:
    """A command that trains, in one of the run's processes.

    Attributes:
        place: the device to compute on.
        main: whether this process writes the bundle and speaks.
    """

    def __init__(self, place: str, main: bool, folder: Path, track: Any, stack: ExitStack) -> None:
        self.place, self.main, self.folder, self.track, self.stack = place, main, folder, track, stack

    def log(self, what: str, schedule: "Schedule") -> "Log | None":
        """What the values of one training go to."""
        if self.track is None or not self.main:
            return None
        from luring.tracking import tracked

        self.stack.close()  # the training before this one

        settings = schedule.describe()
        return self.stack.enter_context(tracked(self.track, self.folder / "tracking", what, settings))


@contextmanager
def running(training: Training, device: str, out: Path) -> Generator[Run]:
    """Join the other processes, end cleanly at a signal, and take leave in the end.

    Args:
        training: the options.
        device: as the user named it.
        out: folder for the bundle; tried before any work is done.
    """
    from luring import processes, stopping
    from luring.tracking import installed

    crew = processes.here(cpu=device == "cpu")
    if crew.count > 1 and device not in ("auto", "cpu", "cuda"):
        raise InputError(f"with {crew.count} processes each takes a device of its own: leave out --device {device}.")
    place = place_of(device) if crew.device is None else str(crew.device)
    if training.track is not None:
        installed(training.track)
    if crew.main:
        writable(out)
    with stopping.at_once(), ExitStack() as stack:
        yield Run(place, crew.main, out, training.track, stack)
        crew.meet()
    processes.leave()
