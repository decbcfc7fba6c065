"""Targets that a person's own Python code makes: `package.module:function`."""

from luring import networks
from luring.targets.preprocessing import Preprocessed, Preprocessing, first_channels
from luring.targets.target import Target


def load(name: str) -> Target:
    """The module that `package.module:function` returns, as it is; the current folder is looked in as well.

    Raises:
        InputError: no such function, or it gives something else.
    """
    network = networks.imported(name)
    return Target(Preprocessed(network, Preprocessing(channels=first_channels(network))).eval(), "factory", name)
