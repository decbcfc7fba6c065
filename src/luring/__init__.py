"""Luring: a lure in front of a trained classifier, so that adversarial examples made on the pair do not fool the classifier.

`luring.data`, `luring.networks`, `luring.losses`, `luring.fit`, `luring.attacks`, `luring.metrics`, `luring.transfer`,
`luring.guard` and `luring.bundle` are the rooms; the README shows them at work.
"""

from luring import attacks, bundle, data, fit, guard, losses, metrics, networks, transfer
from luring.errors import InputError

__version__ = "0.1.0"

__all__ = ["InputError", "attacks", "bundle", "data", "fit", "guard", "losses", "metrics", "networks", "transfer"]
