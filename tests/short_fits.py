"""Targets and lures fitted to the digits for a moment, and what an attack by the margin makes of them."""

import torch

from luring import answers, metrics, networks, training, transfer
from luring.attacks import preset
from luring.training import Schedule


def target_of(digits):
    torch.manual_seed(0)
    network = networks.make_target("plain", digits.shape, 10)
    training.classifier(network, digits.train, digits.validation, schedule=Schedule(200, lr=3e-3), show=False)
    return network.requires_grad_(False)


def fitted(digits, target, make, schedule, **asked):
    """The decoy of a lure that `make` gives for the images' shape."""
    torch.manual_seed(0)
    lure = make(digits.shape)
    training.lure(
        lure, target, digits.train.images, digits.validation.images, schedule=schedule, show=False, **asked
    )  # fmt: skip
    return networks.compose(lure, target)


def attacked(digits, target, decoy):
    """What PGD by the margin at 0.3 on the decoy does to both, and the decoy's accuracy."""
    clean = transfer.choose([target, decoy], digits.test.images, digits.test.labels, n=100)
    attack = preset("pgd", eps=0.3, step=0.03, steps=20, loss="margin")
    examples = transfer.craft(attack, decoy, clean, show=False)
    right = metrics.accuracy(answers.labels(decoy, digits.test.images), digits.test.labels)
    return transfer.transfer(target, decoy, examples, clean.labels).measures() | {"accuracy": right}
