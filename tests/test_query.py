"""Attacks that only ask: how often, what, and what they find."""

from functools import partial

import pytest
import torch

from luring.attacks import nes, preset, spsa, square, zoo
from luring.attacks.query import HALVINGS
from luring.errors import InputError
from test_attacks import generator, linear, net, rand, randn

torch.set_num_threads(1)

ATTACKS = {
    "square": square,
    "spsa": partial(spsa, samples=4),
    "nes": partial(nes, samples=4),
    "zoo": partial(zoo, coordinates=4),
}
X, Y = rand(6, 1, 6, 6, seed=4), torch.tensor([0, 3, 1, 2, 0, 1])
WEIGHT = randn(1, 5, 5, seed=1)
MIDDLE = 0.4 + 0.2 * rand(4, 1, 5, 5)
SIDES = torch.tensor([0, 1, 0, 1])


class Watched:
    """A model that remembers what it was shown."""

    def __init__(self, model):
        self.model, self.shown = model, []

    def __call__(self, images):
        assert not torch.is_grad_enabled()
        self.shown.append(images.clone())
        return self.model(images)


@pytest.fixture(params=ATTACKS)
def attack(request):
    return ATTACKS[request.param]


def out_of_reach(images):
    """Class 0 beats class 1 whatever the image; how clearly, depends on it."""
    score = (images * WEIGHT).flatten(1).sum(1)
    return torch.stack([100 - score, score], 1)


def test_queries_are_counted_image_by_image(attack):
    model = net()
    found = attack(model, X, Y, eps=0.03, budget=60, generator=generator())
    assert found.fooled.any()
    assert not found.fooled.all()
    watched = Watched(model)
    again = attack(watched, X, Y, eps=0.03, budget=60, generator=generator())
    assert int(again.queries.sum()) == sum(map(len, watched.shown))
    for i in range(len(X)):
        watched = Watched(model)
        alone = attack(watched, X[i : i + 1], Y[i : i + 1], eps=0.03, budget=60, generator=generator())
        assert alone.queries.tolist() == [sum(map(len, watched.shown))]
    assert torch.equal(found.fooled, model(found.images).argmax(1) != Y)


@pytest.mark.parametrize("budget", [1, 8, 9, 10, 17, 18, 40])
def test_the_budget_is_used_and_never_exceeded(attack, budget):
    x, y = MIDDLE, torch.zeros(4, dtype=torch.int64)
    found = attack(out_of_reach, x, y, eps=0.1, budget=budget, generator=generator())
    whole = budget if attack is square else budget // 9 * 9
    assert found.queries.tolist() == [whole] * 4
    assert not found.fooled.any()
    if whole == 0:
        assert torch.equal(found.images, x)


def test_an_image_that_fools_the_model_is_not_asked_about_again(attack):
    found = attack(lambda images: -net()(images) * 0 + torch.tensor([0.0, 1, 0, 0]), X, Y, eps=0.1, budget=60)
    assert found.fooled.tolist() == (Y != 1).tolist()
    first = 1 if attack is square else 9
    assert found.queries[Y != 1].tolist() == [first] * 4


@pytest.mark.parametrize(
    "attack",
    [
        partial(square, budget=600),
        partial(spsa, samples=256, budget=513 * 10),
        partial(nes, samples=256, budget=513 * 10),
        partial(zoo, coordinates=10, budget=21 * 40),
    ],
    ids=ATTACKS,
)
def test_the_corner_where_a_linear_model_is_worst_is_found(attack):
    y, eps, weight = torch.zeros(4, dtype=torch.int64), 0.05, WEIGHT.sign()

    def model(images):
        score = (images * weight).flatten(1).sum(1)
        return torch.stack([100 - score, score], 1)

    found = attack(model, MIDDLE, y, eps=eps, generator=generator())
    torch.testing.assert_close(found.images, MIDDLE + eps * weight, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("attack", "far"), [(partial(spsa, delta=0.02), 0.02), (partial(nes, sigma=0.005), 0.05)])
def test_pairs_lie_on_both_sides_of_the_image(attack, far):
    watched = Watched(out_of_reach)
    attack(watched, MIDDLE, torch.zeros(4, dtype=torch.int64), eps=0.1, budget=9, samples=4, generator=generator())
    *pairs, _ = watched.shown
    for plus, minus in zip(pairs[::2], pairs[1::2], strict=True):
        torch.testing.assert_close((plus + minus) / 2, MIDDLE)
        assert 0 < (plus - MIDDLE).abs().max() <= far + 1e-9


def test_square_changes_one_square_of_the_planned_size():
    size, budget, share = 12, 300, 0.5
    watched = Watched(lambda images: torch.stack([9 + images.sum((1, 2, 3)), -images.sum((1, 2, 3))], 1))
    x, y = torch.full((1, 3, size, size), 0.5), torch.zeros(1, dtype=torch.int64)
    square(watched, x, y, eps=0.1, budget=budget, share=share, generator=generator())
    stripes, *proposals = watched.shown
    assert (stripes == stripes[:, :, :1]).all(), "the stripes are vertical"
    best = stripes
    for done, proposal in enumerate(proposals, start=1):
        changed = (proposal != best).any(1)[0]
        rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
        halved = len([limit for limit in HALVINGS if done / budget * 10000 > limit])
        side = max(1, round((share / 2**halved) ** 0.5 * size))
        assert 1 <= rows.max() - rows.min() + 1 <= side
        assert 1 <= columns.max() - columns.min() + 1 <= side
        if proposal.sum() < best.sum():
            best = proposal
    assert (best == 0.4).float().mean() > (stripes == 0.4).float().mean() + 0.2


def test_a_target_is_reached(attack):
    found = attack(linear(WEIGHT), MIDDLE, SIDES, eps=0.3, budget=2000, targeted=True, generator=generator())
    assert found.fooled.all()
    assert linear(WEIGHT)(found.images).argmax(1).tolist() == SIDES.tolist()


def test_probabilities_will_do(attack):
    y = linear(WEIGHT)(MIDDLE).argmax(1)
    found = attack(lambda x: linear(WEIGHT)(x).softmax(1), MIDDLE, y, eps=0.3, budget=2000, generator=generator())
    assert found.fooled.all()
    assert (linear(WEIGHT)(found.images).argmax(1) != y).all()


def test_presets_give_the_images():
    made = preset("square", eps=0.1, budget=20)(net(), X, Y)
    assert torch.equal(made, square(net(), X, Y, eps=0.1, budget=20, generator=generator(0)).images)


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (partial(square, budget=0), "budget is 0"),
        (partial(square, budget=9, share=1.5), "share is 1.5: give a number from 0 to 1"),
        (partial(spsa, budget=9, samples=0), "samples is 0"),
        (partial(spsa, budget=9, delta=0.0), "delta is 0: give a finite number above 0"),
        (partial(nes, budget=9, sigma=-1.0), "sigma is -1"),
        (partial(nes, budget=9, step=-1.0), "step is -1"),
    ],
)
def test_impossible_settings_are_refused(attack, words):
    with pytest.raises(InputError, match=words):
        attack(net(), X, Y, eps=0.1)
