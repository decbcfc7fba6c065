"""Many images attacked a batch at a time: within the memory there is, with progress, and going on where a stopped run ended."""

import hashlib
import json
import logging
import math
import time
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from luring.answers import prepare
from luring.attacks import checks
from luring.attacks.presets import Attack
from luring.errors import InputError
from luring.frozen import frozen
from luring.progress import progress
from luring.types import Classifier, Images, Labels
from luring.weights import digest, write_tensors

log = logging.getLogger("luring")

BatchSize: TypeAlias = int | Literal["auto"]
"""Images at a time; `auto` is as many as fit."""

BATCH = 128
"""Images crafted at a time: on a CPU larger batches fall out of its cache."""

SHARE = 0.5
"""Of the memory that is free, what `auto` may use."""

SAVE_EVERY = 20.0
"""Seconds between two saved states: what a kill can cost."""


def craft(
    attack: Attack,
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    batch: BatchSize = BATCH,
    state: Path | None = None,
    show: bool = False,
) -> Images:
    """Examples for many images, a batch at a time.

    Each batch has draws of its own, from the attack's seed and the batch's place: a run that was stopped and goes on gives what one
    that was not gives.

    Args:
        attack: a preset.
        model: as the attack takes it; the images are moved to its device.
        x: clean images, [n, channels, height, width], values in [0, 1].
        y: labels, [n].
        batch: images at a time, or `auto`: as many as fit into half of the free memory. The draws depend on it.
        state: a file that finished batches are kept in; where it exists, the run goes on from it. It is removed at the end.
        show: show progress.

    Returns:
        Images like `x`, on the CPU.

    Raises:
        InputError: as for the attack, a `batch` below 1, or a `state` of another run.
    """
    size = fitting(model, x) if batch == "auto" else batch
    checks.count("batch", size)
    asked = _asked(attack, model, x, y, size) if state is not None else ""
    parts = _load(state, asked) if state is not None and state.exists() else []
    saved = time.monotonic()
    done = min(len(x), len(parts) * size)
    with progress(f"{attack.name} eps {dict(attack.settings)['eps']:g}", len(x), done=done, show=show) as advance:
        for place, (images, labels) in enumerate(zip(x.split(size), y.split(size), strict=True)):
            if place < len(parts) or not len(images):
                continue
            clean = prepare(images, model)
            made = attack.but(attack.seed * 1_000_003 + place)(model, clean, labels.to(clean.device))
            parts.append(made.cpu())
            advance(len(images), "images")
            if state is not None and time.monotonic() - saved > SAVE_EVERY:
                _save(state, parts, asked)
                saved = time.monotonic()
    if state is not None:
        state.unlink(missing_ok=True)
    return torch.cat(parts) if parts else x.clone()


def _asked(attack: Attack, model: Classifier, x: Tensor, y: Tensor, size: int) -> str:
    """What a run's result depends on; of a model that is no module, nothing is known."""
    weights = digest(model) if isinstance(model, torch.nn.Module) else None
    content = hashlib.sha256(x.contiguous().numpy().tobytes() + y.numpy().tobytes()).hexdigest()
    return json.dumps({**attack.describe(), "batch": size, "images": content, "weights": weights}, sort_keys=True)


def _save(state: Path, parts: list[Tensor], asked: str) -> None:
    write_tensors(state, {f"{place:08}": part for place, part in enumerate(parts)}, {"asked": asked})


def _load(state: Path, asked: str) -> list[Tensor]:
    try:
        with safe_open(state, "pt") as file:
            found = (file.metadata() or {}).get("asked")
            parts = [file.get_tensor(name) for name in sorted(file.keys())]
    except SafetensorError as error:
        raise InputError(f"{state} is damaged: remove it and run again.") from error
    if found != asked:
        raise InputError(f"{state} belongs to a run with other images or settings: remove it, or give another file.")
    return parts


def fitting(model: Classifier, x: Tensor) -> int:
    """How many images a step of an attack can take at a time within half of the free memory; a line in the log says so.

    What a forward pass keeps for the backward pass is counted on one image, and eight images' worth for the attack are added.
    """
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    one = prepare(x[:1], model)
    if not len(one):
        return BATCH
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()} if isinstance(model, torch.nn.Module) else ()
    with (
        frozen(model),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
    ):
        logits = model(one.detach().clone().requires_grad_())
    held = sum(size for place, size in kept.items() if place not in weights)
    # As much again for the gradients on their way back.
    each = 2 * held + 8 * one.numel() * one.element_size()
    free = _free(logits.device)
    # A power of two, so that a little more or less free memory does not make another run of it.
    size = 2 ** int(math.log2(max(1, min(len(x), SHARE * free / each))))
    log.info("batch size auto: %d images at a time, %.0f kB each in %.1f GB free", size, each / 1e3, free / 1e9)
    return size


def _free(device: torch.device) -> int:
    """Bytes of memory free for use."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise InputError("this system does not say how much memory is free: give a number instead of auto.")
