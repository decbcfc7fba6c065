"""Training: a classifier from labels, a lure from what its frozen target answers.

Both run through one loop. Its state is a file, its data order and its learning rate are functions of seed and step, so a run that
was killed goes on and ends with the weights of one that was not.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from luring import answers, losses
from luring.data import Split
from luring.errors import InputError
from luring.frozen import frozen
from luring.networks import check_lure
from luring.progress import progress
from luring.weights import write_tensors

Method: TypeAlias = Literal["luring", "luring_alt", "c_e", "auto"]
"""Ways to fit a lure to a target; the fourth of the paper, Stack, is `classifier` on lure and target together."""

SAVE_EVERY = 20.0
"""Seconds between two saved states: what a kill can cost."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train, by Adam.

    Attributes:
        steps: number of batches.
        batch: images a step.
        lr: highest learning rate.
        shape: `cosine`: up over the first tenth of the steps, then down to 0 along a cosine; `steps`: a fifth of it after 70 % of
            the steps and a fifth of that after 90 %, as the paper's MNIST lures; `constant`.
        beta2: decay of Adam's mean squared gradient. At high rates a shorter memory than Adam's own 0.999 keeps the luring loss, whose gradient
            grows thirtyfold in the first steps, from jumping.
        precision: of the convolutions; weights and losses stay float32.
        validations: how many times the validation images are looked at, evenly spread; the best state is kept.
    """

    steps: int
    batch: int = 64
    lr: float = 1e-3
    shape: Literal["cosine", "steps", "constant"] = "cosine"
    beta2: float = 0.999
    precision: Literal["float32", "bfloat16"] = "float32"
    validations: int = 40

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if self.shape == "constant":
            return self.lr
        if self.shape == "steps":
            return self.lr * 0.2 ** ((step >= 0.7 * self.steps) + (step >= 0.9 * self.steps))
        warm = max(1, self.steps // 10)
        if step < warm:
            return self.lr * (step + 1) / warm
        return self.lr * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm))) / 2

    def validates(self, step: int) -> bool:
        """Whether the validation images are looked at after this many steps."""
        every = max(1, self.steps // self.validations)
        return step % every == 0 or step == self.steps


@dataclass(frozen=True)
class Fitted:
    """What a fit reached.

    Attributes:
        score: of the state that was kept, on the validation images: accuracy for a classifier, agreement with the target for a
            lure, minus the loss for `auto`.
        step: after how many steps that was.
        seconds: time spent training in this process (not what earlier, stopped runs spent).
        images_per_second: of this process.
    """

    score: float
    step: int
    seconds: float
    images_per_second: float


def classifier(
    network: nn.Module,
    train: Split,
    validation: Split,
    *,
    schedule: Schedule,
    seed: int = 0,
    state: Path | None = None,
    show: bool = True,
    name: str = "target",
    perturb: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Fitted:
    """Train a classifier from labels by cross-entropy, in place: a target, or lure and target as one (the baseline Stack).

    Args:
        network: images to logits; ends with the best weights and in evaluation mode.
        train: images and labels, a part of what `luring.data.load` gives.
        validation: the same, for choosing the state that is kept.
        schedule: how long and how fast.
        seed: of the order of the images and of dropout; initial weights are the caller's.
        state: a file that the run's state is kept in; where it exists, the run goes on from it.
        show: show progress.
        name: what the progress calls it.
        perturb: from the images of a step, in [0, 1], and their labels to the images trained on: an attack on the network makes
            adversarial training of it (Madry et al. 2018). The state kept is chosen by the clean validation images.

    Raises:
        InputError: the network's output is not [batch, classes], the loss is not finite, or the state is another run's.
    """
    images, labels = _to(train.images, network), _to(train.labels, network)
    validation_images, truth = _to(validation.images, network), _to(validation.labels, network)

    def loss(index: Tensor) -> Tensor:
        shown = answers.prepare(images[index], network)
        if perturb is not None:
            shown = perturb(shown, labels[index])
        logits = answers.check_logits(network(shown), len(index))
        return F.cross_entropy(logits.float(), labels[index])

    def score() -> tuple[float, str]:
        accuracy = float((answers.labels(network, validation_images) == truth).float().mean())
        return accuracy, f"validation accuracy {accuracy:.4f}"

    identity = {"fit": name, "schedule": asdict(schedule), "seed": seed, "labels": _digest(labels)}
    return _train(network, loss, score, len(images), schedule, seed, state, identity, show)


def distilled(
    network: nn.Module,
    teacher: nn.Module,
    train: Tensor,
    validation: Tensor,
    *,
    schedule: Schedule,
    seed: int = 0,
    state: Path | None = None,
    show: bool = True,
    name: str = "distilled",
) -> Fitted:
    """Train a classifier from another one's scores, by cross-entropy to its softmax, in place (Hinton et al. 2015).

    The teacher is asked once for every image, [n, channels, height, width]; the state kept is the one that agrees best with it. The other
    arguments, and the errors, are those of `classifier`.
    """
    train, validation = (_to(images, network) for images in (train, validation))
    top, wanted = answers.logits(teacher, train), answers.labels(teacher, validation)

    def loss(index: Tensor) -> Tensor:
        return losses.c_e(network(answers.prepare(train[index], network)).float(), top[index])

    def score() -> tuple[float, str]:
        agreement = float((answers.labels(network, validation) == wanted).float().mean())
        return agreement, f"agreement {agreement:.4f}"

    identity = {"fit": name, "schedule": asdict(schedule), "seed": seed, "answers": _digest(top.argmax(1))}
    return _train(network, loss, score, len(train), schedule, seed, state, identity, show)


def lure(
    network: nn.Module,
    target: nn.Module,
    train: Tensor,
    validation: Tensor,
    *,
    method: Method = "luring",
    lam: float = 1.0,
    gap_max: float | None = None,
    truth: Tensor | None = None,
    schedule: Schedule,
    seed: int = 0,
    state: Path | None = None,
    show: bool = True,
) -> Fitted:
    """Fit a lure to a frozen target, in place. No labels are needed: the target's answers take their place.

    The target is in evaluation mode throughout and its weights do not change; its answers to the training images are computed once.

    Args:
        network: the lure, images to images of the same shape in [0, 1]; ends with the best weights and in evaluation mode.
        target: images to logits; left as it was found.
        train: images, [n, channels, height, width], bytes or floats in [0, 1].
        validation: images for choosing the state that is kept: the one with the highest agreement with the target.
        method: `luring` (Equation 1), `luring_alt` (L' of §3.2), `c_e`, or `auto` (an autoencoder, best validation loss kept).
        lam: λ of the luring loss.
        gap_max: bound on its gap in logits; `None` is the paper's loss.
        truth: labels of the validation images, [n], where they are known: progress then shows the decoy's accuracy, too.
        schedule: how long and how fast.
        seed: of the order of the images and of dropout; initial weights are the caller's.
        state: a file that the run's state is kept in; where it exists, the run goes on from it.
        show: show progress.

    Raises:
        InputError: a target whose output is not [batch, classes], a lure that changes the shape, a loss that is not finite, or the
            state of another run.
    """
    train, validation = (_to(images, network) for images in (train, validation))
    check_lure(network, answers.prepare(train[:2], network))
    top = answers.logits(target, train)
    first, second = top.topk(2, dim=1).indices.unbind(1)
    wanted = answers.labels(target, validation)
    decoy = nn.Sequential(network, target)

    def loss(index: Tensor) -> Tensor:
        images = answers.prepare(train[index], network)
        if method == "auto":
            return losses.auto(network(images).float(), images)
        logits = decoy(images).float()
        if method == "luring":
            return losses.luring(logits, first[index], second[index], lam=lam, gap_max=gap_max)
        if method == "luring_alt":
            return losses.luring_alt(logits, first[index])
        return losses.c_e(logits, top[index])

    def score() -> tuple[float, str]:
        found = answers.labels(decoy, validation)
        agreement = float((found == wanted).float().mean())
        note = f"agreement {agreement:.4f}"
        if truth is not None:
            note = f"validation accuracy {float((found == truth.to(found.device)).float().mean()):.4f}, {note}"
        if method != "auto":
            return agreement, note
        with frozen(network), torch.no_grad():
            parts = [
                losses.auto(network(x := answers.prepare(part, network)), x) * len(part)
                for part in validation.split(500)
            ]
        return -float(torch.stack(parts).sum()) / len(validation), note

    settings = {"lam": lam, "gap_max": gap_max, "schedule": asdict(schedule), "seed": seed}
    identity = {"fit": method, **settings, "answers": _digest(first)}
    with frozen(target):
        return _train(network, loss, score, len(train), schedule, seed, state, identity, show)


def _train(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    score: Callable[[], tuple[float, str]],
    count: int,
    schedule: Schedule,
    seed: int,
    state: Path | None,
    identity: Mapping[str, object],
    show: bool,
) -> Fitted:
    """The loop: `loss` of a batch of indices down, the state with the best `score` kept."""
    if schedule.steps < 1 or schedule.batch < 1 or count < 1:
        raise InputError(
            f"there is nothing to train with {count} images, batches of {schedule.batch} and {schedule.steps} steps: "
            "all three must be above 0."
        )
    device = next(network.parameters()).device
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    adam = torch.optim.Adam(network.parameters(), lr=schedule.lr, betas=(0.9, schedule.beta2), fused=True)
    save = partial(_save, state, network, adam, json.dumps(identity, sort_keys=True)) if state is not None else None
    batch, best, done = min(schedule.batch, count), _Best(-math.inf, 0, {}), 0
    started = saved = time.monotonic()
    with _own_randomness(seed):
        if state is not None and state.exists():
            done, best = _load(state, network, adam, json.dumps(identity, sort_keys=True))
        first = done
        with progress(f"fit {identity['fit']}", schedule.steps, done=done, show=show) as advance:
            order = _order(count, batch, seed, done)
            note = ""
            while done < schedule.steps:
                network.train()
                for group in adam.param_groups:
                    group["lr"] = schedule.rate(done)
                with torch.autocast(device.type, torch.bfloat16, enabled=schedule.precision == "bfloat16"):
                    value = loss(next(order).to(device))
                if not bool(value.isfinite()):
                    raise InputError(
                        f"the loss is not finite after {done} steps: lower the learning rate ({schedule.lr:g}) or check the images."
                    )
                adam.zero_grad()
                value.backward()
                adam.step()
                done += 1
                if schedule.validates(done):
                    reached, note = score()
                    # Among equals the later state has seen more.
                    if reached >= best.score:
                        best = _Best(
                            reached,
                            done,
                            {name: tensor.detach().clone() for name, tensor in network.state_dict().items()},
                        )
                if save is not None and (time.monotonic() - saved > SAVE_EVERY or done == schedule.steps):
                    save(done, best)
                    saved = time.monotonic()
                rate = (done - first) * batch / (time.monotonic() - started)
                said = (f"loss {float(value.detach()):.3f}", note, f"{rate:.0f} images/s")
                advance(1, ", ".join(part for part in said if part))
    network.load_state_dict(best.weights)
    network.eval()
    seconds = time.monotonic() - started
    return Fitted(best.score, best.step, seconds, (done - first) * batch / seconds)


@dataclass(frozen=True)
class _Best:
    score: float
    step: int
    weights: dict[str, Tensor]


def _order(count: int, batch: int, seed: int, done: int) -> Iterator[Tensor]:
    """Indices of each batch from step `done` on: a permutation an epoch, of seed and epoch alone; what is left over is dropped."""
    an_epoch = count // batch
    epoch, skip = divmod(done, an_epoch)
    while True:
        shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        yield from shuffled[skip * batch : an_epoch * batch].split(batch)
        epoch, skip = epoch + 1, 0


@contextmanager
def _own_randomness(seed: int) -> Generator[None]:
    """PyTorch's own generators seeded for the run (dropout draws from them), and put back afterwards."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def _save(path: Path, network: nn.Module, adam: torch.optim.Optimizer, identity: str, done: int, best: _Best) -> None:
    """The run's state in one file, whole or not at all."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.weights.items()}
    for index, moments in adam.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": tensor for name, tensor in moments.items()}
    tensors["rng"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    numbers = {"identity": identity, "done": str(done), "best_score": repr(best.score), "best_step": str(best.step)}
    write_tensors(path, tensors, numbers)


def _load(path: Path, network: nn.Module, adam: torch.optim.Optimizer, identity: str) -> tuple[int, _Best]:
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
    return int(numbers["done"]), _Best(float(numbers["best_score"]), int(numbers["best_step"]), part("best."))


def _digest(labels: Tensor) -> str:
    """Labels, or a target's answers, in a few characters: a state fits only the images and the target it was made with."""
    return hashlib.sha256(labels.cpu().numpy().tobytes()).hexdigest()[:16]


def _to(tensor: Tensor, network: nn.Module) -> Tensor:
    return tensor.to(next(network.parameters()).device)
