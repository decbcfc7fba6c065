"""The attacks of other libraries, on the same model and images: pixel for pixel, or by success within the spread of five seeds.

`sh scripts/test` installs the peers; where one is missing, its tests are skipped.
"""

import statistics
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from luring.attacks import apgd, bim, fgsm, hop_skip_jump, mim, mim_ti, pgd, spsa, square
from test_attacks import generator, rand

torch.set_num_threads(1)

pytestmark = [pytest.mark.filterwarnings("ignore")]  # the peers' own

SEEDS = range(5)


@pytest.fixture(autouse=True)
def _own_randomness():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = np.random.get_state()
        yield
        np.random.set_state(state)


class Counted(nn.Module):
    """A small smooth network that counts the images it is shown."""

    def __init__(self, channels=1, dtype=torch.float64):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.net = nn.Sequential(
                nn.Conv2d(channels, 8, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 5)
            ).to(dtype)
        self.shown = 0

    def forward(self, images):
        self.shown += len(images)
        return self.net(images) * 10


def pictures(n=24, channels=1, dtype=torch.float64):
    x = rand(n, channels, 8, 8, dtype=dtype, seed=5)
    return x, Counted(channels, dtype).eval()(x).argmax(1)


def frozen_model(**kind):
    return Counted(**kind).eval().requires_grad_(False)


def same(ours, theirs):
    """But for a pixel where the gradient is so near to 0 that rounding decides its sign."""
    assert ((ours - theirs).abs() > 1e-6).double().mean() <= 1e-3


STEPS = {"eps": 0.1, "step": 0.03, "steps": 7}


class TestPixelForPixel:
    def test_torchattacks(self):
        torchattacks = pytest.importorskip("torchattacks")
        (x, y), model = pictures(), frozen_model()
        theirs = {"eps": 0.1, "alpha": 0.03, "steps": 7}
        same(fgsm(model, x, y, eps=0.1), torchattacks.FGSM(model, eps=0.1)(x, y))
        same(bim(model, x, y, **STEPS), torchattacks.BIM(model, **theirs)(x, y))
        same(pgd(model, x, y, random_start=False, **STEPS), torchattacks.PGD(model, random_start=False, **theirs)(x, y))
        same(mim(model, x, y, decay=0.9, **STEPS), torchattacks.MIFGSM(model, decay=0.9, **theirs)(x, y))

    def test_torchattacks_in_colour(self):
        torchattacks = pytest.importorskip("torchattacks")
        (x, y), model = pictures(channels=3, dtype=torch.float32), frozen_model(channels=3, dtype=torch.float32)
        theirs = torchattacks.TIFGSM(
            model,
            eps=0.1,
            alpha=0.03,
            steps=7,
            decay=1.0,
            kernel_name="gaussian",
            len_kernel=5,
            nsig=3,
            diversity_prob=0.0,
        )
        # Their blurred gradient is rounded otherwise than ours.
        assert ((mim_ti(model, x, y, kernel=5, **STEPS) - theirs(x, y)).abs() > 1e-5).double().mean() <= 5e-3

    def test_cleverhans(self):
        pytest.importorskip("cleverhans")
        from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
        from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

        (x, y), model = pictures(dtype=torch.float32), frozen_model(dtype=torch.float32)
        box = {"norm": np.inf, "clip_min": 0, "clip_max": 1, "y": y}
        same(fgsm(model, x, y, eps=0.1), fast_gradient_method(model, x, 0.1, **box))
        made = projected_gradient_descent(model, x, 0.1, 0.03, 7, rand_init=False, **box)
        same(pgd(model, x, y, random_start=False, **STEPS), made)

    def test_foolbox(self):
        foolbox = pytest.importorskip("foolbox")
        (x, y), model = pictures(dtype=torch.float32), frozen_model(dtype=torch.float32)
        attack = foolbox.attacks.LinfPGD(abs_stepsize=0.03, steps=7, random_start=False)
        _, made, _ = attack(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=0.1)
        same(pgd(model, x, y, random_start=False, **STEPS), made)

    def test_art(self):
        pytest.importorskip("art")
        from art.attacks.evasion import ProjectedGradientDescent

        (x, y), model = pictures(dtype=torch.float32), frozen_model(dtype=torch.float32)
        attack = ProjectedGradientDescent(art(model), eps=0.1, eps_step=0.03, max_iter=7, verbose=False)
        made = torch.from_numpy(attack.generate(x.numpy(), y.numpy()))
        same(pgd(model, x, y, random_start=False, **STEPS), made)


class TestWhereAPeerDepartsFromThePaper:
    def test_foolbox_accumulates_signs(self):
        """Momentum over gradients of their own scale, instead of over gradients divided by their mean absolute value."""
        foolbox = pytest.importorskip("foolbox")
        (x, y), model = pictures(dtype=torch.float32), frozen_model(dtype=torch.float32)
        attack = foolbox.attacks.LinfMomentumIterativeFastGradientMethod(
            momentum=1.0, abs_stepsize=0.03, steps=30, random_start=False
        )
        _, made, _ = attack(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=0.5)
        ours = mim(model, x, y, eps=0.5, step=0.03, steps=30)
        assert ((ours - made).abs() > 1e-4).double().mean() > 0.02

    def test_torchattacks_stays_where_one_gradient_is_zero(self):
        """The momentum becomes NaN, its sign 0 or NaN, and the image stays or is lost; ours goes on."""
        torchattacks = pytest.importorskip("torchattacks")
        x, y = rand(2, 1, 8, 8, dtype=torch.float32), torch.tensor([0, 0])
        weight = torch.randn(64, generator=generator(1))

        class Flat(nn.Module):
            """Without a gradient at x, and with one beside it."""

            def forward(self, images):
                flat = images.flatten(1)
                score = ((flat - x.flatten(1)) ** 3) @ weight
                return torch.stack([-score, score], 1)

        theirs = torchattacks.MIFGSM(Flat().eval(), eps=0.1, alpha=0.03, steps=5)(x, y)
        assert theirs.isnan().any() or torch.equal(theirs, x)
        ours = mim(Flat().eval(), x, y, **STEPS)
        assert torch.equal(ours, x)  # no gradient, no step: but no NaN either
        started = pgd(Flat().eval(), x, y, generator=generator(), **STEPS)
        assert (Flat()(started).argmax(1) == 1).all()

    def test_torchattacks_blurs_colour_images_alone(self):
        torchattacks = pytest.importorskip("torchattacks")
        (x, y), model = pictures(dtype=torch.float32), frozen_model(dtype=torch.float32)
        with pytest.raises(RuntimeError, match="groups=3"):
            torchattacks.TIFGSM(model, steps=2, diversity_prob=0.0)(x, y)
        assert mim_ti(model, x, y, kernel=5, **STEPS).isfinite().all()

    def test_cleverhans_asks_around_twice_the_image(self):
        pytest.importorskip("cleverhans")
        from cleverhans.torch.attacks.spsa import spsa as theirs

        x, shown = torch.full((1, 1, 8, 8), 0.4), []

        def model(images):
            shown.append(images.clone())
            return images.flatten(1)[:, :5]

        theirs(model, x, 0.1, 1, y=torch.tensor([0]), clip_min=0, clip_max=1, spsa_samples=4, sanity_checks=False)
        pairs = next(images for images in shown if len(images) > 1)
        assert pairs.mean() > 0.7
        shown.clear()
        spsa(model, x, torch.tensor([0]), eps=0.1, budget=9, samples=4, generator=generator())
        assert all((images - x).abs().max() <= 0.1 + 0.01 + 1e-6 for images in shown)


def art(model):
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=(1, 8, 8),
        nb_classes=5,
        clip_values=(0, 1),
        device_type="cpu",
    )


def rates(attack, x, y):
    """Success and mean queries of each seed; an attack gives examples and queries."""
    model = frozen_model(dtype=x.dtype)
    found = []
    for seed in SEEDS:
        model.shown = 0
        torch.manual_seed(seed)
        np.random.seed(seed)
        made = attack(model, seed)
        shown = model.shown / len(x)
        found.append((float((model(made).argmax(1) != y).double().mean()), shown))
    return [list(column) for column in zip(*found, strict=True)]


def within_the_spread(ours, theirs, least):
    """The means differ by no more than three standard errors of their difference; by `least`, where there is no spread."""
    spread = (statistics.variance(ours) / len(ours) + statistics.variance(theirs) / len(theirs)) ** 0.5
    assert abs(statistics.mean(ours) - statistics.mean(theirs)) <= 3 * spread + least, (ours, theirs)


class TestBySuccess:
    def test_square(self, monkeypatch):
        """Theirs draws again where a square would change nothing never, the paper and ours until it does."""
        torchattacks = pytest.importorskip("torchattacks")
        x, y = pictures(40, dtype=torch.float32)

        def own(model, seed):
            return square(model, x, y, eps=0.08, budget=150, generator=generator(seed)).images

        drawn_again, _ = rates(own, x, y)
        monkeypatch.setattr("luring.attacks.query.REDRAWS", 1)
        ours, our_queries = rates(own, x, y)
        theirs, their_queries = rates(
            lambda model, seed: torchattacks.Square(model, eps=0.08, n_queries=150, n_restarts=1, seed=seed)(x, y), x, y
        )
        assert 0.2 < statistics.mean(ours) < 0.95
        within_the_spread(ours, theirs, 0.02)
        within_the_spread(our_queries, their_queries, 3)
        assert statistics.mean(drawn_again) > statistics.mean(theirs) + 0.03

    def test_spsa(self):
        torchattacks = pytest.importorskip("torchattacks")
        x, y = pictures(40, dtype=torch.float32)
        settings = {"eps": 0.06, "delta": 0.01}
        ours, _ = rates(
            lambda model, seed: (
                spsa(model, x, y, budget=65 * 10, samples=32, step=0.01, generator=generator(seed), **settings).images
            ),
            x,
            y,
        )
        theirs, _ = rates(
            lambda model, _: torchattacks.SPSA(model, lr=0.01, nb_iter=10, nb_sample=64, max_batch_size=64, **settings)(
                x, y
            ),
            x,
            y,
        )
        assert 0.2 < statistics.mean(ours) < 0.95
        # Ours stops at the first success, which a later step can only lose.
        assert statistics.mean(ours) >= statistics.mean(theirs) - 0.02
        within_the_spread(ours, theirs, 0.1)

    def test_apgd(self):
        torchattacks = pytest.importorskip("torchattacks")
        x, y = pictures(40, dtype=torch.float32)
        for loss in ("ce", "dlr"):
            ours, _ = rates(
                partial(
                    lambda loss, model, seed: apgd(
                        model, x, y, eps=0.05, steps=20, loss=loss, generator=generator(seed)
                    ),
                    loss,
                ),
                x,
                y,
            )
            theirs, _ = rates(
                partial(
                    lambda loss, model, seed: torchattacks.APGD(model, eps=0.05, steps=20, loss=loss, seed=seed)(x, y),
                    loss,
                ),
                x,
                y,
            )
            assert 0.2 < statistics.mean(ours) < 0.98
            within_the_spread(ours, theirs, 0.03)

    def test_hop_skip_jump(self):
        pytest.importorskip("cleverhans")
        from cleverhans.torch.attacks.hop_skip_jump_attack import hop_skip_jump_attack

        x, y = pictures(10, dtype=torch.float32)
        eps, shown = 0.6, []

        def peer(model, _):
            made = hop_skip_jump_attack(model, x, 2, initial_num_evals=40, num_iterations=5, verbose=False)
            shown.append(model.shown / len(x))
            near = (made - x).flatten(1).norm(dim=1) <= eps
            return torch.where(near.view(-1, 1, 1, 1), made, x)

        theirs, _ = rates(peer, x, y)
        budget = round(statistics.mean(shown))
        ours, _ = rates(
            lambda model, seed: (
                hop_skip_jump(
                    model, x, y, eps=eps, norm="l2", budget=budget, samples=40, generator=generator(seed)
                ).images
            ),
            x,
            y,
        )
        assert 0.1 < statistics.mean(ours) < 1
        within_the_spread(ours, theirs, 0.1)
