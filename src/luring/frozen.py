"""A model held still: evaluation mode, no gradients for its weights, and everything put back afterwards."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def frozen(*models: Any) -> Generator[None]:
    """Put modules into evaluation mode and switch their parameters' gradients off, for as long as the block lasts.

    Attacks and fits differentiate with respect to images or to the lure: gradients of other weights would be half as much
    work again, and training mode would move batch-norm statistics. Each submodule's mode and each parameter's
    `requires_grad` are as they were when the block ends, also by an exception.

    Args:
        models: modules; anything else (a plain function, say) is passed over.
    """
    modules = [module for model in models if isinstance(model, nn.Module) for module in model.modules()]
    parameters = [parameter for module in modules for parameter in module.parameters(recurse=False)]
    modes = [module.training for module in modules]
    wanted = [parameter.requires_grad for parameter in parameters]
    try:
        for module in modules:
            module.training = False
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for parameter, want in zip(parameters, wanted, strict=True):
            parameter.requires_grad_(want)
