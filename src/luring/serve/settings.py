"""What a server is started with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Surface = Literal["decoy", "decision"]
Mode = Literal["shadow", "flag", "reject"]


@dataclass(frozen=True)
class Settings:
    """All that a worker needs to know; it is sent to each through a pipe, never by command line or environment.

    Attributes:
        surface: which of the two servers.
        bundle: the folder.
        name: of the model, in the paths of V2.
        host: address listened on.
        port: likewise.
        workers: processes, each with networks of its own.
        batch: images in a batch at most, and in a request.
        queue: images waiting at most, a worker.
        seconds: a request may take, from its first byte to its answer.
        mib: of a request's body at most.
        rate: requests a second from one address, with bursts of twice as many; `None` for no limit.
        log: file that events are appended to; standard output where there is none.
        target: the bundle's target, where the bundle does not hold it, as `luring.bundle.load` takes it.
        lure: likewise.
        weights: likewise.
        token: that the decision server asks for.
        mode: of the decision server.
    """

    surface: Surface
    bundle: Path
    name: str
    host: str
    port: int
    workers: int = 1
    batch: int = 128
    queue: int = 1024
    seconds: float = 10.0
    mib: float = 16.0
    rate: float | None = None
    log: Path | None = None
    target: str | None = None
    lure: str | None = None
    weights: Path | None = None
    token: str | None = None
    mode: Mode = "flag"

    def __repr__(self) -> str:
        """Without the token: nothing that is printed may hold it."""
        return f"Settings({self.surface}, {self.bundle}, {self.host}:{self.port})"
