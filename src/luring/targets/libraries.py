"""Libraries that not everybody has, and that may not fit PyTorch: imported, or refused in one sentence."""

import traceback
import warnings
from importlib import import_module
from types import ModuleType

import torch

from luring.errors import InputError, first_line

EXTRA = "pip install 'luring[models]'"


def library(name: str) -> ModuleType:
    """A library of the extra `models`.

    Raises:
        InputError: it, or what it imports, is missing or broken.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(name)
    except Exception as error:  # a package of another build fails with whatever it meets
        raise refusal(name, error) from error


def refusal(name: str, error: BaseException) -> InputError:
    """What to say of a library that cannot be imported, now or, where it imports its parts later, then: what is wrong, where, what to do."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    if isinstance(error, ModuleNotFoundError) and error.name and "." not in error.name:
        of_pytorch = ", the one of your PyTorch" if error.name == "torchvision" else ""
        return InputError(f"{error.name} is missing: {EXTRA}{of_pytorch}.")
    code = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "<module>"]
    if not code:
        return InputError(f"{name} cannot be imported ({first_line(error)}): {EXTRA}.")
    package, file = code[-1].f_globals["__name__"].partition(".")[0], code[-1].f_code.co_filename
    other = f"the torchvision that was built for PyTorch {torch.__version__}, from where PyTorch came from"
    return InputError(
        f"{name} cannot be imported, for {package} is broken here ({type(error).__name__} in {file}: {first_line(error)}): "
        f"install {other if package == 'torchvision' else package + ' anew'}."
    )
