"""Luring: a lure in front of a trained classifier, so that adversarial examples made on the pair do not fool the classifier.

`fit`, `Guard` and `load` are the library in three calls. `luring.data`, `luring.targets`, `luring.networks`, `luring.lures`, `luring.losses`, `luring.training`,
`luring.attacks`, `luring.metrics`, `luring.transfer`, `luring.guard` and `luring.bundle` are the rooms; the README shows them at work.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from luring.errors import InputError

if TYPE_CHECKING:
    from luring import attacks, bundle, data, guard, losses, lures, metrics, networks, targets, training, transfer
    from luring.bundle import load
    from luring.protect import Guard, fit

__version__ = "0.1.0"

__all__ = [
    "Guard",
    "InputError",
    "attacks",
    "bundle",
    "data",
    "fit",
    "guard",
    "load",
    "losses",
    "lures",
    "metrics",
    "networks",
    "targets",
    "training",
    "transfer",
]

_WHERE = {"Guard": "luring.protect", "fit": "luring.protect", "load": "luring.bundle"}


def __getattr__(name: str) -> Any:
    # A room is loaded when it is first asked for: what needs no PyTorch, `luring --help` say, does not wait for it.
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    if name in __all__:
        return import_module(f"luring.{name}")
    raise AttributeError(f"module 'luring' has no attribute '{name}'")
