"""Auto-PGD and the worst case over a set."""

from functools import partial

import pytest
import torch

from luring.attacks import apgd, apgd_t, bim, fgsm, pgd, preset, worst_case
from luring.attacks.autopgd import apgd_by
from luring.attacks.objectives import cross_entropy, difference_of_logits, difference_of_logits_towards, margin
from luring.errors import InputError
from test_attacks import generator, linear, net, rand, randn

torch.set_num_threads(1)

X, Y = rand(6, 1, 6, 6, seed=4), torch.tensor([0, 3, 1, 2, 0, 1])
LOGITS = torch.tensor([[3.0, 1.0, 2.0, -1.0, 0.0], [0.0, 5.0, 1.0, 4.0, 3.0]])


def test_the_ratios_of_logits_by_hand():
    labels, wanted = torch.tensor([0, 3]), torch.tensor([1, 2])
    # First image: right by 3 - 2, over 3 - 1. Second: wrong by 5 - 4, over 5 - 3.
    assert difference_of_logits(LOGITS, labels).tolist() == [-1 / 2, 1 / 2]
    # Towards: (1 - 3) over 3 - (1 + 0) / 2, and (1 - 4) over 5 - (3 + 1) / 2.
    assert difference_of_logits_towards(LOGITS, labels, wanted).tolist() == pytest.approx([-2 / 2.5, -3 / 3])


def test_equal_logits_give_a_ratio_of_zero():
    flat, labels = torch.zeros(2, 4), torch.tensor([0, 1])
    assert difference_of_logits(flat, labels).tolist() == [0, 0]
    assert difference_of_logits_towards(flat, labels, 1 - labels).tolist() == [0, 0]


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_optimum_of_a_linear_model_is_found(norm, loss):
    weight, x, y, eps = randn(1, 5, 5, seed=1), 0.4 + 0.2 * rand(4, 1, 5, 5), torch.tensor([0, 1, 0, 1]), 0.1
    made = apgd(linear(weight), x, y, eps=eps, steps=60, norm=norm, loss=loss, generator=generator())
    direction = weight.sign() if norm == "linf" else weight / weight.norm()
    wanted = x + eps * direction * torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=x.dtype).view(-1, 1, 1, 1)
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-9 if norm == "linf" else 1e-3)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_is_as_good_as_pgd_tuned_and_better_than_pgd_ill_tuned(norm):
    model, eps = net(), 0.05 if norm == "linf" else 0.3
    auto = apgd(model, X, Y, eps=eps, steps=20, norm=norm, loss="margin", generator=generator())
    reached = margin(model(auto), Y).mean()
    plain = {
        step: margin(
            model(pgd(model, X, Y, eps=eps, step=step, steps=21, norm=norm, loss="margin", generator=generator())), Y
        ).mean()
        for step in (eps / 50, eps / 10, eps / 4, eps)
    }
    assert reached >= max(plain.values()) - 1e-3
    assert reached >= plain[eps / 50] + 0.01


def test_the_ratio_does_not_see_how_steep_the_model_is():
    flat, steep = net(), lambda images: net()(images) * 1e6
    one, other = (apgd(m, X, Y, eps=0.1, steps=10, loss="dlr", generator=generator()) for m in (flat, steep))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    one, other = (apgd_t(m, X, Y, eps=0.1, steps=10, generator=generator()) for m in (flat, steep))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_an_image_that_fools_the_model_is_not_attacked_again():
    model, eps = net(), 0.1
    fooled = margin(model(apgd(model, X, Y, eps=eps, steps=10, generator=generator())), Y) > 0
    assert 0 < fooled.sum() < len(X), "some images of each kind"
    seen = []

    def counted(images):
        seen.append(len(images))
        return model(images)

    apgd(counted, X, Y, eps=eps, steps=10, restarts=2, generator=generator())
    assert seen == [len(X)] * 11 + [int((~fooled).sum())] * 11


def test_the_runner_up_is_not_always_the_way_out():
    # Class 1 is close behind but moves with class 0; class 2 is far behind and moves the other way.
    def model(images):
        score = images.flatten(1).sum(1)
        return torch.stack([score, score - 0.1, 5 - score, score - 9, score - 9], 1)

    x, y = torch.full((2, 1, 2, 2), 0.9), torch.tensor([0, 0])
    assert (margin(model(apgd_t(model, x, y, eps=0.4, steps=5, targets=1, generator=generator())), y) < 0).all()
    assert (margin(model(apgd_t(model, x, y, eps=0.4, steps=5, targets=2, generator=generator())), y) > 0).all()


def test_too_few_classes_are_refused():
    two = linear(randn(1, 6, 6))
    with pytest.raises(InputError, match="2 classes, and the difference of logits ratio needs 3: choose the loss ce"):
        apgd(two, X[:1], Y[:1], eps=0.1, steps=1, loss="dlr")
    with pytest.raises(InputError, match="needs 4"):
        apgd_t(two, X[:1], Y[:1], eps=0.1, steps=1)
    for attack in (partial(apgd, restarts=0), partial(apgd_t, targets=0)):
        with pytest.raises(InputError, match="is 0: give a whole number from 1 on"):
            attack(net(), X, Y, eps=0.1, steps=1)


class TestWorstCase:
    attacks = (
        preset("fgsm", eps=0.04),
        preset("bim", eps=0.1, steps=10),
        preset("apgd", eps=0.2, steps=20),
    )

    def test_each_image_falls_to_the_first_attack_that_reaches_it(self):
        weight = randn(1, 5, 5, seed=1).sign()
        # How far each image lies from the border, in eps: the four are for the three attacks and for none.
        far = torch.tensor([0.02, 0.06, 0.15, 0.3]).view(-1, 1, 1, 1)
        x, y = 0.5 + (far - 0.5 * weight.mean()) * weight, torch.ones(4, dtype=torch.int64)
        found = worst_case(self.attacks, linear(weight), x, y)
        assert found.fooled.tolist() == [True, True, True, False]
        assert found.by[:3].tolist() == [0, 1, 2]
        assert torch.equal(found.fooled, linear(weight)(found.images).argmax(1) != y)

    def test_what_is_fooled_is_left_alone(self):
        seen = []

        def counting(model, x, y):
            seen.append(len(x))
            return fgsm(model, x, y, eps=1.0)

        weight = randn(1, 5, 5, seed=1)
        model, x, y = linear(weight), 0.4 + 0.2 * rand(4, 1, 5, 5), torch.tensor([0, 1, 0, 1])
        right = (model(x).argmax(1) == y).sum()
        found = worst_case([lambda _model, x, _y: x, counting, counting], model, x, y)
        assert seen == [right]
        assert found.fooled.all()

    def test_an_image_that_nothing_fools_keeps_the_best_try(self):
        model = net()
        own = model(X).argmax(1)
        weak = [partial(bim, eps=1e-4, step=1e-4, steps=steps) for steps in (1, 3)]
        found = worst_case(weak, model, X, own)
        assert not found.fooled.any()
        best = torch.stack([margin(model(attack(model, X, own)), own) for attack in weak]).amax(0)
        torch.testing.assert_close(margin(model(found.images), own), best)

    def test_no_attack_is_refused(self):
        with pytest.raises(InputError, match="no attack in the set"):
            worst_case([], net(), X, Y)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_who_has_enough_leaves_and_the_others_go_the_way_they_would_have_gone(norm):
    x, model = rand(40, 1, 6, 6, seed=5), net(seed=5)
    y = model(x).argmax(1)

    def climbed(enough):
        asked = []

        def counted(images):
            asked.append(len(images))
            return model(images)

        rounds = [(lambda logits, labels, _: cross_entropy(logits, labels), y)]
        eps = 0.3 if norm == "linf" else 1.0
        more = {"steps": 12, "norm": norm, "generator": generator(1)}
        made = apgd_by(counted, x, y, rounds, eps=eps, enough=enough, **more)
        return made, margin(model(made), y) > 0, sum(asked)

    (far, fooled, many), (near, same, few) = climbed(False), climbed(True)
    assert 0.2 <= fooled.double().mean() <= 0.8
    assert torch.equal(fooled, same)
    assert torch.allclose(far[~fooled], near[~fooled], atol=1e-9)
    assert few < many
