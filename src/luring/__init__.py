"""Luring: a lure in front of a trained classifier, so that adversarial examples made on the pair do not fool the classifier.

`luring.data`, `luring.networks`, `luring.losses`, `luring.fit`, `luring.attacks`, `luring.metrics`, `luring.transfer`,
`luring.guard` and `luring.bundle` are the rooms; the README shows them at work.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from luring.errors import InputError

if TYPE_CHECKING:
    from luring import attacks, bundle, data, fit, guard, losses, metrics, networks, transfer

__version__ = "0.1.0"

__all__ = ["InputError", "attacks", "bundle", "data", "fit", "guard", "losses", "metrics", "networks", "transfer"]


def __getattr__(name: str) -> ModuleType:
    # A room is loaded when it is first asked for: what needs no PyTorch, `luring --help` say, does not wait for it.
    if name in __all__:
        return import_module(f"luring.{name}")
    raise AttributeError(f"module 'luring' has no attribute '{name}'")
