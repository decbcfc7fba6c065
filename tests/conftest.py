"""Shapes and types are checked at run time over the whole package, and small tensors run on one thread."""

from importlib import import_module
from pkgutil import walk_packages

from jaxtyping import install_import_hook

with install_import_hook("luring", "beartype.beartype"):
    import luring

    for module in walk_packages(luring.__path__, "luring."):
        import_module(module.name)

import torch

torch.set_num_threads(1)
