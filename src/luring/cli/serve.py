"""`luring serve`."""

import re
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from luring.cli.app import Parts, app
from luring.errors import InputError

Port = Annotated[int | None, arg(help="8000 for the decoy, 8001 for the decision, where it is not given")]


@app.command
def serve(
    surface: Positional[Literal["decoy", "decision"]],
    bundle: Positional[Path],
    name: str | None = None,
    host: str = "127.0.0.1",
    port: Port = None,
    token_file: Path | None = None,
    mode: Literal["shadow", "flag", "reject"] = "flag",
    workers: int = 1,
    batch_size: int = 128,
    queue: int = 1024,
    timeout: float = 10.0,
    max_mib: float = 16.0,
    rate: float | None = None,
    log: Path | None = None,
    parts: OmitArgPrefixes[Parts] = Parts(),  # noqa: B008
) -> None:
    """Serve the decoy of a bundle, or its decision, over HTTP: /predict, the Open Inference Protocol (V2), /metrics, /openapi.json.

    Two processes on two ports, best on two machines: the decoy for everyone, the decision (M's label, and whether to believe it) for the
    operator alone. SIGTERM ends it when what was accepted is answered; a worker that dies is replaced.

    Args:
        surface: decoy or decision; the decision needs a guard in the bundle, by 'luring calibrate'.
        bundle: folder that 'luring fit' wrote.
        name: of the model in the paths of V2, /v2/models/NAME, and in what it says of itself; the surface's where it is not given.
        host: address to listen on.
        port: to listen on.
        token_file: file with the token that the decision server asks for, as 'Authorization: Bearer …'; needed beyond this machine.
        mode: of the decision: shadow (M's label alone, the decision only in the log), flag (label, score, flagged), reject (no label of what is flagged).
        workers: processes, each with networks of its own and its share of the cores.
        batch_size: images answered at once, and in a request, at most.
        queue: images that may wait, a worker; what is more is refused with 503 and Retry-After.
        timeout: seconds that a request may take.
        max_mib: largest body of a request, in MiB.
        rate: requests a second from one address, with bursts of twice as many; no limit where it is not given.
        log: file that events are appended to, a line of JSON each; standard output where it is not given.
        parts: what the bundle does not hold.
    """
    from luring.serve.run import serve as serve_
    from luring.serve.settings import Settings

    numbers = {"workers": workers, "batch-size": batch_size, "queue": queue, "timeout": timeout, "max-mib": max_mib}
    for option, value in [*numbers.items(), ("rate", 1.0 if rate is None else rate)]:
        if not value > 0:
            raise InputError(f"--{option} is {value:g}: give a number above 0.")
    if name is not None and not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise InputError(f"--name is {name!r}: give letters, digits, dots and dashes.")
    if queue < batch_size:
        raise InputError(f"--queue is {queue}, less than the batch of {batch_size}: give at least as many.")
    if token_file is not None and surface == "decoy":
        raise InputError("the decoy server asks for no token: leave --token-file out.")
    serve_(
        Settings(
            surface=surface,
            bundle=bundle,
            name=name or surface,
            host=host,
            port=port if port is not None else {"decoy": 8000, "decision": 8001}[surface],
            workers=workers,
            batch=batch_size,
            queue=queue,
            seconds=timeout,
            mib=max_mib,
            rate=rate,
            log=log,
            token=_token(token_file),
            mode=mode,
            **vars(parts),
        )
    )


def _token(file: Path | None) -> str | None:
    """The token in a file; it is never given on the command line, where everyone on the machine could read it."""
    if file is None:
        return None
    token = file.read_text().strip()
    if len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            f"{file} holds no token: put 16 or more printable characters into it, such as 'openssl rand -hex 32' prints."
        )
    return token
