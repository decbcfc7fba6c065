"""Have a torchvision that was built for another PyTorch imported all the same.

PyPI's wheel is built for CUDA. Beside a CPU PyTorch its compiled operators do not load, and without their names it is not imported; timm and
adversarial-library need nothing of it that is compiled.
"""

import importlib.util
from pathlib import Path

import torch

KEPT: list[torch.library.Library] = []
"""The names last as long as this."""


def name_operators() -> None:
    """Name what torchvision looks for while it is imported, where its own does not load."""
    found = importlib.util.find_spec("torchvision")
    if KEPT or found is None or found.origin is None:
        return
    for compiled in Path(found.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(compiled)
        except OSError:
            KEPT.append(torch.library.Library("torchvision", "DEF"))
            for operator in ("nms", "qnms"):
                KEPT[-1].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            return
