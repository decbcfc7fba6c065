"""Shapes and types are checked at run time over the whole package, and small tensors run on one thread."""

import importlib.util
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

from jaxtyping import install_import_hook

with install_import_hook("luring", "beartype.beartype"):
    import luring

    for module in walk_packages(luring.__path__, "luring."):
        import_module(module.name)

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def torchvision():
    """What timm imports. PyPI's wheel is built for CUDA; beside a CPU PyTorch its operators are missing, and without their names it is not imported."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        pytest.skip("torchvision is not installed")
    for compiled in Path(found.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(compiled)
        except OSError:
            library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            return library
    return None


@pytest.fixture(scope="session")
def timm(torchvision):
    found = pytest.importorskip("timm", exc_type=ImportError)
    assert torchvision is None or found
    return found


@pytest.fixture(scope="session")
def transformers(torchvision):
    assert torchvision is None or torchvision
    found = pytest.importorskip("transformers", exc_type=ImportError)
    found.logging.set_verbosity_error()
    return found
