"""Weights as safetensors: no code runs when they are read."""

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
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
        # What float16 holds, float32 holds as well.
        widened = name in own and (tensor.dtype, own[name].dtype) == (torch.float16, torch.float32)
        if name in own and own[name].dtype != tensor.dtype and not widened:
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


def halved(network: nn.Module) -> nn.Module:
    """A copy whose weights are rounded to values that float16 has; their type stays, and buffers (batch-norm statistics) stay as they are.

    Raises:
        InputError: a weight is too large for float16.
    """
    rounded = copy.deepcopy(network)
    with torch.no_grad():
        for name, weight in rounded.named_parameters():
            weight.copy_(weight.half())
            if not bool(weight.isfinite().all()):
                raise InputError(f"{name} has weights beyond 65504, which float16 does not hold: keep them in float32.")
    return rounded


def half_tensors(network: nn.Module) -> dict[str, Tensor]:
    """What `halved` gave as tensors to store: weights in float16, buffers as they are. Loaded into float32 they are the same values."""
    weights = dict(network.named_parameters())
    return {name: tensor.half() if name in weights else tensor for name, tensor in network.state_dict().items()}


def digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights, in hex."""
    return hashlib.sha256(tensor_bytes(dict(sorted(network.state_dict().items())))).hexdigest()
