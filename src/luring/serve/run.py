"""A server's processes: a supervisor that holds the port, and workers that answer; one that dies is replaced."""

import importlib
import importlib.util
import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

from luring.errors import InputError
from luring.serve.settings import Settings

STARTUP_FAILURE = 3
"""Uvicorn's exit code of a worker that could not begin, by which its supervisor knows not to try again."""
IDLE = 75
"""Seconds that a connection may be open without a request."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def make(settings: Settings) -> object:
    """A worker's application. PyTorch is imported here, in the worker, with its share of the cores."""
    threading.excepthook = _except_ends
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    try:
        import torch

        from luring.heap import keep_freed_memory

        keep_freed_memory()
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // settings.workers))
        # The decoy's process imports the decoy's module alone.
        return importlib.import_module(f"luring.serve.{settings.surface}").app(settings)
    except Exception as error:  # uvicorn would start it again and again
        said = str(error) if isinstance(error, InputError | OSError) else f"{type(error).__name__}: {error}"
        print(f"luring: {said}", file=sys.stderr)
        sys.exit(STARTUP_FAILURE)


def _end_with(parent: BaseProcess | None) -> None:
    """A worker whose supervisor was killed would hold the port for ever."""
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _except_ends(args: threading.ExceptHookArgs) -> None:
    """The thread that answers the supervisor's pings ends with an `EOFError` when the supervisor does; there is nothing to say of it."""
    if args.exc_type is not EOFError:
        threading.__excepthook__(args)


def serve(settings: Settings) -> None:
    """Listen until SIGTERM or SIGINT; what was accepted by then is answered.

    Raises:
        InputError: no bundle, the libraries are missing, the port cannot be had, or a decision server would listen without a token beyond this machine.
    """
    if settings.surface == "decision" and settings.token is None and settings.host not in LOOPBACK:
        raise InputError(
            f"the decision server needs a token to listen on {settings.host}: give a file that holds one with --token-file."
        )
    for file, missing in (
        ("config.json", "is not a bundle, it has no config.json: give a folder that 'luring fit' wrote."),
        ("guard.json", "has no guard: run 'luring calibrate' on it first."),
    )[: 2 if settings.surface == "decision" else 1]:
        if not (settings.bundle / file).exists():
            raise InputError(f"{settings.bundle} {missing}")
    # What a worker needs is missed before the port is taken, not after it.
    for name in ("fastapi", "httptools", "orjson", "prometheus_client", "python_multipart", "uvicorn", "uvloop"):
        if importlib.util.find_spec(name) is None:
            raise InputError(f"{name} is missing: pip install 'luring[serve]'.")
    import uvicorn

    from luring.serve.connection import Connection

    # As many connections as the system allows: most of them wait.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    config = uvicorn.Config(
        partial(make, settings),  # type: ignore[arg-type]
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http=Connection,
        loop="uvloop",
        lifespan="on",
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who asks is who is connected, whatever a header says
        backlog=4096,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=int(2 * settings.seconds) + 1,
        timeout_worker_healthcheck=30,
    )
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listening = socket.create_server((settings.host, settings.port), family=family, backlog=config.backlog)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            f"{settings.host}:{settings.port} cannot be listened on ({reason}): give another --host or --port."
        ) from error
    listening.set_inheritable(True)
    # Who does not read an answer is let go, by the system.
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * IDLE)
    with tempfile.TemporaryDirectory(prefix="luring-", dir=_memory()) as shared:
        # It is read when prometheus_client is imported.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
        from luring.serve.supervisor import Supervisor

        supervisor = Supervisor(config, [listening])
        supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        sys.exit(2)


def _memory() -> str | None:
    """A folder in memory, where there is one: the shared numbers do not go with a full disk."""
    folder = Path("/dev/shm")
    return str(folder) if sys.platform == "linux" and os.access(folder, os.W_OK) else None
