"""What the audit asks of networks and of its adversary's own images: no more than it must."""

import pytest
import torch

from luring import answers, data, networks
from luring.audit import surrogates
from luring.audit.decision import REFUSED, starts
from luring.audit.defence import remembering
from luring.audit.run import drawn
from luring.training import Schedule

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def network(digits):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return networks.make_target("plain", digits.shape, 10).eval()


def test_a_network_is_asked_about_the_same_images_once(network, digits):
    images, asked, ask = digits.test.images, [], remembering()
    counting = network.register_forward_hook(lambda *_: asked.append(1))
    try:
        first = ask(network, images[:300])
        once = len(asked)
        assert ask(network, images[:300]) is first
        assert len(asked) == once > 0
        assert len(ask(network, images[:200])) == 200
        assert len(asked) > once
    finally:
        counting.remove()
    # Without the hook the network is simplified first, and answers the same.
    assert torch.allclose(remembering()(network, images), answers.logits(network, images), atol=1e-5)


def test_a_walk_begins_at_the_nearest_image_that_can_serve(digits):
    x, y = drawn(digits, 30, 0).images, drawn(digits, 30, 0).labels
    held, truth = digits.validation.images[:60], digits.validation.labels[:60]
    seen = torch.where(torch.arange(60) % 3 == 0, REFUSED, truth)
    start, known = starts(x, y, held, seen, truth)
    assert known.all()
    for image, label, begun in zip(x, y, start, strict=True):
        able = [
            one
            for one, told, real in zip(held, seen, truth, strict=True)
            if told not in (REFUSED, label) and real != label
        ]
        assert torch.equal(begun, min(able, key=lambda one: float((one - image).norm())))
    # Where all are of its own class, or refused, there is none.
    assert not starts(x, y, held, torch.full_like(seen, REFUSED), truth)[1].any()


def test_a_short_training_takes_from_all_of_the_data(digits):
    short = surrogates.seen(digits, Schedule(3, batch=32))
    assert len(short.train.labels) == 96
    places = [int((digits.train.images == one).flatten(1).all(1).nonzero()[0]) for one in short.train.images[[0, -1]]]
    assert places[0] < 30
    assert places[1] > len(digits.train.labels) - 30
    whole = surrogates.seen(digits, Schedule(1000))
    assert torch.equal(whole.train.images, digits.train.images)
