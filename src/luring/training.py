"""Training: a classifier from labels, a lure from what its frozen target answers. Both run through one loop, `luring.loop`."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luring import alignment, answers, augment, gap, layout, loop, losses, processes, recipes, static
from luring.augment import Moves
from luring.data import Split
from luring.errors import InputError
from luring.frozen import frozen
from luring.loop import Fitted, Log
from luring.metrics import accuracy
from luring.networks import check_lure
from luring.processes import Processes
from luring.progress import remark
from luring.schedule import Schedule

__all__ = ["Fitted", "Log", "Method", "Schedule", "classifier", "lure"]

Method: TypeAlias = Literal["luring", "luring_alt", "c_e", "auto"]
"""Ways to fit a lure to a target; the fourth of the paper, Stack, is `classifier` on lure and target together."""

LOOKED_AT = 1000
"""Validation images that gradients are compared on."""

LEARNT = 0.1
"""How far agreement has to come from that of the target's most frequent answer, to 1, where a lure is not said to have learnt nothing."""


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
    images, labels = placed(train.images, network), _to(train.labels, network)
    validation_images, truth = placed(validation.images, network), _to(validation.labels, network)
    answers.logits(network, train.images[:2])

    def loss(net: nn.Module, images: Tensor, index: Tensor) -> Tensor:
        if alter is not None:
            images = alter(images, labels[index])
        return F.cross_entropy(net(images).float(), labels[index])

    def score() -> tuple[float, dict[str, float]]:
        right = accuracy(asked(crew, answers.labels, network, validation_images), truth)
        return right, {"validation accuracy": right}

    identity = {"fit": name, "schedule": schedule.describe(), "seed": seed, "labels": _digest(labels)}
    identity |= augment.described(alter if isinstance(alter, Moves) else None)
    return loop.run(crew, network, loss, score, images, schedule, seed, state, identity, show, log)


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
    train, held_out = (placed(images, network) for images in (train, validation.images))
    told, wanted = _to(told, network), _to(validation.labels, network)

    def loss(net: nn.Module, images: Tensor, index: Tensor) -> Tensor:
        return losses.c_e(net(images).float(), told[index])

    def score() -> tuple[float, dict[str, float]]:
        agreed = accuracy(asked(crew, answers.labels, network, held_out), wanted)
        return agreed, {"agreement": agreed}

    identity = {"fit": name, "schedule": schedule.describe(), "seed": seed, "answers": _digest(told.argmax(1))}
    return loop.run(crew, network, loss, score, train, schedule, seed, state, identity, show, None)


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
    align: float | None = None,
    c_e: float | None = None,
    moves: Moves | None = None,
    truth: Tensor | None = None,
    begins: str | None = None,
    schedule: Schedule,
    seed: int = 0,
    state: Path | None = None,
    show: bool = True,
    log: Log | None = None,
) -> Fitted:
    """Fit a lure to a frozen target, in place. No labels are needed: the target's answers take their place.

    The target is in evaluation mode throughout and its weights do not change; its answers to the training images are computed once, unless these are moved.

    Args:
        network: the lure, images to images of the same shape in [0, 1]; ends with the best weights and in evaluation mode.
        target: images to logits; left as it was found.
        train: images, [n, channels, height, width], bytes or floats in [0, 1].
        validation: images for choosing the state that is kept: the one with the highest agreement with the target, if nothing else is said.
        method: `luring` (Equation 1), `luring_alt` (L' of §3.2), `c_e`, or `auto` (an autoencoder, best validation loss kept).
        lam: λ of the luring loss.
        gap_max: bound on its gap in logits; `None` is the paper's loss.
        static_eps: not in the paper: each batch is joined by adversarial examples of M alone (`luring.static`), up to this radius, made from half
            of its images, and the decoy is asked for the same there; not for `auto`. `None` is without.
        align: not in the paper: weight of the penalty on how far the decoy's gradient points where M's does (`luring.alignment`), on half of
            each batch; not for `auto`. The state kept is then the one with the highest agreement less that penalty: agreement alone is highest
            before anything is learnt, where the lure begins as the identity. `None` is without.
        c_e: not in the paper: weight of the loss of the baseline C_E beside the luring loss, for `luring` alone: all that M answers is asked for,
            not its label alone. `None` is without.
        moves: the images of each step are moved first, and M is asked what it says of them then, one more forward pass of it: few images teach
            more. Pick what M was trained with. `None` leaves them as they are.
        truth: labels of the validation images, [n], where they are known: progress then shows the decoy's accuracy, too.
        begins: what the lure begins as where it is not fresh, `luring.weights.digest` of it: a state that began elsewhere is refused.
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
    if align is not None:
        recipes.check_weight("the alignment's penalty", align, recipes.ALIGN)
    if c_e is not None:
        recipes.check_weight("C_E beside the luring loss", c_e, 1.0)
        if method != "luring":
            raise InputError(
                f"a lure by '{method}' has no C_E beside its loss: leave the weight out, or give the method 'luring'."
            )
    if method == "auto" and (static_eps, align) != (None, None):
        raise InputError(
            "a lure by 'auto' learns nothing from M, neither from its adversarial examples nor from its gradient: give another method, or leave these out."
        )
    crew = processes.here()
    train, validation = (placed(images, network) for images in (train, validation))
    some = answers.at_once(validation)
    check_lure(network, answers.prepare(train[:2], network))

    asking = "asking M" if show and crew.main else None  # of many images this takes minutes
    with crew.together(loop.kept(state)):
        wanted, likely = asked(crew, _two_best, target, validation, asking).unbind(1)
        if method == "auto" or moves is not None:  # learns nothing from the target, or asks it at each step
            top, first, second = None, wanted, likely
        elif method == "c_e" or c_e is not None:
            top = asked(crew, answers.logits, target, train, asking)
            first, second = top.topk(2, dim=1).indices.unbind(1)
        else:  # the logits of a million images would be large
            top = None
            first, second = asked(crew, _two_best, target, train, asking).unbind(1)
    decoy = nn.Sequential(network, target)

    def alike(logits: Tensor, told: Tensor | None) -> Tensor:
        assert told is not None
        return losses.c_e(logits, told)

    def objective(logits: Tensor, label: Tensor, runner_up: Tensor, told: Tensor | None) -> Tensor:
        if method == "luring_alt":
            return losses.luring_alt(logits, label)
        if method == "c_e":
            return alike(logits, told)
        luring = losses.luring(logits, label, runner_up, lam=lam, gap_max=gap_max)
        return luring if c_e is None else luring + c_e * alike(logits, told)

    def loss(net: nn.Module, images: Tensor, index: Tensor) -> Tensor:
        images = images if moves is None else augment.moved(images, moves)
        if method == "auto":
            return losses.auto(net(images).float(), images)
        half = -(-len(index) // 2)
        if moves is None:
            best, next_best, told = first[index], second[index], None if top is None else top[index]
        else:
            with torch.no_grad():
                told = target(images).float()
            best, next_best = told.topk(2, dim=1).indices.unbind(1)
        own, aligned = images[:half], torch.zeros(())
        if static_eps is not None or align is not None:
            toward = gap.slope(target, own, best[:half], next_best[:half])
            if align is not None:
                other = gap.slope(lambda x: target(net(x)), own, best[:half], next_best[:half], again=True)
                aligned = align * alignment.penalty(other, toward).mean()
            if static_eps is not None:
                images = torch.cat([images, static.examples(own, toward, eps=static_eps)])
                best, next_best = (torch.cat([labels, labels[:half]]) for labels in (best, next_best))
                told = None if told is None else torch.cat([told, told[:half]])
        return objective(target(net(images)).float(), best, next_best, told) + aligned

    def restored(part: Tensor) -> Tensor:
        with frozen(network), torch.no_grad():
            return losses.auto(network(x := answers.prepare(part, network)), x)

    def askew(at: Tensor) -> Tensor:
        x = answers.prepare(validation[at], network)
        with frozen(network):
            slopes = (gap.slope(model, x, wanted[at], likely[at]) for model in (decoy, target))
            return alignment.penalty(*slopes)

    def score() -> tuple[float, dict[str, float]]:
        scores = agreed(crew, decoy, validation, wanted, truth)
        if method == "auto":
            return -mean(crew, restored, validation), scores
        if align is None:
            return scores["agreement"], scores
        few = torch.arange(min(len(validation), LOOKED_AT), device=validation.device)
        penalty = float(crew.spread(askew, few, some).mean())
        return scores["agreement"] - penalty, scores | {"alignment": penalty}

    settings = {"lam": lam, "gap_max": gap_max, "schedule": schedule.describe(), "seed": seed}
    beside = {"static_eps": static_eps, "align": align, "c_e": c_e, "begins": begins}
    settings |= {name: value for name, value in beside.items() if value is not None}
    settings |= augment.described(moves)
    identity = {"fit": method, **settings, "answers": _digest(first)}
    with frozen(target), layout.turned(target, (train.shape[1], train.shape[2], train.shape[3])):
        fitted = loop.run(crew, network, loss, score, train, schedule, seed, state, identity, show, log)
    one = float(wanted.bincount().max()) / len(wanted)
    if show and crew.main and method == "luring" and align is None and fitted.score - one < LEARNT * (1 - one):
        remark(
            f"fit luring learnt nothing: its decoy agrees with the target on {fitted.score:.3f} of the validation images, one answer to all would on {one:.3f}; "
            f"the lure still makes nearly the same of all images. Fit again with more steps, or a larger λ than {lam:g}."
        )
    return fitted


def asked(
    crew: Processes,
    what: Callable[[nn.Module, Tensor], Tensor],
    model: nn.Module,
    images: Tensor,
    told: str | None = None,
) -> Tensor:
    """What a model answers to all images (`answers.labels`, say), each process asking it for some; `told` is what the progress calls it."""
    return crew.spread(lambda part: what(model, part), images, answers.at_once(images), told=told)


def agreed(crew: Processes, decoy: nn.Module, images: Tensor, wanted: Tensor, truth: Tensor | None) -> dict[str, float]:
    """What the progress of a lure's fit shows: agreement of the decoy with the target's answers, and its accuracy where labels are known."""
    found = asked(crew, answers.labels, decoy, images)
    scores = {"agreement": accuracy(found, wanted)}
    return scores if truth is None else {"validation accuracy": accuracy(found, truth.to(found.device)), **scores}


def mean(crew: Processes, loss: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """A loss over all images, from what it is, a scalar, for some at a time; each process takes some."""
    some = answers.at_once(images)
    sums = crew.spread(lambda part: (loss(part) * len(part)).expand(len(part)), images, some)[::some]
    return float(sums.sum()) / len(images)


def _two_best(model: nn.Module, images: Tensor) -> Tensor:
    return answers.logits(model, images).topk(2, dim=1).indices


def _digest(labels: Tensor) -> str:
    """Labels, or a target's answers, in a few characters: a state fits only the images and the target it was made with."""
    return hashlib.sha256(labels.cpu().numpy().tobytes()).hexdigest()[:16]


def _to(tensor: Tensor, network: nn.Module) -> Tensor:
    return tensor.to(next(network.parameters()).device)


def placed(images: Tensor, network: nn.Module) -> Tensor:
    """Images where they are quickest to reach: beside the network, unless they would take a quarter of its GPU's free memory."""
    device = next(network.parameters()).device
    if device.type == "cuda" and images.device.type == "cpu" and images.nbytes * 4 > torch.cuda.mem_get_info(device)[0]:
        return images
    return images.to(device)
