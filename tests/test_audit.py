"""The audit audited: worthless defences are unmasked, robust ones not maligned, and what has a closed form is reached."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import nn

from luring import answers, data, networks, training
from luring.attacks.objectives import margin
from luring.audit import denial, knowing, sanity, tables, words
from luring.audit.budget import BUDGETS
from luring.audit.controls import calibrated, fresh
from luring.audit.decision import REFUSED, passing, shown
from luring.audit.defence import DETECTED, FOOLED, KEPT, Defence, Policy, divergence
from luring.audit.run import Ladder, compared, drawn
from luring.audit.suspicious import cuts
from luring.audit.tries import Setting
from luring.paper.experiments import EXPERIMENTS
from luring.paper.run import Run
from luring.training import Schedule
from luring.transfer import Clean

torch.set_num_threads(1)

TINY = replace(
    BUDGETS["quick"],
    n=40,
    few=10,
    steps=10,
    transfer=("fgsm", "apgd"),
    queries=150,
    checked=12,
    joint=("behind", "both", "ratio-behind"),
)


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")


@pytest.fixture(scope="session")
def network(digits):
    """A small classifier of digits, trained for real."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(192, 10)
        )
    training.classifier(
        made, digits.train, digits.validation, schedule=Schedule(250, lr=1e-2, validations=2), show=False
    )
    return made


def alone(model):
    """A classifier without a guard, whose attackers see it."""
    every = {"target": Policy(lambda m, _: torch.zeros_like(m[:, 0]), 0.5)}
    return Defence("base", model.eval(), None, model, "M", every)


def ladder(tmp_path, digits, *, eps, budget=TINY):
    experiment = replace(EXPERIMENTS["digits", "demo"], scale="tiny")
    clean = drawn(digits, budget.n, 0)
    run = Run(experiment, tmp_path, 0, "cpu", show=False)
    return Ladder(run, Setting(clean, eps, budget, 0), digits)


def climbed(tmp_path, digits, defence, *, eps):
    """The rungs without training, the worst of them, and all checks."""
    steps = ladder(tmp_path, digits, eps=eps)
    steps.climb(defence)
    fates = tables.worst(steps.run.rows, (0, 1, 2, 5, 6), "target")
    checks = [*sanity.measured(defence, steps.few), *compared(defence, steps.run.rows)]
    return steps.run.rows, fates, [check for check in checks if not check.passed]


class Saturated(nn.Module):
    """Probabilities of a softmax so steep that float32 and float64 know no gradient of it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return (1000 * self.model(images)).softmax(1)


class Quantised(nn.Module):
    """Images rounded to a few levels first: the gradient of rounding is 0."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model((images * 16).round() / 16)


class Noisy(nn.Module):
    """Noise on every image that is asked about."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images + 0.1 * torch.randn_like(images))


@pytest.fixture(scope="session")
def plain(tmp_path_factory, digits, network):
    return climbed(tmp_path_factory.mktemp("plain"), digits, alone(network), eps=MASKED)


MASKED = 0.2
"""Radius at which the masks are tried: the plain classifier is fooled nearly everywhere."""


class TestWorthlessDefences:
    def test_the_plain_classifier_fails_no_check_and_is_fooled_everywhere(self, plain):
        _, fates, failed = plain
        assert not failed
        assert (fates == FOOLED).mean() >= 0.95

    @pytest.mark.parametrize(("mask", "check"), [(Saturated, "gradient"), (Quantised, "gradient"), (Noisy, "repeat")])
    def test_a_mask_is_noticed_and_does_not_help(self, tmp_path, digits, network, plain, mask, check):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            rows, fates, failed = climbed(tmp_path, digits, alone(mask(network)), eps=MASKED)
        assert check in {one.name for one in failed}
        # On the images that queries are spent on, most is found even where the gradient says nothing.
        few = slice(0, TINY.few)
        assert (fates[few] == FOOLED).mean() >= (plain[1][few] == FOOLED).mean() - 0.3
        if mask is Saturated:
            # Believed on its own, the white box would have praised it.
            assert (tables.worst(rows, (1,), "target") == FOOLED).mean() <= 0.3
            assert "order" in {one.name for one in failed}


class TestALinearClassifier:
    def linear(self, seed=0):
        """Two classes, scores ±(w·x + b) / 2, on images whose ball does not touch the edges of [0, 1]."""
        generator = torch.Generator().manual_seed(seed)
        flat = nn.Linear(64, 2)
        weight = torch.randn(64, generator=generator)
        with torch.no_grad():
            flat.weight.copy_(torch.stack([-weight, weight]) / 2)
            flat.bias.copy_(torch.stack([weight.sum(), -weight.sum()]) / 4)
        x = 0.3 + 0.4 * torch.rand(60, 1, 8, 8, generator=generator)
        return nn.Sequential(nn.Flatten(), flat).eval(), x, weight

    def test_is_not_maligned_nor_flattered(self):
        model, x, weight = self.linear()
        y = answers.labels(model, x)
        distance = (x.flatten(1) @ weight - weight.sum() / 2).abs() / weight.abs().sum()
        eps = float(distance.median())
        clean = Clean(x, y, torch.arange(len(x)))
        setting = Setting(clean, eps, TINY, 0)
        worst = torch.zeros(len(x), dtype=torch.int64)
        for attempt in knowing.m_alone(alone(model), setting):
            if attempt.attack == "apgd":
                found = attempt.craft()
                worst = torch.maximum(worst, alone(model).fates(found.images, y)["target"])
        sure = (distance - eps).abs() > 1e-4
        assert sure.sum() >= 55
        assert torch.equal(worst[sure] == FOOLED, (distance < eps)[sure])

    def test_passes_every_check(self):
        model, x, _ = self.linear()
        y = answers.labels(model, x)
        setting = Setting(Clean(x, y, torch.arange(len(x))), 0.02, TINY, 0)
        assert all(check.passed for check in sanity.measured(alone(model), setting))

    def test_is_refused_as_soon_as_one_of_two_turns(self):
        """Agreement of two: the nearest rejected image lies where the nearer of both answers otherwise."""
        (first, x, w1), (second, _, w2) = self.linear(0), self.linear(1)
        agree = answers.labels(first, x) == answers.labels(second, x)
        x = x[agree]
        policy = Policy(lambda m, other: (m.argmax(1) != other.argmax(1)).double(), 0.5, smooth=False)
        defence = Defence("two", first, second, second, "M", {"agreement": policy})
        clean = Clean(x, answers.labels(first, x), torch.arange(len(x)))
        known = torch.stack([(x.flatten(1) @ w - w.sum() / 2).abs() / w.abs().sum() for w in (w1, w2)]).amin(0)
        found = denial.smallest(defence, policy, Setting(clean, 0.2, replace(TINY, steps=20), 0))
        assert found["n"] == len(x)
        assert found["rejected"] == 1
        truth = torch.quantile(
            known.double(), torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), interpolation="higher"
        )
        # An upper bound, within what halving and bisecting leave of it.
        for distance, least in zip(found["distances"], truth.tolist(), strict=True):
            assert least <= distance + 1e-6
            assert distance <= 1.1 * least + 0.2 / 2**denial.HALVINGS


def test_the_joint_attack_on_two_linear_models_reaches_the_optimum():
    """Whether both can be made to answer the other class at once is a linear programme."""
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(2, 2, 36, generator=generator)
    weights[1] = 0.4 * weights[0] + 0.6 * weights[1]
    models = []
    for weight in weights:
        flat = nn.Linear(36, 2)
        with torch.no_grad():
            flat.weight.copy_(weight)
            flat.bias.copy_(-weight.sum(1) / 2)
        models.append(nn.Sequential(nn.Flatten(), flat).eval())
    x = torch.rand(150, 1, 6, 6, generator=generator)
    y = answers.labels(models[0], x)
    both = y == answers.labels(models[1], x)
    x, y, eps = x[both], y[both], 0.09
    policy = Policy(lambda m, other: (m.argmax(1) != other.argmax(1)).double(), 0.5, smooth=False)
    defence = Defence("two", models[0], models[1], models[1], "M", {"agreement": policy})
    budget = replace(TINY, steps=100, joint=tuple(name for name in knowing.OBJECTIVES if "ratio" not in name))
    setting = Setting(Clean(x, y, torch.arange(len(x))), eps, budget, 0)
    made = knowing.crafted(defence, policy, x, y, setting, torch.Generator().manual_seed(0))
    fooled = policy.fates(*defence.logits(made), y) == FOOLED
    reachable = []
    for image, label in zip(x.flatten(1).double().numpy(), y.tolist(), strict=True):
        # Highest t with both margins of the other class at least t.
        rows = [[*-(w[1 - label] - w[label]).double().numpy(), 1.0] for w in weights]
        bounds = [float((model[1].bias[1 - label] - model[1].bias[label]).detach()) for model in models]
        box = [(max(0, v - eps), min(1, v + eps)) for v in image]
        best = linprog([0.0] * 36 + [-1.0], A_ub=rows, b_ub=bounds, bounds=[*box, (None, None)])
        reachable.append(-best.fun)
    reachable = torch.tensor(reachable)
    clear = reachable.abs() > 0.05
    assert 0.2 < (reachable[clear] > 0).double().mean() < 0.8
    assert not (fooled & (reachable < -1e-4)).any()
    assert (fooled[clear] == (reachable > 0)[clear]).double().mean() >= 0.98


class TestJoint:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 10_000), st.sampled_from(["agreement", "kl"]))
    def test_reached_says_what_the_policy_does(self, seed, name):
        generator = torch.Generator().manual_seed(seed)
        m, other = (3 * torch.randn(8, 4, generator=generator) for _ in range(2))
        y = torch.randint(0, 4, (8,), generator=generator)
        policy = {
            "agreement": Policy(lambda m, other: (m.argmax(1) != other.argmax(1)).double(), 0.5, smooth=False),
            "kl": Policy(divergence, 1.5),
        }[name]
        reached = knowing.Joint(policy).reached(torch.cat([m, other], 1), y, y)
        assert torch.equal(reached > 0, policy.fates(m, other, y) == FOOLED)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 10_000))
    def test_what_a_search_sees_is_the_decision(self, seed):
        generator = torch.Generator().manual_seed(seed)
        logits = 3 * torch.randn(8, 8, generator=generator)
        policy = Policy(divergence, 1.5)

        images = torch.zeros(8, 1, 1, 1)

        def both(images):  # noqa: ARG001
            return logits[:, :4], logits[:, 4:]

        y = torch.full((8,), 2)
        fates = policy.fates(logits[:, :4], logits[:, 4:], y)
        told = torch.tensor([-1.0, 0.0, 1.0])[fates]  # kept, detected, fooled
        assert torch.equal(margin(shown(both, policy)(images), y), told)
        passed = passing(both, policy)(images)
        assert torch.equal((passed != y) & (passed != REFUSED), fates == FOOLED)


class TestSanity:
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.floats(0, 1), min_size=2, max_size=5))
    def test_a_curve_that_rises_passes_and_the_same_backwards_does_not(self, shares):
        up = sorted(shares)
        assert sanity.rising("radius", "M", [float(place) for place in range(len(up))], up, 100).passed
        steep = up[-1] - up[0] > sanity.SLACK + 1 / 100
        assert (
            sanity.rising("radius", "M", [float(place) for place in range(len(up))], up[::-1], 100).passed is not steep
        )

    def test_a_radius_taken_the_wrong_way_round_is_noticed(self, network, digits, monkeypatch):
        """Planted: an attack that stays the nearer the more it is allowed."""
        honest = sanity.apgd

        def planted(model, x, y, *, eps, **more):
            return honest(model, x, y, eps=max(0.0, 0.3 - eps), **more)

        monkeypatch.setattr(sanity, "apgd", planted)
        setting = Setting(drawn(digits, 20, 0), 0.2, TINY, 0)
        failed = {check.name for check in sanity.measured(alone(network), setting) if not check.passed}
        assert {"radius", "bound"} <= failed

    def test_an_example_outside_its_ball_is_noticed(self):
        assert sanity.inside(0.0).passed
        assert not sanity.inside(1e-3).passed

    def test_a_straight_through_gradient_is_noticed(self, network, digits):
        """A gradient that is there, and not that of the answers."""

        class Straight(nn.Module):
            def __init__(self):
                super().__init__()
                self.model = network

            def forward(self, images):
                rough = (images * 2).round() / 2
                return self.model(images + (rough - images).detach())

        clean = drawn(digits, 20, 0)
        check = sanity.gradients("M", Straight(), clean.images, clean.labels, eps=0.1, seed=0)
        assert not check.passed
        assert check.figures["moving"] > 0.5


class TestCuts:
    def test_the_two_halves_are_the_whole(self):
        target = networks.make_target("plain", (1, 8, 8), 10)
        lure, _ = networks.make_lure("plain-3", target, (1, 8, 8))
        decoy = networks.compose(lure, target).eval()
        x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        found = cuts(decoy, (1, 8, 8))
        # One behind every layer but the last.
        assert len(found) == len(lure) + len(target) - 1
        for cut in found:
            assert cut.before(x).shape[1:] == cut.shape
            assert torch.allclose(cut.after(cut.before(x)), decoy(x), atol=1e-6)
        behind = found[len(lure) - 1]
        assert behind.shape == (1, 8, 8)
        assert torch.allclose(behind.after(x), target(x), atol=1e-6)

    def test_a_bypass_is_not_cut(self):
        class Residual(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

            def forward(self, images):
                flat = images.flatten(1)
                return self.last(flat + self.second(self.first(flat)))

        found = cuts(Residual().eval(), (1, 2, 3))
        # Behind flatten and behind the sum.
        assert [cut.shape for cut in found] == [(6,), (6,)]

    def test_what_cannot_be_traced_is_cut_between_its_parts(self):
        class Deciding(nn.Module):
            def forward(self, images):
                return images * 2 if float(images.sum()) > 0 else images

        decoy = nn.Sequential(Deciding(), nn.Sequential(nn.Flatten(), nn.Linear(4, 3))).eval()
        assert [cut.shape for cut in cuts(decoy, (1, 2, 2))] == [(1, 2, 2)]


def test_fresh_weights_are_other_weights(network):
    torch.manual_seed(1)
    other = fresh(network)
    assert [type(part) for part in other] == [type(part) for part in network]
    assert not torch.equal(other[0].weight, network[0].weight)
    assert not network.training


def test_thresholds_come_from_clean_images_alone(network, digits):
    """Of images that it has not seen the rival's policy rejects no more than chance allows beyond the wanted rate."""
    twin = fresh(network)
    training.classifier(
        twin, digits.train, digits.validation, schedule=Schedule(150, lr=1e-2, validations=2), show=False
    )
    found = calibrated(network, twin, ("kl", "confidence"), digits.train.images, digits.validation.images, 0.1)
    defence = Defence("twin", network, twin, twin, "the twin", found)
    for fates in defence.fates(digits.test.images, digits.test.labels).values():
        assert 0.02 <= (fates == DETECTED).double().mean() <= 0.2


def test_what_refuses_most_clean_images_is_no_rival():
    def one(name, policy, rejected):
        value = tables.Value(rejected, float("nan"), 1)
        return tables.Guarded(name, policy, value, value, {})

    found = [
        one("luring", "score", 0.01),
        one("luring", "agreement", 0.02),
        one("base", "target", 0.0),
        one("twin", "score", 0.01),
    ]
    found += [one("c_e", "agreement", 0.9), one("c_e", "score", 0.05), one("adversarial", "target", 0.0)]
    assert [(rival.architecture, rival.policy) for rival in tables.rivals(found)] == [
        ("twin", "score"), ("c_e", "score"), ("adversarial", "target"),
    ]  # fmt: skip


def test_the_worst_case_is_taken_image_by_image():
    def row(rung, codes):
        import base64

        return {"rung": rung, "seed": 0, "fates": {"score": base64.b64encode(bytes(codes)).decode()}}

    rows = [row(1, [KEPT, FOOLED, KEPT, DETECTED]), row(1, [KEPT, KEPT, DETECTED, FOOLED]), row(2, [FOOLED, KEPT])]
    assert tables.worst(rows, (1,), "score").tolist() == [KEPT, FOOLED, DETECTED, FOOLED]
    assert tables.worst(rows, (1, 2), "score").tolist() == [FOOLED, FOOLED, DETECTED, FOOLED]
    found = tables.outcome(rows, (1,), "score")
    assert (found.kept.mean, found.detected.mean, found.fooled.mean) == (0.25, 0.25, 0.5)
    # Clopper and Pearson's interval of 2 in 4.
    assert (found.low, found.high) == pytest.approx((0.0676, 0.9324), abs=1e-4)
    assert tables.outcome(rows, (3,), "score") is None
    # Two seeds: 3 of 8 images, a half and a quarter.
    both = tables.outcome([*rows, {**rows[0], "seed": 1}], (1,), "score")
    assert (both.low, both.high) == pytest.approx((0.0852, 0.7551), abs=1e-4)
    assert words.spread(both) == "9 to 76 %, ± 18"
