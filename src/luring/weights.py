"""Weights as safetensors: no code runs when they are read."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor, nn

from luring.atomic import replacing


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """A safetensors file, whole or not at all; tensors of any memory format and device."""
    with replacing(path) as file:
        file.write(tensor_bytes(tensors, metadata))


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file."""
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    return save(plain, dict(metadata) if metadata else None)


def digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights, in hex."""
    return hashlib.sha256(tensor_bytes(dict(sorted(network.state_dict().items())))).hexdigest()
