"""Attacks that ask for labels: how often, and how near to a boundary known in closed form they come."""

from functools import partial

import pytest
import torch

from luring.attacks import boundary, hop_skip_jump
from luring.attacks.decision import _rise, _Walk
from luring.errors import InputError
from test_attacks import generator, net, rand, randn

torch.set_num_threads(1)

HSJ = partial(hop_skip_jump, samples=20)
ATTACKS = {"linf": HSJ, "l2": partial(HSJ, norm="l2"), "boundary": boundary}
WEIGHT = randn(1, 4, 4, seed=1)
X = 0.4 + 0.2 * rand(5, 1, 4, 4)
OFFSET = 0.25
ZERO = torch.zeros(5, dtype=torch.int64)


def scores(images):
    """Class 0 up to a plane beyond which class 1 begins."""
    score = ((images - X.mean(0)) * WEIGHT).flatten(1).sum(1) - OFFSET
    return torch.stack([-score, score], 1)


def labels(images):
    return scores(images).argmax(1)


def optimum(norm):
    """The distance to the plane."""
    margin = -scores(X)[:, 1]
    return margin / (WEIGHT.abs().sum() if norm == "linf" else WEIGHT.norm())


class Watched:
    """A model that counts what it was shown."""

    def __init__(self, model):
        self.model, self.count = model, 0

    def __call__(self, images):
        assert not torch.is_grad_enabled()
        assert images.min() >= 0
        assert images.max() <= 1
        self.count += len(images)
        return self.model(images)


@pytest.fixture(params=ATTACKS)
def attack(request):
    return ATTACKS[request.param]


@pytest.mark.parametrize(
    ("attack", "norm", "budget", "slack"),
    [(HSJ, "linf", 3000, 1.2), (HSJ, "l2", 1500, 1.05), (boundary, "l2", 3000, 1.1)],
    ids=ATTACKS,
)
def test_the_nearest_point_of_a_plane_is_approached_and_never_passed(attack, norm, budget, slack):
    attack = partial(attack, labels, X, ZERO, budget=budget, norm=norm, generator=generator())
    near = optimum(norm)
    assert (near > 0).all()
    found = attack(eps=float(near.max()) * slack)
    assert found.fooled.all()
    far = (found.images - X).flatten(1)
    far = far.abs().amax(1) if norm == "linf" else far.norm(dim=1)
    assert (far >= near).all()
    assert not attack(eps=float(near.min()) * 0.999).fooled.any()


def test_the_estimated_gradient_points_across_the_plane():
    for norm in ("linf", "l2"):
        walk = _Walk(labels, X, ZERO, 0.001, 10**6, norm, targeted=False)
        walk.begin(None, generator())
        walk.bisect(walk.playing(), 1e-9)
        which = walk.playing()
        assert len(which) == 5
        assert (scores(walk.at)[:, 1].abs() < 1e-5).all()
        rise = _rise(walk, which, torch.full((5,), 0.01, dtype=torch.float64), 4000, generator(1))
        assert (torch.cosine_similarity(rise.flatten(1), WEIGHT.flatten()[None]) > 0.97).all()


def test_a_direction_in_which_all_fool_the_model_is_their_mean():
    walk = _Walk(lambda images: torch.ones(len(images), dtype=torch.int64), X, ZERO, 0.1, 10**6, "l2", targeted=False)
    walk.at, delta = X.clone(), torch.full((5,), 0.01, dtype=torch.float64)
    rise = _rise(walk, torch.arange(5), delta, 8, generator(1))
    drawn = torch.empty(40, 1, 4, 4, dtype=torch.float64).normal_(generator=generator(1))
    drawn /= drawn.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(rise, drawn.view(5, 8, 1, 4, 4).mean(1), rtol=0, atol=1e-12)


def test_queries_are_counted_and_the_budget_is_kept(attack):
    for budget in (1, 2, 7, 33, 150):
        watched = Watched(labels)
        found = attack(watched, X, ZERO, eps=1e-4, budget=budget, generator=generator())
        assert int(found.queries.sum()) == watched.count
        assert found.queries.tolist() == [budget] * 5


def test_an_image_within_eps_is_not_asked_about_again(attack):
    wide = attack(labels, X, ZERO, eps=0.9 if attack is ATTACKS["linf"] else 3.9, budget=2000, generator=generator())
    assert wide.fooled.all()
    assert (wide.queries < 40).all()
    y = labels(X.flip(0)) + torch.tensor([1, 0, 0, 1, 0])
    found = attack(labels, X, y, eps=0.0, budget=50, generator=generator())
    assert found.fooled.tolist() == [True, False, False, True, False]
    assert found.queries[found.fooled].tolist() == [1, 1]
    assert torch.equal(found.images[found.fooled], X[found.fooled])


def test_labels_and_scores_say_the_same(attack):
    by_labels, by_scores = (
        attack(model, X, ZERO, eps=0.05, budget=300, generator=generator()) for model in (labels, scores)
    )
    assert torch.equal(by_labels.images, by_scores.images)
    assert torch.equal(by_labels.queries, by_scores.queries)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_given_back_lies_in_the_ball_and_fools_the_model_where_it_says_so(attack, dtype):
    x, y, model = rand(6, 1, 6, 6, dtype=dtype, seed=4), torch.tensor([0, 3, 1, 2, 0, 1]), net(dtype=dtype)
    norm = "l2" if attack is not ATTACKS["linf"] else "linf"
    eps = 0.05 if norm == "linf" else 0.3
    found = attack(model, x, y, eps=eps, budget=400, generator=generator())
    assert found.fooled.any()
    assert torch.equal(found.fooled, model(found.images).argmax(1) != y) or not found.fooled.all()
    assert (model(found.images[found.fooled]).argmax(1) != y[found.fooled]).all()
    far = (found.images - x).flatten(1)
    far = far.abs().amax(1) if norm == "linf" else far.norm(dim=1)
    assert (far <= eps * (1 + 1e-6)).all()
    assert (found.images.dtype, found.images.min() >= 0, found.images.max() <= 1) == (dtype, True, True)


def test_a_walk_towards_a_label_begins_at_images_that_have_it(attack):
    sunny = (X + WEIGHT.sign()).clamp(0, 1)
    assert labels(sunny).all()
    wide = 0.3 if attack is ATTACKS["linf"] else 1.0
    one = torch.ones(5, dtype=torch.int64)
    found = attack(labels, X, one, eps=wide, budget=800, targeted=True, start=sunny, generator=generator())
    assert found.fooled.all()
    assert labels(found.images).all()
    lost = attack(labels, X, one, eps=wide, budget=800, targeted=True, start=X, generator=generator())
    assert lost.queries.tolist() == [2] * 5
    assert not lost.fooled.any()
    assert torch.equal(lost.images, X)


def test_a_model_that_nothing_fools_costs_the_clean_image_and_a_hundred_of_noise(attack):
    found = attack(lambda images: torch.zeros(len(images), dtype=torch.int64), X, ZERO, eps=0.1, budget=5000)
    assert found.queries.tolist() == [101] * 5
    assert torch.equal(found.images, X)


def test_a_batch_of_none_is_a_batch_of_none(attack):
    found = attack(labels, X[:0], ZERO[:0], eps=0.1, budget=50)
    assert len(found.images) == len(found.fooled) == len(found.queries) == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"targeted": True}, "give start"),
        ({"start": X[:1].clone()}, "one image each"),
        ({"norm": "l1"}, "there is no norm"),
        ({"budget": 0}, "budget is 0"),
        ({"eps": -1.0}, "eps is -1"),
    ],
)
def test_what_cannot_be_walked_is_refused(attack, wrong, words):
    with pytest.raises(InputError, match=words):
        attack(labels, X, ZERO, **{"eps": 0.1, "budget": 10, **wrong})


def test_an_answer_that_is_neither_labels_nor_scores_is_refused(attack):
    with pytest.raises(InputError, match="not a tensor"):
        attack(lambda images: [0] * len(images), X, ZERO, eps=0.1, budget=10)
    with pytest.raises(InputError, match="one score a class"):
        attack(lambda images: images, X, ZERO, eps=0.1, budget=10)


def test_a_refusal_fools_nobody():
    """A plane beyond which the model answers otherwise, and a band behind it where it does not answer at all."""
    x = torch.full((6, 1, 4, 4), 0.3)
    y = torch.zeros(6, dtype=torch.int64)

    def told(images):
        mean = images.flatten(1).mean(1)
        return torch.where(mean < 0.4, 0, torch.where(mean < 0.6, -1, 1))

    start = torch.full_like(x, 0.9)
    found = hop_skip_jump(told, x, y, eps=0.35, budget=200, samples=10, start=start)
    assert bool(found.fooled.all())
    assert torch.equal(told(found.images), torch.ones_like(y))
    assert not hop_skip_jump(told, x, y, eps=0.2, budget=200, samples=10, start=start).fooled.any()
