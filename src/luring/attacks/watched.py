"""Looking on while an attack proceeds: its own images after each step, for whoever shows them."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_LOOK: ContextVar[Callable[[Tensor], None] | None] = ContextVar("look", default=None)


@contextmanager
def watching(look: Callable[[Tensor], None]) -> Generator[None]:
    """Have every step of the attacks called in this block shown to `look`, which may end an attack by an exception.

    Gradient attacks show where they stand after each step, attacks by scores the best so far whenever it changes, attacks by labels the
    image on the boundary whenever it moves. Nothing is drawn or computed otherwise for being watched. What the attack gives back may be
    another image than the last one shown: `miml2` clips it, the attacks by labels bring it into the ball, APGD takes the best met.

    Args:
        look: takes the images still at work, [count, channels, height, width], detached; it must not change them.
    """
    token = _LOOK.set(look)
    try:
        yield
    finally:
        _LOOK.reset(token)


def step(images: Tensor) -> None:
    """An attack has made a step and stands at these images."""
    look = _LOOK.get()
    if look is not None:
        look(images.detach())
