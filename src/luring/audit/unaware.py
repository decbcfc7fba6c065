"""Rungs 1 and 2: adversaries who take what they can query, or whose weights they have, for the classifier itself."""

from collections.abc import Iterator

from luring.audit.defence import Defence
from luring.audit.tries import Setting, Try, named

GREY = {"bsr": "bsr-digits", "sia": "sia-digits"}
"""On grey images what turns and mirrors would make other labels: a 6 turned is a 9."""

QUERIES = ("square", "spsa", "hop-skip-jump")


def white_box(defence: Defence, setting: Setting) -> Iterator[Try]:
    """The paper's attacks and newer ones for transfer, crafted on the surface."""
    for name in setting.budget.transfer:
        chosen = GREY.get(name, name) if setting.clean.images.shape[1] == 1 else name
        yield named(1, chosen, defence.shown, defence.surface, setting)


def black_box(defence: Defence, setting: Setting) -> Iterator[Try]:
    """Attacks that ask the surface for scores, or for labels."""
    for name in QUERIES:
        yield named(2, name, defence.shown, defence.surface, setting)
