"""The honeypot rival: trapdoors are learned, seen again in the features, and cost a clean image nothing."""

import pytest
import torch

from luring import answers, data, networks, training
from luring.attacks import apgd
from luring.audit.controls import schedule
from luring.audit.defence import DETECTED, Defence, calibrated
from luring.audit.trapdoor import STRENGTH, marked, marks, trained, with_marked

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def honeypot():
    """Digits, a classifier with trapdoors, what watches it, and the defence of both."""
    digits = data.load("digits")

    def train(train, validation):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = networks.make_target("plain", digits.shape, 10)
        training.classifier(network, train, validation, schedule=schedule(800), show=False)
        return network

    network, watch = trained(digits, 0, train)
    held_out = digits.train.images  # more than the 260 validation images: a threshold at 2 % wants some
    policies = calibrated(network, watch, ("signature",), held_out, held_out, 0.02)
    return digits, network, watch, Defence("trapdoor", network, watch, network, "M", policies)


def test_a_mark_is_faint_and_in_its_places_alone():
    pattern, places = marks((3, 12, 10), 4, 0)
    images, labels = torch.rand(8, 3, 12, 10), torch.arange(8) % 4
    moved = (marked(images, labels, pattern, places) - images).abs()
    assert moved.max() <= STRENGTH
    assert not moved[places[labels] == 0].any()
    assert (moved[places[labels] == 1] > 0).all()
    assert len({one.sum().item() for one in pattern}) == 4
    assert all(torch.equal(*pair) for pair in zip(marks((3, 12, 10), 4, 0), (pattern, places), strict=True))


def test_half_of_what_is_trained_on_bears_the_mark_of_its_label():
    split = data.Split(torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8), torch.randint(0, 3, (40,)))
    pattern, places = marks((1, 8, 8), 3, 0)
    found = with_marked(split, pattern, places, 0)
    assert len(found.labels) == 80
    assert torch.equal(found.images[:40], split.images)
    altered, kinds = found.images[40:], found.labels[40:]
    originals = split.images.float() / 255
    wanted = torch.stack([marked(originals, torch.full((40,), kind), pattern, places) for kind in range(3)])
    distance = (wanted[kinds] - altered[:, None] / 255).abs().amax((2, 3, 4)).amin(1)
    assert distance.max() <= 0.5 / 255 + 1e-6


def test_trapdoors_are_learned_and_seen_again(honeypot):
    digits, network, watch, defence = honeypot
    images, labels = answers.prepare(digits.test.images, None), digits.test.labels
    wanted = (labels + 3) % 10
    bearing = marked(images, wanted, *marks(digits.shape, 10, 0))
    assert (answers.labels(network, images) == labels).float().mean() >= 0.93
    assert (answers.labels(network, bearing) == wanted).float().mean() >= 0.9
    rejected = [(defence.fates(x, labels)["signature"] == DETECTED).float().mean() for x in (images, bearing)]
    assert rejected[0] <= 0.05
    assert rejected[1] >= 0.4
    resembled = answers.logits(watch, images)
    assert resembled.min() >= 0
    assert resembled.max() <= 1


def test_who_does_not_know_of_them_falls_in(honeypot):
    digits, network, _, defence = honeypot
    images, labels = answers.prepare(digits.test.images[:100], None), digits.test.labels[:100]
    fates = defence.fates(apgd(network, images, labels, eps=0.1, steps=15), labels)["signature"]
    assert (fates == DETECTED).float().mean() >= 0.3
