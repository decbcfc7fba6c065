"""The command line: a file a command, one thin function each. Heavy libraries are imported when a command runs, so that `--help` is quick."""

import logging
import os
import sys
import warnings

# In the order of the help.
# isort: off
from luring.cli import demo as demo
from luring.cli import reproduce as reproduce
from luring.cli import fit as fit
from luring.cli import anneal as anneal
from luring.cli import blend as blend
from luring.cli import imitate as imitate
from luring.cli import chain as chain
from luring.cli import evaluate as evaluate
from luring.cli import calibrate as calibrate
from luring.cli import audit as audit
from luring.cli import check as check
from luring.cli import export as export
from luring.cli import serve as serve
from luring.cli import play as play
from luring.cli import publish as publish
from luring.cli import report as report

# isort: on
from luring.cli.app import app
from luring.errors import InputError
from luring.heap import keep_freed_memory
from luring.stopping import Stopped


def main() -> None:
    """Run the command line; a person's mistake is one sentence and exit code 2, a stop at the keyboard exit code 130."""
    warnings.showwarning = _warn
    keep_freed_memory()
    said = logging.StreamHandler()
    said.setFormatter(logging.Formatter("luring: %(message)s"))
    logging.getLogger("luring").addHandler(said)
    logging.getLogger("luring").setLevel(logging.INFO)
    try:
        app.cli(
            prog="luring",
            description="Protect a trained image classifier with a lure in front of it, and measure what that is worth.",
        )
    except InputError as error:
        sys.exit(_refuse(str(error)))
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        sys.exit(_refuse(f"{name}{(error.strerror or str(error)).lower()}; nothing half-written was left."))
    except Stopped as stop:
        print(f"{_name()}: {stop.sentence}", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print("\nluring: stopped; the same command goes on from here.", file=sys.stderr)
        sys.exit(130)


def _warn(message: Warning | str, *_where: object) -> None:
    print(f"{_name()}: {message}", file=sys.stderr)


def _refuse(sentence: str) -> int:
    print(f"{_name()}: {sentence}", file=sys.stderr)
    return 2


def _name() -> str:
    """Who speaks: of several processes all but the first say which they are."""
    rank = os.environ.get("RANK", "0")
    return "luring" if rank == "0" else f"luring (process {rank})"
