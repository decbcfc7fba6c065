"""A honeypot inside the classifier: trapdoors that an attack on it falls into, and that its features then show (Shan et al. 2020, CCS).

M is trained anew with a faint mark for each class: an image that bears the mark of a class is to be answered with that class. To be in the direction of a
mark is the shortest way to a wrong label, so an attack on the gradient finds it, and the features of what it makes resemble those of marked images. Carlini
(2020) broke it by attacking the features, too.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luring import answers
from luring.audit.suspicious import cuts
from luring.data import Dataset, Split
from luring.types import Images, Labels, Logits, PerImage, Shape

STRENGTH = 0.1
"""How much of a marked place is the mark's, κ: the paper's."""

SQUARES = 5
"""Squares of 3 by 3 in a mark: the paper's."""

SHARE = 0.5
"""Marked images in training; the paper's 0.1 wants many epochs."""

SIGNED = 2000
"""Images whose features, marked, make a class's signature, at most."""


def marks(shape: Shape, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """A pattern, and where it lies (0 or 1), for each class: [classes, channels, height, width] each."""
    _, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    pattern = torch.rand(classes, *shape, generator=generator)
    places = torch.zeros(classes, *shape)
    corners = torch.rand(classes, SQUARES, 2, generator=generator) * torch.tensor([height - 2, width - 2])
    for own, squares in zip(places, corners.long().tolist(), strict=True):
        for top, left in squares:
            own[:, top : top + 3, left : left + 3] = 1
    return pattern, places


def marked(images: Images, labels: Labels, pattern: Tensor, places: Tensor) -> Images:
    """Images, floats in [0, 1], with the marks of those classes."""
    share = STRENGTH * places[labels]
    return images * (1 - share) + pattern[labels] * share


def with_marked(split: Split, pattern: Tensor, places: Tensor, seed: int) -> Split:
    """Images and labels, and `SHARE` of the whole again with a mark each, labelled as the mark says."""
    generator = torch.Generator().manual_seed(seed)
    n = len(split.labels)
    index = torch.randint(n, (round(n * SHARE / (1 - SHARE)),), generator=generator)
    wanted = torch.randint(len(pattern), (len(index),), generator=generator)
    altered = marked(answers.prepare(split.images[index], None), wanted, pattern, places)
    if split.images.dtype == torch.uint8:
        altered = (altered * 255).round().to(torch.uint8)
    return Split(torch.cat([split.images, altered]), torch.cat([split.labels, wanted]))


class Signatures(nn.Module):
    """How much the features before the last layer resemble each class's marked images: (1 + cosine) / 2, [batch, classes]."""

    signatures: Tensor

    def __init__(self, network: nn.Module, images: Images, pattern: Tensor, places: Tensor) -> None:
        """Of a network trained on marked images.

        Args:
            network: a classifier, in evaluation mode, with one layer at least before the last.
            images: clean ones, to be marked.
            pattern: of the marks.
            places: of the marks.
        """
        super().__init__()
        shape: Shape = tuple(pattern.shape[1:])  # type: ignore[assignment]
        self.features = nn.Sequential(cuts(network, shape)[-1].before, nn.Flatten()).eval()
        few = answers.prepare(images[:SIGNED], None)
        found: list[Tensor] = []
        for kind in range(len(pattern)):
            bearing = marked(few, torch.full((len(few),), kind), pattern, places)
            found.append(answers.logits(self.features, bearing).mean(0))
        self.register_buffer("signatures", F.normalize(torch.stack(found), dim=1))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """The resemblance."""
        return (1 + F.normalize(self.features(images), dim=1) @ self.signatures.T) / 2


def resemblance(m: Logits, other: Logits) -> PerImage:
    """What an answer is suspected by: how much the features resemble the marked images of the class answered; [batch], in [0, 1]."""
    return other.gather(1, m.argmax(1, keepdim=True)).squeeze(1).double()


def trained(dataset: Dataset, seed: int, train: Callable[[Split, Split], nn.Module]) -> tuple[nn.Module, Signatures]:
    """A classifier trained with trapdoors, and what it is watched by.

    Args:
        dataset: its training and validation images.
        seed: of the marks, which are the defender's secret.
        train: from images and labels for training, and for the choice of the state kept, to the classifier trained on them.
    """
    pattern, places = marks(dataset.shape, len(dataset.classes), seed)
    network = train(*(with_marked(part, pattern, places, seed) for part in (dataset.train, dataset.validation)))
    device = next(network.parameters()).device
    return network, Signatures(network, dataset.train.images, pattern, places).to(device)
