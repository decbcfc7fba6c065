"""Shapes and types are checked at run time over the whole package, and small tensors run on one thread."""

from jaxtyping import install_import_hook

with install_import_hook("luring", "beartype.beartype"):
    import luring  # noqa: F401

import torch

torch.set_num_threads(1)
