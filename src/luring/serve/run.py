"""A server's processes: a supervisor that holds the port, and workers that answer; one that dies is replaced."""

import importlib
import os
import resource
import sys
import tempfile
from functools import partial
from pathlib import Path

from luring.errors import InputError
from luring.serve.settings import Settings

STARTUP_FAILURE = 3
"""Uvicorn's exit code of a worker that could not begin, by which its supervisor knows not to try again."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def make(settings: Settings) -> object:
    """A worker's application. PyTorch is imported here, in the worker, with its share of the cores."""
    import torch

    from luring.heap import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // settings.workers))
    try:
        # The decoy's process imports the decoy's module alone.
        return importlib.import_module(f"luring.serve.{settings.surface}").app(settings)
    except (InputError, OSError) as error:
        print(f"luring: {error}", file=sys.stderr)
        sys.exit(STARTUP_FAILURE)


def serve(settings: Settings) -> None:
    """Listen until SIGTERM or SIGINT; what was accepted by then is answered.

    Raises:
        InputError: the libraries are missing, the port cannot be had, or a decision server would listen without a token beyond this machine.
    """
    if settings.surface == "decision" and settings.token is None and settings.host not in LOOPBACK:
        raise InputError(
            f"the decision server needs a token to listen on {settings.host}: give a file that holds one with --token-file."
        )
    try:
        import prometheus_client  # noqa: F401  # missed before the port is taken, not after it
        import uvicorn
        from uvicorn.supervisors import Multiprocess
    except ImportError as error:
        raise InputError(f"{error.name} is missing: pip install 'luring[serve]'.") from error

    # As many connections as the system allows: most of them wait.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    config = uvicorn.Config(
        partial(make, settings),  # type: ignore[arg-type]
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http="httptools",
        loop="uvloop",
        lifespan="on",
        log_level="critical",
        access_log=False,
        server_header=False,
        backlog=4096,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(2 * settings.seconds) + 1,
        timeout_worker_healthcheck=30,
    )
    with tempfile.TemporaryDirectory(prefix="luring-", dir=_memory()) as shared:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
        # Uvicorn ends the process itself where the port is taken.
        try:
            socket = config.bind_socket()
        except SystemExit as error:
            raise InputError(
                f"{settings.host}:{settings.port} cannot be listened on: give another --host or --port."
            ) from error
        supervisor = Multiprocess(config, sockets=[socket])
        supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        sys.exit(2)


def _memory() -> str | None:
    """A folder in memory, where there is one: the shared numbers do not go with a full disk."""
    folder = Path("/dev/shm")
    return str(folder) if sys.platform == "linux" and os.access(folder, os.W_OK) else None
