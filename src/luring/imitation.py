"""A lure that imitates another, where that one is dear: it learns the image that the other makes, also where its own decoy is attacked.

A lure that costs little does not become strong by the luring loss (docs/research.md). What it is shown here are the images that whoever attacks its decoy
comes by, and the other's image of them: adversarially robust distillation (Goldblum et al. 2020), of images in place of logits.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luring import (
    answers,
    augment,
    bundle,
    cost,
    gap,
    layout,
    loop,
    losses,
    processes,
    recipes,
    static,
    successor,
    training,
)
from luring.augment import Moves
from luring.bundle import Bundle
from luring.data import Dataset
from luring.errors import InputError
from luring.frozen import frozen
from luring.loop import Fitted, Log
from luring.networks import check_lure, compose
from luring.schedule import Schedule
from luring.weights import digest

WEIGHT = 2500.0
"""Of the mean squared difference of the images, values in [0, 1], beside C_E."""


def lure(
    network: nn.Module,
    other: nn.Module,
    target: nn.Module,
    train: Tensor,
    validation: Tensor,
    *,
    eps: float,
    moves: Moves | None = None,
    truth: Tensor | None = None,
    schedule: Schedule,
    seed: int = 0,
    state: Path | None = None,
    show: bool = True,
    log: Log | None = None,
) -> Fitted:
    """Fit a lure to what another one makes of the same images, in place. No labels are needed.

    The loss is `WEIGHT` · mean (Q(x) − P(x))² over the batch, of which half is moved first by one step of FGSM on M∘Q, each image by a radius of its
    own (`luring.static`), plus C_E of the half that is not, by which Q makes up with M for what it cannot imitate.

    Args:
        network: Q, images to images of the same shape in [0, 1]; ends with the weights of the lowest loss on the validation images, none of
            them moved, and in evaluation mode.
        other: P, likewise; left as it was found.
        target: M, images to logits; likewise.
        train: images, [n, channels, height, width], bytes or floats in [0, 1].
        validation: the same.
        eps: largest radius of the examples, l∞ in images in [0, 1]: that of the attacks, which is well above what P was fitted up to.
        moves: the images of each step are moved first; `None` leaves them as they are.
        truth: labels of the validation images, [n], where they are known: progress then shows the decoy's accuracy, too.
        schedule: how long and how fast.
        seed: of the order of the images and of the radii; initial weights are the caller's.
        state: a file that the run's state is kept in; where it exists, the run goes on from it.
        show: show progress.
        log: called with the loss, the learning rate and the scores now and then.

    Raises:
        InputError: no such radius, a batch too small to be halved, a lure that changes the shape, a loss that is not finite, or the state of another run.
        Stopped: a signal came, or another process was lost.
    """
    recipes.check_radius(eps)
    crew = processes.here()
    parts, batch = crew.count * schedule.accumulate, min(schedule.batch, len(train))
    if batch < 2 * parts:
        raise InputError(
            f"half of each batch is attacked and half is not, and {batch} images are too few for that in {parts} part(s): give {2 * parts} or more."
        )
    train, validation = (training.placed(images, network) for images in (train, validation))
    check_lure(network, answers.prepare(train[:2], network))
    check_lure(other, answers.prepare(train[:2], network))
    decoy = compose(network, target)

    def apart(made: Tensor, wanted: Tensor) -> Tensor:
        return WEIGHT * F.mse_loss(made.float(), wanted.float())

    def loss(net: nn.Module, images: Tensor, index: Tensor) -> Tensor:
        images = images if moves is None else augment.moved(images, moves)
        with torch.no_grad():
            told = target(images).float()
        best, runner_up = told.topk(2, dim=1).indices.unbind(1)
        half = len(index) // 2
        own = images[:half]
        toward = gap.slope(decoy, own, best[:half], runner_up[:half])
        images = torch.cat([static.examples(own, toward, eps=eps), images[half:]])
        with torch.no_grad():
            wanted = other(images)
        made = net(images)
        return apart(made, wanted) + losses.c_e(target(made[half:]).float(), told[half:])

    def unlike(part: Tensor) -> Tensor:
        x = answers.prepare(part, network)
        with frozen(network), torch.no_grad():
            made = network(x)
            return apart(made, other(x)) + losses.c_e(target(made).float(), target(x).float())

    def score() -> tuple[float, dict[str, float]]:
        return -training.mean(crew, unlike, validation), training.agreed(crew, decoy, validation, wanted, truth)

    identity = {"fit": "imitation", "eps": eps, "schedule": schedule.describe(), "seed": seed}
    identity |= {"other": digest(other), "target": digest(target), **augment.described(moves)}
    with crew.together(loop.kept(state)):
        wanted = training.asked(crew, answers.labels, target, validation)
    with frozen(target, other), layout.turned(target, (train.shape[1], train.shape[2], train.shape[3])):
        return loop.run(crew, network, loss, score, train, schedule, seed, state, identity, show, log)


def save(
    found: Bundle,
    folder: Path,
    out: Path,
    dataset: Dataset,
    network: nn.Module,
    name: str,
    schedule: Schedule,
    *,
    eps: float,
    moves: Moves | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Write the bundle of a lure that imitates another bundle's; whom it imitates stands in its settings, as `imitates`.

    Args:
        found: the other bundle.
        folder: that it was read from.
        out: a folder for the new one.
        dataset: whose test images say how the decoy does.
        network: Q.
        name: of Q, for `luring.networks.make_lure`.
        schedule: how long and how fast it was fitted; what follows likewise.
        eps: radius of the examples.
        moves: of the images.
        seed: of the fit.

    Returns:
        Its `config.json`.

    Raises:
        InputError: `out` holds a bundle already.
    """
    before = found.config["settings"]
    # what the other was asked for, of which `luring anneal` asks less
    asked = recipes.stored(before) if found.config["method"] == "luring" else {}
    settings = {
        **bundle.fitted_by(before.get("recipe", "paper"), asked, schedule, seed, moves),
        "imitates": {"eps": eps, "name": found.config["lure"], "lure": found.config["digests"]["lure"], **before},
    }
    costs = {**found.config["multiply_adds"], "lure": cost.multiply_adds(network, dataset.shape)}
    config = {"lure": name, "multiply_adds": costs, "settings": settings}
    return successor.save(found, folder, out, network, network.state_dict(), config, dataset)
