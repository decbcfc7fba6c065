"""Rung 3: an adversary who never touches the weights of what is deployed, and trains models of his own."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from luring import answers, training
from luring.answers import Ask
from luring.attacks import ensemble
from luring.audit.defence import Defence
from luring.audit.tries import Setting, Try, named
from luring.data import Dataset, Split
from luring.networks import plain_target
from luring.training import Schedule
from luring.types import Shape

Keep = Callable[[str, Callable[[], nn.Module], Callable[[nn.Module, Path], None]], nn.Module]
"""Gives the network of a name: as an earlier run left it, or made and trained now."""

TYPICAL_GAP = 4.0
"""Logits that a surrogate's teacher's first class of a typical image is given above the second: what it knows of the others still shows."""


def small(shape: Shape, classes: int) -> nn.Module:
    """Two narrow 3×3 convolutions with pooling, one dense layer."""
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), classes),
    )


def dense(shape: Shape, classes: int) -> nn.Module:
    """Two dense layers of 256."""
    channels, height, width = shape
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * height * width, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, classes),
    )


ARCHITECTURES: Mapping[str, Callable[[Shape, int], nn.Module]] = {
    "small CNN": small,
    "wide CNN": plain_target,
    "MLP": dense,
}
"""Of the surrogates, by the name that the rows give them."""


HELD_OUT = 1000
"""Validation images that choose the state of a network kept, at most: eight times as many answers as there are images."""


def seen(dataset: Dataset, schedule: Schedule) -> Dataset:
    """What a short training makes use of: of the training images as many as it has places for, and some validation images."""

    def some(part: Split, most: int) -> Split:
        # Evenly spread: files may be sorted by class.
        n = len(part.labels)
        index = torch.arange(min(n, most)) * n // min(n, most)
        return Split(part.images[index], part.labels[index])

    train = some(dataset.train, schedule.steps * schedule.batch)
    return replace(dataset, train=train, validation=some(dataset.validation, HELD_OUT))


def level(logits: Tensor) -> Tensor:
    """What logits are multiplied by for the typical gap of the first to the second class to be `TYPICAL_GAP`."""
    gap = logits.topk(2, dim=1).values.diff(dim=1).neg().median()
    return (TYPICAL_GAP / gap.clamp_min(1e-6)).detach()


class Levelled(nn.Module):
    """A classifier whose logits are divided so that the typical gap of its first to its second class is `TYPICAL_GAP`."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        """Of a classifier, by what it answers to clean images."""
        super().__init__()
        self.model = model
        self.register_buffer("by", level(answers.logits(model, images)))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Its logits, at that level."""
        return self.model(images) * self.by


def independent(dataset: Dataset, keep: Keep, schedule: Schedule, seed: int, *, show: bool) -> dict[str, nn.Module]:
    """A surrogate of each architecture, trained on the data set's labels."""

    def train(name: str) -> Callable[[nn.Module, Path], None]:
        return lambda network, state: _classifier(network, dataset.train, dataset, schedule, seed, state, name, show)

    classes = len(dataset.classes)
    return {
        name: keep(f"surrogate-{_slug(name)}", lambda make=make: make(dataset.shape, classes), train(name))
        for name, make in ARCHITECTURES.items()
    }


def stolen(
    defence: Defence, dataset: Dataset, keep: Keep, schedule: Schedule, ask: Ask, seed: int, *, show: bool
) -> dict[str, nn.Module]:
    """Two surrogates distilled from what the surface answers to the training images: from its labels, and from its scores."""
    images, held_out, surface = dataset.train.images, dataset.validation.images, defence.surface

    def labels(network: nn.Module, state: Path) -> None:
        told = Split(images, ask(surface, images).argmax(1).cpu())
        _classifier(network, told, dataset, schedule, seed, state, f"from {defence.name}'s labels", show)

    def scores(network: nn.Module, state: Path) -> None:
        told, validation = ask(surface, images), Split(held_out, ask(surface, held_out).argmax(1).cpu())
        name = f"from {defence.name}'s scores"
        training.distilled(
            network,
            images,
            told * level(told[:1000]),
            validation,
            schedule=schedule,
            seed=seed,
            state=state,
            show=show,
            name=name,
        )

    def make() -> nn.Module:
        return small(dataset.shape, len(dataset.classes))

    return {
        "labels of it": keep(f"stolen-labels-{defence.name}", make, labels),
        "scores of it": keep(f"stolen-scores-{defence.name}", make, scores),
    }


def transferred(
    defence: Defence,
    trained: Mapping[str, nn.Module],
    copied: Mapping[str, nn.Module],
    images: Tensor,
    setting: Setting,
) -> Iterator[Try]:
    """Attacks on each surrogate alone, on those of the labels together, and on all of them with the surface.

    Args:
        defence: shown the examples.
        trained: by `independent`.
        copied: by `stolen`.
        images: clean ones, for bringing logits to one level.
        setting: of the audit.
    """
    levelled = [Levelled(model, images) for model in trained.values()]
    together = ensemble(*levelled).eval()
    everything = ensemble(*levelled, Levelled(defence.surface, images)).eval()
    models: dict[str, nn.Module] = {
        **trained,
        **copied,
        "surrogates": together,
        f"surrogates and {defence.shown}": everything,
    }
    for on, model in models.items():
        for name in setting.budget.surrogate:
            yield named(3, name, on, model, setting)


def _classifier(
    network: nn.Module,
    train: Split,
    dataset: Dataset,
    schedule: Schedule,
    seed: int,
    state: Path,
    name: str,
    show: bool,
) -> None:
    training.classifier(
        network, train, dataset.validation, schedule=schedule, seed=seed, state=state, name=name, show=show
    )


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")
