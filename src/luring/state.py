"""The state of a training run in one file: what a run that was stopped goes on from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from luring.errors import InputError
from luring.weights import write_tensors


@dataclass(frozen=True)
class Best:
    """The state with the best validation score so far: its score, after how many steps, its weights."""

    score: float = -math.inf
    step: int = 0
    weights: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


@dataclass(frozen=True)
class Reached:
    """How far a run is.

    Attributes:
        done: steps.
        best: the state that is kept.
        still: validations since the score last rose.
    """

    done: int = 0
    best: Best = field(default_factory=Best)
    still: int = 0

    def after(self, done: int, score: float, network: nn.Module) -> "Reached":
        """What a validation of the network after `done` steps makes of it."""
        best, still = self.best, 0 if score > self.best.score else self.still + 1
        if score >= best.score:  # among equals the later state has seen more
            best = Best(score, done, {name: tensor.detach().clone() for name, tensor in network.state_dict().items()})
        return Reached(done, best, still)

    def at(self, done: int) -> "Reached":
        """The same after so many steps."""
        return replace(self, done=done)


def save(
    path: Path,
    network: nn.Module,
    adam: torch.optim.Optimizer,
    identity: str,
    reached: Reached,
    average: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the state, whole or not at all.

    Raises:
        InputError: it cannot be written; what was there before is as it was.
    """
    best = reached.best
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.weights.items()}
    tensors |= {f"average.{name}": tensor for name, tensor in (average or {}).items()}
    for index, moments in adam.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": tensor for name, tensor in moments.items()}
    tensors["rng"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    numbers = {"identity": identity, "done": str(reached.done), "still": str(reached.still)}
    numbers |= {"best_score": repr(best.score), "best_step": str(best.step)}
    try:
        write_tensors(path, tensors, numbers)
    except OSError as error:
        kept = "The state saved before is whole" if path.exists() else "No state was saved before"
        raise InputError(
            f"the state after {reached.done} steps could not be written to {path} ({(error.strerror or str(error)).lower()}). "
            f"{kept}: make room and give the same command again."
        ) from error


def load(
    path: Path,
    network: nn.Module,
    adam: torch.optim.Optimizer,
    identity: str,
    average: Mapping[str, Tensor] | None = None,
) -> Reached:
    """Bring network, optimiser, average and PyTorch's generators to where the saved run was.

    Raises:
        InputError: the file is damaged, or another run's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            numbers = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not the state of a run ({error}): remove it to start from the beginning."
        ) from error
    if numbers.get("identity") != identity:
        raise InputError(
            f"{path} is the state of a run with other settings: remove it, or give another folder with --out."
        )

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    try:
        network.load_state_dict(part("network."))
    except RuntimeError as error:
        raise InputError(
            f"{path} is the state of a run with another network: remove it, or give another folder with --out."
        ) from error
    for name, tensor in (average or {}).items():
        tensor.copy_(tensors[f"average.{name}"])
    weights = list(network.parameters())
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in part("adam.").items():
        index, key = name.split(".", 1)
        if key != "step":
            # The fused Adam walks weights and moments side by side in memory: their formats must be the same.
            tensor = torch.empty_like(weights[int(index)], requires_grad=False).copy_(tensor)
        moments.setdefault(int(index), {})[key] = tensor
    adam.load_state_dict({"state": moments, "param_groups": adam.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["rng"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    best = Best(float(numbers["best_score"]), int(numbers["best_step"]), part("best."))
    return Reached(int(numbers["done"]), best, int(numbers.get("still", "0")))
