"""Curves of a run in TensorBoard, Weights & Biases or MLflow, by way of 🤗 accelerate's trackers. Nothing leaves the machine."""

import logging
import os
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

from luring.errors import InputError

Tracker: TypeAlias = Literal["tensorboard", "wandb", "mlflow"]

QUIET = {
    "WANDB_MODE": "offline",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",
}
"""Set unless they are set already: whoever sets WANDB_MODE=online or MLFLOW_TRACKING_URI gets what that says."""


def installed(name: Tracker) -> None:
    """Raise `InputError` where a tracker is not installed."""
    if find_spec(name) is None:
        raise InputError(f"the tracker {name} is not installed: pip install 'luring[{name}]'.")


@contextmanager
def tracked(
    name: Tracker, folder: Path, run: str, settings: Mapping[str, Any]
) -> Generator[Callable[[Mapping[str, float], int], None]]:
    """A run's values, kept under a folder as it goes.

    Args:
        name: of the tracker.
        folder: for its files.
        run: what the tracker calls the run.
        settings: of the run; stored beside the values.

    Yields:
        A function to call with values by name and the step they belong to.

    Raises:
        InputError: the tracker is not installed.
    """
    installed(name)
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with _unless_set({**QUIET, "MLFLOW_TRACKING_URI": (folder / "mlflow").as_uri()}):
        with warnings.catch_warnings(), _calm("mlflow"):
            warnings.simplefilter("ignore")  # of the trackers about themselves
            from accelerate import tracking

            tracker = {
                "tensorboard": lambda: tracking.TensorBoardTracker(run, folder / "tensorboard"),
                "wandb": lambda: tracking.WandBTracker("luring", dir=str(folder), name=run),
                "mlflow": lambda: tracking.MLflowTracker("luring", run_name=run),
            }[name]()
            tracker.start()
            if name != "tensorboard":  # which would make a run of its own of them
                tracker.store_init_configuration(dict(settings))
        try:
            yield lambda values, step: tracker.log(dict(values), step=step)
        finally:
            tracker.finish()


@contextmanager
def _unless_set(variables: Mapping[str, str]) -> Generator[None]:
    """Environment variables that nobody has set, for as long as the block lasts."""
    ours = [name for name in variables if name not in os.environ]
    os.environ.update({name: variables[name] for name in ours})
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextmanager
def _calm(logger: str) -> Generator[None]:
    before = logging.getLogger(logger).level
    logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger(logger).setLevel(before)
