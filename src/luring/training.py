"""Training: a classifier from labels, a lure from what its frozen target answers.

Both run through one loop, in one process or several. Its state is a file, its data order and its learning rate are functions of seed and
step, so a run that was killed goes on and ends with the weights of one that was not. See `docs/training.md`.
"""

import hashlib
import json
import math
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luring import answers, average, losses, processes, recipes, rooms, static, stopping
from luring.ahead import fetched
from luring.augment import Moves
from luring.data import Split
from luring.errors import InputError
from luring.frozen import frozen
from luring.metrics import accuracy
from luring.networks import check_lure
from luring.processes import Processes
from luring.progress import progress
from luring.schedule import Schedule
from luring.state import Reached
from luring.state import load as _load
from luring.state import save as _save

__all__ = ["Fitted", "Log", "Method", "Schedule", "classifier", "lure"]

Method: TypeAlias = Literal["luring", "luring_alt", "c_e", "auto"]
"""Ways to fit a lure to a target; the fourth of the paper, Stack, is `classifier` on lure and target together."""

Log: TypeAlias = Callable[[Mapping[str, float], int], None]
"""What is told of a run as it goes: values by name, and after how many steps."""

SAVE_EVERY = 20.0
"""Seconds between two saved states: what a kill can cost."""

LOOK_EVERY = 16
"""Steps after which a GPU is asked for the loss; more often it would wait for the answer. On the CPU each step's loss is looked at."""


@dataclass(frozen=True)
class Fitted:
    """What a fit reached.

    Attributes:
        score: of the state that was kept, on the validation images: accuracy for a classifier, agreement with the target for a
            lure, minus the loss for `auto`.
        step: after how many steps that was.
        seconds: time spent training in this process (not what earlier, stopped runs spent).
        images_per_second: of all processes together, in that time.
        waiting: share of that time spent waiting for images, from 0 to 1.
    """

    score: float
    step: int
    seconds: float
    images_per_second: float
    waiting: float


def classifier(
    network: nn.Module,
    train: Split,
    validation: Split,
    *,
    schedule: Schedule,
    alter: Callable[[Tensor, Tensor], Tensor] | None = None,
    seed: int = 0,
    state: Path | None = None,
    show: bool = True,
    name: str = "target",
    log: Log | None = None,
) -> Fitted:
    """Train a classifier from labels by cross-entropy, in place: a target, or lure and target as one (the baseline Stack).

    Args:
        network: images to logits; ends with the best weights and in evaluation mode.
        train: images and labels, a part of what `luring.data.load` gives.
        validation: the same, for choosing the state that is kept.
        schedule: how long and how fast.
        alter: from the images of a step, in [0, 1], and their labels to the images trained on: `luring.augment.Moves`, say; an attack on the
            network makes adversarial training of it (Madry et al. 2018). The state kept is chosen by the images as they are.
        seed: of the order of the images, of PyTorch's draws in `alter`, and of dropout; initial weights are the caller's.
        state: a file that the run's state is kept in; where it exists, the run goes on from it.
        show: show progress.
        name: what the progress calls it.
        log: called with the loss, the learning rate and the scores now and then.

    Raises:
        InputError: the network's output is not [batch, classes], the loss is not finite, or the state is another run's.
        Stopped: a signal came, or another process was lost.
    """
    crew = processes.here()
    images, labels = _placed(train.images, network), _to(train.labels, network)
    validation_images, truth = _placed(validation.images, network), _to(validation.labels, network)
    answers.logits(network, train.images[:2])

    def loss(net: nn.Module, images: Tensor, index: Tensor) -> Tensor:
        if alter is not None:
            images = alter(images, labels[index])
        return F.cross_entropy(net(images).float(), labels[index])

    def score() -> tuple[float, dict[str, float]]:
        right = accuracy(_asked(crew, answers.labels, network, validation_images), truth)
        return right, {"validation accuracy": right}

    identity = {"fit": name, "schedule": schedule.describe(), "seed": seed, "labels": _digest(labels)}
    identity |= {"moves": asdict(alter)} if isinstance(alter, Moves) else {}
    return _train(crew, network, loss, score, images, schedule, seed, state, identity, show, log)


def distilled(
    network: nn.Module,
    train: Tensor,
    told: Tensor,
    validation: Split,
    *,
    schedule: Schedule,
    seed: int = 0,
    state: Path | None = None,
    show: bool = True,
    name: str = "distilled",
) -> Fitted:
    """Train a classifier from another one's scores, by cross-entropy to its softmax, in place (Hinton et al. 2015).

    `told` are the teacher's logits of the images, [n, classes], and the labels of `validation` are the teacher's, too: the state kept is the
    one that agrees best with it. The other arguments, and the errors, are those of `classifier`.
    """
    crew = processes.here()
    train, held_out = (_placed(images, network) for images in (train, validation.images))
    told, wanted = _to(told, network), _to(validation.labels, network)

    def loss(net: nn.Module, images: Tensor, index: Tensor) -> Tensor:
        return losses.c_e(net(images).float(), told[index])

    def score() -> tuple[float, dict[str, float]]:
        agreed = accuracy(_asked(crew, answers.labels, network, held_out), wanted)
        return agreed, {"agreement": agreed}

    identity = {"fit": name, "schedule": schedule.describe(), "seed": seed, "answers": _digest(told.argmax(1))}
    return _train(crew, network, loss, score, train, schedule, seed, state, identity, show, None)


def lure(
    network: nn.Module,
    target: nn.Module,
    train: Tensor,
    validation: Tensor,
    *,
    method: Method = "luring",
    lam: float = 1.0,
    gap_max: float | None = None,
    static_eps: float | None = None,
    truth: Tensor | None = None,
    schedule: Schedule,
    seed: int = 0,
    state: Path | None = None,
    show: bool = True,
    log: Log | None = None,
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
        static_eps: not in the paper: each batch is joined by adversarial examples of M alone (`luring.static`), up to this radius, made from half
            of its images, and the decoy is asked for the same there; not for `auto`. `None` is without.
        truth: labels of the validation images, [n], where they are known: progress then shows the decoy's accuracy, too.
        schedule: how long and how fast.
        seed: of the order of the images and of dropout; initial weights are the caller's.
        state: a file that the run's state is kept in; where it exists, the run goes on from it.
        show: show progress.
        log: called with the loss, the learning rate and the scores now and then.

    Raises:
        InputError: a target whose output is not [batch, classes], a lure that changes the shape, a loss that is not finite, or the
            state of another run.
        Stopped: a signal came, or another process was lost.
    """
    if static_eps is not None:
        recipes.check_radius(static_eps)
        if method == "auto":
            raise InputError(
                "a lure by 'auto' cannot be fitted on adversarial examples of M: give another method than 'auto', or no radius."
            )
    crew = processes.here()
    train, validation = (_placed(images, network) for images in (train, validation))
    some = answers.at_once(validation)
    check_lure(network, answers.prepare(train[:2], network))
    with crew.together(_kept(state)):
        wanted = _asked(crew, answers.labels, target, validation)
        if method == "auto":  # learns nothing from the target
            top, first, second = None, wanted, wanted
        elif method == "c_e":
            top = _asked(crew, answers.logits, target, train)
            first, second = top.topk(2, dim=1).indices.unbind(1)
        else:  # the logits of a million images would be large
            top = None
            first, second = _asked(crew, _two_best, target, train).unbind(1)
    decoy = nn.Sequential(network, target)

    def loss(net: nn.Module, images: Tensor, index: Tensor) -> Tensor:
        if static_eps is not None:
            few = index[: -(-len(index) // 2)]
            moved = static.examples(target, images[: len(few)], first[few], second[few], eps=static_eps)
            images, index = torch.cat([images, moved]), torch.cat([index, few])
        seen = net(images)
        if method == "auto":
            return losses.auto(seen.float(), images)
        logits = target(seen).float()
        if method == "luring":
            return losses.luring(logits, first[index], second[index], lam=lam, gap_max=gap_max)
        if method == "luring_alt":
            return losses.luring_alt(logits, first[index])
        assert top is not None
        return losses.c_e(logits, top[index])

    def restored(part: Tensor) -> Tensor:
        with frozen(network), torch.no_grad():
            value = losses.auto(network(x := answers.prepare(part, network)), x) * len(part)
        return value.expand(len(part))

    def score() -> tuple[float, dict[str, float]]:
        found = _asked(crew, answers.labels, decoy, validation)
        scores = {"agreement": accuracy(found, wanted)}
        if truth is not None:
            scores = {"validation accuracy": accuracy(found, truth.to(found.device)), **scores}
        if method != "auto":
            return scores["agreement"], scores
        sums = crew.spread(restored, validation, some)[::some]
        return -float(sums.sum()) / len(validation), scores

    settings = {"lam": lam, "gap_max": gap_max, "schedule": schedule.describe(), "seed": seed}
    settings |= {} if static_eps is None else {"static_eps": static_eps}
    identity = {"fit": method, **settings, "answers": _digest(first)}
    with frozen(target):
        return _train(crew, network, loss, score, train, schedule, seed, state, identity, show, log)


def _asked(crew: Processes, what: Callable[[nn.Module, Tensor], Tensor], model: nn.Module, images: Tensor) -> Tensor:
    """What a model answers to all images (`answers.labels`, say), each process asking it for some."""
    return crew.spread(lambda part: what(model, part), images, answers.at_once(images))


def _two_best(model: nn.Module, images: Tensor) -> Tensor:
    return answers.logits(model, images).topk(2, dim=1).indices


def _train(
    crew: Processes,
    network: nn.Module,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor],
    score: Callable[[], tuple[float, dict[str, float]]],
    images: Tensor,
    schedule: Schedule,
    seed: int,
    state: Path | None,
    identity: Mapping[str, object],
    show: bool,
    log: Log | None,
) -> Fitted:
    """The loop: `loss` of some images and their indices down, the state with the best `score` kept."""
    schedule.check(len(images), crew.count)
    device = next(network.parameters()).device
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    settings, what = json.dumps(identity, sort_keys=True), f"fit {identity['fit']}"
    batch, steps = min(schedule.batch, len(images)), schedule.steps
    told = stopping.waiting() if state is not None else nullcontext(lambda: 0)
    with crew.together(_kept(state)), _own_randomness(seed), told as signalled:
        net = crew.joined(network)
        adam = torch.optim.Adam(network.parameters(), lr=schedule.lr, betas=(0.9, schedule.beta2), fused=True)
        mean = average.start(network) if schedule.ema is not None else None
        reached = (
            _load(state, network, adam, settings, mean) if state is not None and _there(crew, state) else Reached()
        )
        first, done, order = reached.done, reached.done, _order(len(images), batch, seed, reached.done)
        started = saved = time.monotonic()

        def fetch(index: Tensor) -> list[tuple[Tensor, Tensor]]:
            own = index.tensor_split(crew.count)[crew.rank].to(device)
            return [
                (answers.prepare(_picked(images, part), network), part)
                for part in own.tensor_split(schedule.accumulate)
            ]

        def ended() -> bool:
            return done >= steps or (schedule.patience is not None and reached.still >= schedule.patience)

        with (
            fetched(fetch, order, ahead=rooms.large(images.nbytes)) as batches,
            progress(what, steps, done=done, show=show and crew.main) as advance,
        ):
            network.train()
            scores: dict[str, float] = {}
            since, taken, shown = torch.zeros((), device=device), 0, math.nan
            while not ended():
                rate = schedule.rate(done)
                for group in adam.param_groups:
                    group["lr"] = rate
                if crew.count > 1:
                    torch.manual_seed(((seed * 1_000_003 + done) * 65_537 + crew.rank) % 2**63)
                adam.zero_grad()
                since = since + _backward(crew, net, loss, batches.next(), batch, schedule.precision)
                taken += 1
                looked = device.type == "cpu" or done % LOOK_EVERY == 0 or schedule.validates(done + 1)
                stop = 0
                if looked:
                    sofar, stop = _agreed(crew, since, signalled())
                    if not math.isfinite(sofar):
                        raise InputError(
                            f"the loss is not finite after {done} steps: lower the learning rate ({schedule.lr:g}) or check the images."
                        )
                    since, taken, shown = torch.zeros((), device=device), 0, sofar / taken
                adam.step()
                done += 1
                if mean is not None and schedule.ema is not None:
                    average.follow(mean, network, schedule.ema, done)
                if schedule.validates(done):
                    with average.in_place_of_weights(network, mean):
                        crew.follow_main(network)
                        found, scores = score()
                        reached = reached.after(done, found, network)
                due = looked and (time.monotonic() - saved > SAVE_EVERY or bool(stop))
                if state is not None and crew.main and (due or ended()):
                    _save(state, network, adam, settings, reached.at(done), mean)
                    saved = time.monotonic()
                speed = (done - first) * batch / (time.monotonic() - started)
                advance(1, partial(_said, shown, scores, speed))
                validated = schedule.validates(done)
                if log is not None and crew.main and looked and (validated or done % max(1, steps // 1000) == 0):
                    now = {name.replace(" ", "_"): score for name, score in scores.items()} if validated else {}
                    log({"loss": shown, "rate": rate, "images_per_second": speed, **now}, done)
                if stop and not ended():
                    crew.meet()
                    raise stopping.stopped(stop, f"after {done} of {steps} steps of {what}")
        network.load_state_dict(reached.best.weights)
    network.eval()
    seconds = time.monotonic() - started
    images_per_second = (done - first) * batch / seconds
    return Fitted(reached.best.score, reached.best.step, seconds, images_per_second, batches.waited / seconds)


def _backward(
    crew: Processes,
    net: nn.Module,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor],
    parts: list[tuple[Tensor, Tensor]],
    batch: int,
    precision: str,
) -> Tensor:
    """Gradients of a batch, over all its parts and processes; this process's share of the loss, detached."""
    total: Tensor | None = None
    for at, (images, index) in enumerate(parts):
        later = at + 1 < len(parts) and crew.count > 1
        with net.no_sync() if later else nullcontext():  # pyright: ignore[reportCallIssue]
            with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                value = loss(net, images, index)
            if len(index) < batch:
                value = value * (len(index) / batch)
            # Gradients are averaged over processes: each counts as many times as there are.
            (value * crew.count if crew.count > 1 else value).backward()
        total = value.detach() if total is None else total + value.detach()
    assert total is not None
    return total


def _agreed(crew: Processes, value: Tensor, number: int) -> tuple[float, int]:
    """The sum of all processes' values, and a signal that any of them got."""
    if crew.count == 1:
        return float(value), number
    both = crew.add(torch.stack([value.double(), torch.tensor(float(number > 0), device=value.device).double()]))
    return float(both[0]), (number or int(signal.SIGTERM)) if float(both[1]) > 0 else 0


def _there(crew: Processes, state: Path) -> bool:
    """Whether there is a state to go on from, the same for every process."""
    found = int(crew.add(torch.tensor(int(state.exists()))))
    if found not in (0, crew.count):
        raise InputError(
            f"{state} is seen by {found} of {crew.count} processes: give a folder that all machines share."
        )
    return found > 0


def _kept(state: Path | None) -> str:
    """What is left of a run that ends here, for whoever reads the log."""
    return "Nothing was kept of it." if state is None else f"The same command goes on from the last state in {state}."


def _said(loss: float, scores: Mapping[str, float], speed: float) -> str:
    """What progress tells of a step."""
    return ", ".join(
        (f"loss {loss:.3f}", *(f"{name} {score:.4f}" for name, score in scores.items()), f"{speed:.0f} images/s")
    )


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


def _digest(labels: Tensor) -> str:
    """Labels, or a target's answers, in a few characters: a state fits only the images and the target it was made with."""
    return hashlib.sha256(labels.cpu().numpy().tobytes()).hexdigest()[:16]


def _to(tensor: Tensor, network: nn.Module) -> Tensor:
    return tensor.to(next(network.parameters()).device)


def _placed(images: Tensor, network: nn.Module) -> Tensor:
    """Images where they are quickest to reach: beside the network, unless they would take a quarter of its GPU's free memory."""
    device = next(network.parameters()).device
    if device.type == "cuda" and images.device.type == "cpu" and images.nbytes * 4 > torch.cuda.mem_get_info(device)[0]:
        return images
    return images.to(device)


def _picked(images: Tensor, index: Tensor) -> Tensor:
    """Some of the images, on the index's device."""
    if images.device == index.device:
        return images[index]
    return images[index.to(images.device)].pin_memory().to(index.device, non_blocking=True)
