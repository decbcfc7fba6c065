"""Uvicorn's supervisor, which counts the workers that it replaces."""

from socket import socket

from prometheus_client import CollectorRegistry
from uvicorn import Config
from uvicorn.supervisors import Multiprocess

from luring.serve.metrics import restarts


class Supervisor(Multiprocess):
    """Holds the port, and starts another worker where one died."""

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        """With its own file among those that the workers share, so that each of them shows the number."""
        super().__init__(config, sockets)
        self.restarts = restarts(CollectorRegistry())

    def keep_subprocess_alive(self) -> None:
        """Replace whom it must; a restart that was asked for by a signal is none of these."""
        before = list(self.processes)
        super().keep_subprocess_alive()
        self.restarts.inc(sum(old is not new for old, new in zip(before, self.processes, strict=True)))
