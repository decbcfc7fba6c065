"""Weights as safetensors: no code runs when they are read."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from luring.atomic import replacing
from luring.errors import InputError


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """A safetensors file, whole or not at all; tensors of any memory format and device."""
    with replacing(path) as file:
        file.write(tensor_bytes(tensors, metadata))


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file."""
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    return save(plain, dict(metadata) if metadata else None)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """What a safetensors file holds; it takes as much memory as the file is long, whatever its header claims.

    Raises:
        InputError: no such file, or a damaged one.
    """
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} does not hold the weights of a network ({reason}): give a safetensors file of its state_dict."
        ) from error


def fill(network: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Put weights into a network, if they are its own.

    Raises:
        InputError: names, shapes or types differ, or a value is not finite.
    """
    own = network.state_dict()
    for name, tensor in tensors.items():
        if name in own and own[name].dtype != tensor.dtype:
            raise InputError(
                f"{where} does not hold the weights of its network: {name} is {_short(tensor)} where the network has {_short(own[name])}."
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"{where} holds weights that are not finite ({name}): take others.")
    try:
        network.load_state_dict(dict(tensors))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise InputError(
            f"{where} does not hold the weights of its network ({(lines + lines)[1]}): give a safetensors file of its state_dict."
        ) from error


def _short(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights, in hex."""
    return hashlib.sha256(tensor_bytes(dict(sorted(network.state_dict().items())))).hexdigest()
