"""Attacks that look more than once a step, against their papers' algorithms written out with plain cross-entropy."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from scipy.fft import dctn, idctn

from luring.attacks import admix, bim, chain, diversity, mim, ni, pgn, scales, si_ni, smoothing, ssa, variance, vmi, vni
from luring.attacks.slopes import flat
from luring.attacks.transforms import cosines, looks, mixed, see_as_is, spectrum
from luring.errors import InputError
from test_attacks import generator, net, rand

torch.set_num_threads(1)

MODEL = net(classes=4)
X, Y = rand(3, 1, 6, 6, seed=4), torch.tensor([0, 3, 1])
BUDGET = {"eps": 0.1, "step": 0.03, "steps": 4}


def slope(x, see=lambda x: x, model=MODEL, y=Y):
    """∇ of the cross-entropy, as the papers have it."""
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(see(leaf)), y, reduction="sum"), leaf)[0]


def by_the_paper(gradient, *, nesterov=False, decay=1.0):
    """MIM around a gradient of the papers'."""
    x, momentum = X.clone(), torch.zeros_like(X)
    for _ in range(BUDGET["steps"]):
        g = gradient(x + BUDGET["step"] * decay * momentum if nesterov else x)
        momentum = decay * momentum + g / g.abs().mean((1, 2, 3), keepdim=True)
        x = torch.clamp(x + BUDGET["step"] * momentum.sign(), X - BUDGET["eps"], X + BUDGET["eps"]).clamp(0, 1)
    return x


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def noise(radius, draws):
    return torch.empty_like(X).uniform_(-radius, radius, generator=draws)


def variance_of_the_paper(draws, samples, beta):
    last = torch.zeros_like(X)

    def gradient(x):
        nonlocal last
        own = slope(x)
        tuned = own + last
        last = sum(slope(x + noise(beta * BUDGET["eps"], draws)) for _ in range(samples)) / samples - own
        return tuned

    return gradient


def test_ni_looks_ahead():
    close(ni(MODEL, X, Y, **BUDGET), by_the_paper(slope, nesterov=True))


def test_si_ni_averages_over_halves():
    halves = lambda x: sum(slope(x, see=lambda x, i=i: x / 2**i) for i in range(4)) / 4  # noqa: E731
    close(si_ni(MODEL, X, Y, copies=4, **BUDGET), by_the_paper(halves, nesterov=True))


@pytest.mark.parametrize(("attack", "nesterov"), [(vmi, False), (vni, True)])
def test_variance_tuning(attack, nesterov):
    ours = attack(MODEL, X, Y, samples=3, beta=1.2, generator=generator(5), **BUDGET)
    close(ours, by_the_paper(variance_of_the_paper(generator(5), 3, 1.2), nesterov=nesterov))


def test_the_gradient_norm_is_penalised():
    draws = generator(6)

    def gradient(x):
        total = 0
        for _ in range(3):
            near = x + noise(2.0 * BUDGET["eps"], draws)
            here = slope(near)
            below = slope(near - BUDGET["step"] * here / here.abs().mean((1, 2, 3), keepdim=True))
            total += (0.7 * here + 0.3 * below) / 3
        return total

    ours = pgn(MODEL, X, Y, samples=3, zeta=2.0, delta=0.3, generator=generator(6), **BUDGET)
    close(ours, by_the_paper(gradient))


def test_the_spectrum_is_shaken():
    draws = generator(7)

    def once(x):
        g = torch.empty_like(X).normal_(0, 0.05, generator=draws)
        gain = torch.empty_like(X).uniform_(0.6, 1.4, generator=draws)
        shown = lambda x: idct(dct(x + g) * gain)  # noqa: E731
        return slope(x, see=shown)

    ours = ssa(MODEL, X, Y, samples=3, sigma=0.05, rho=0.4, generator=generator(7), **BUDGET)
    close(ours, by_the_paper(lambda x: sum(once(x) for _ in range(3)) / 3))


def dct(x):
    matrix = torch.from_numpy(dctn(torch.eye(6).double().numpy(), axes=[0], norm="ortho"))
    return matrix @ x @ matrix.mT


def idct(x):
    matrix = torch.from_numpy(idctn(torch.eye(6).double().numpy(), axes=[0], norm="ortho"))
    return matrix @ x @ matrix.mT


def test_admix_adds_a_little_of_another_image():
    draws = generator(8)

    def gradient(x):
        # One draw a look, and every mixture is looked at in both scales.
        seen = []
        for _ in range(2):
            for factor in (1.0, 0.5):
                by = int(torch.randint(1, 3, (1,), generator=draws))
                other = x.detach().roll(-by, 0)
                seen.append(slope(x, see=lambda x, other=other, factor=factor: factor * (x + 0.2 * other)))
        return sum(seen) / 4

    close(admix(MODEL, X, Y, others=2, copies=2, generator=generator(8), **BUDGET), by_the_paper(gradient))


@pytest.mark.parametrize(
    ("special", "plain"),
    [
        (partial(ni, decay=0.0), partial(mim, decay=0.0)),
        (partial(ni, decay=0.0), bim),
        (partial(si_ni, copies=1), ni),
        (partial(vmi, beta=0.0), mim),
        (partial(vni, beta=0.0), ni),
        (partial(pgn, zeta=0.0, delta=0.0), mim),
        (partial(admix, others=1, portion=0.0, copies=1), mim),
        (partial(ssa, sigma=0.0, rho=0.0), mim),
    ],
)
def test_limits(special, plain):
    close(special(MODEL, X, Y, **BUDGET), plain(MODEL, X, Y, **BUDGET))


@pytest.mark.parametrize("attack", [si_ni, vmi, pgn, ssa, admix])
def test_a_saturated_softmax_does_not_stop_them(attack):
    steep = net(classes=4, dtype=torch.float32)
    x = X.float()
    model = lambda images: steep(images) * 1e5  # noqa: E731
    own = model(x).argmax(1)
    assert not slope(x, model=model, y=own).any(), "the cross-entropy itself should have vanished"
    moved = (attack(model, x, own, **BUDGET) - x).abs()
    assert (moved.flatten(1).amax(1) > 0.09).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targeted", [False, True])
def test_everything_goes_together(norm, targeted):
    made = mim(
        MODEL,
        X,
        Y,
        see=chain(scales(3), diversity(0.5)),
        smooth=smoothing(3),
        estimate=variance(2),
        nesterov=True,
        norm=norm,
        targeted=targeted,
        generator=generator(),
        **BUDGET,
    )
    difference = (made - X).flatten(1)
    length = difference.abs().amax(1) if norm == "linf" else difference.norm(dim=1)
    assert (length <= BUDGET["eps"] + 1e-9).all()
    assert made.min() >= 0
    assert made.max() <= 1
    better = F.cross_entropy(MODEL(made), Y, reduction="none") > F.cross_entropy(MODEL(X), Y, reduction="none")
    assert (better != targeted).all()


def test_a_chain_is_every_combination_first_things_first():
    plus = lambda images, _: images + 1  # noqa: E731
    double, triple = (lambda images, _, k=k: images * k for k in (2, 3))
    shown = [see(torch.zeros(1), None).item() for see in chain(plus, (double, triple), (see_as_is, plus))]
    assert shown == [2, 3, 3, 4]


def test_the_other_image_of_admix_is_another_one():
    (see,) = mixed(others=1, portion=1.0)
    own = torch.eye(4).view(4, 1, 2, 2)
    for seed in range(20):
        assert (see(own, generator(seed)).flatten(1).amax(1) == 1).all()
    alone = torch.ones(1, 1, 2, 2)
    assert torch.equal(see(alone, generator()), 2 * alone)


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_thecosines_are_the_orthonormal_transform(size):
    matrix = cosines(size)
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(size, dtype=torch.float64))
    signal = rand(size)
    torch.testing.assert_close(matrix @ signal, torch.from_numpy(dctn(signal.numpy(), norm="ortho")))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (partial(scales, 0), "copies is 0"),
        (partial(mixed, 0), "others is 0"),
        (partial(mixed, portion=1.5), "portion is 1.5"),
        (partial(spectrum, 0), "samples is 0"),
        (partial(spectrum, sigma=-1.0), "sigma is -1"),
        (partial(spectrum, rho=math.nan), "rho is nan"),
        (partial(variance, 0), "samples is 0"),
        (partial(variance, beta=-1.0), "beta is -1"),
        (partial(flat, 0), "samples is 0"),
        (partial(flat, zeta=math.inf), "zeta is inf"),
        (partial(flat, delta=2.0), "delta is 2: give a number from 0 to 1"),
        (partial(looks, ()), "see is empty"),
    ],
)
def test_impossible_settings_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
