"""What the attacks compute, what they leave alone and what they refuse."""

import math
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from luring.attacks import ATTACKS, bim, dim, dim_ti, fgsm, mim, mim_ti, miml2, pgd, preset
from luring.attacks.balls import BALLS
from luring.attacks.gradient import _iterate
from luring.attacks.objectives import cross_entropy, margin
from luring.attacks.presets import table
from luring.errors import InputError
from luring.paper import words

torch.set_num_threads(1)

EXACT = {"rtol": 0, "atol": 1e-6}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rand(*shape, dtype=torch.float64, seed=0):
    return torch.rand(*shape, dtype=dtype, generator=generator(seed))


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=generator(seed))


def two_classes(score):
    """A model whose class 1 beats class 0 by twice a score."""
    return lambda images: torch.stack([-score(images), score(images)], 1)


def linear(weight):
    return two_classes(lambda images: (images * weight).flatten(1).sum(1))


def net(channels=1, dtype=torch.float64, classes=4, seed=0):
    """A small smooth network, written without modules: any height and width."""
    first = randn(4, channels, 3, 3, dtype=dtype, seed=seed + 1)
    second = randn(classes, 4, dtype=dtype, seed=seed + 2)
    return lambda images: torch.tanh(F.conv2d(images, first, padding=1)).pow(2).mean((2, 3)) @ second.T * 3


OWN = [name for name in ATTACKS if not name.endswith("-imagenet")]
"""Presets but for those that are another one with larger numbers."""


def attack(name, seed=0, **changes):
    given_ = {"eps": 0.1, "step": 0.05, "steps": 3, "samples": 3, "coordinates": 3, "budget": 40, **changes}
    return preset(name, seed=seed, **{key: value for key, value in given_.items() if key in ATTACKS[name].settings})


LINF = {
    "fgsm": fgsm,
    "bim": partial(bim, step=0.03, steps=10),
    "pgd": partial(pgd, step=0.03, steps=10),
    "mim": partial(mim, step=0.03, steps=10),
}


class TestClosedForm:
    @pytest.mark.parametrize("name", LINF)
    @pytest.mark.parametrize("targeted", [False, True])
    @pytest.mark.parametrize("loss", ["ce", "margin"])
    def test_linf_attacks_reach_the_corner_of_a_linear_model(self, name, targeted, loss):
        weight, x, eps = randn(1, 2, 3, 4, seed=3), rand(6, 2, 3, 4), 0.1
        y = torch.tensor([0, 1, 0, 1, 0, 1])
        towards = (1 - 2 * y).view(-1, 1, 1, 1) * (-1 if targeted else 1)
        expected = (x + eps * towards * weight.sign()).clamp(0, 1)
        result = LINF[name](linear(weight), x, y, eps=eps, targeted=targeted, loss=loss)
        torch.testing.assert_close(result, expected, **EXACT)

    @pytest.mark.parametrize("random_start", [False, True])
    @pytest.mark.parametrize("targeted", [False, True])
    def test_l2_pgd_reaches_the_far_point_of_a_linear_model(self, random_start, targeted):
        weight = randn(1, 1, 3, 3, seed=4)
        x, eps = torch.full((2, 1, 3, 3), 0.5, dtype=torch.float64), 0.3
        towards = torch.tensor([1.0, -1.0], dtype=torch.float64).view(-1, 1, 1, 1) * (-1 if targeted else 1)
        result = pgd(
            linear(weight),
            x,
            torch.tensor([0, 1]),
            eps=eps,
            step=0.1,
            steps=300,
            norm="l2",
            random_start=random_start,
            targeted=targeted,
            generator=generator(),
        )
        torch.testing.assert_close(result, x + eps * towards * weight / weight.norm(), **EXACT)

    def test_miml2_is_the_l2_result_clipped_to_the_linf_ball(self):
        weight = torch.tensor([[[[3.0, 4.0]]]], dtype=torch.float64)
        x = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64)
        result = miml2(linear(weight), x, torch.tensor([0]), eps=0.07, radius=0.1, step=0.05, steps=5)
        # The l2 step ends 0.06 and 0.08 away.
        expected = torch.tensor([[[[0.56, 0.57]]]], dtype=torch.float64)
        torch.testing.assert_close(result, expected, **EXACT)

    def test_mim_by_hand_on_two_pixels(self):
        model = two_classes(lambda images: -((images[:, 0, 0, 0] - 0.55) ** 2) + 0.1 * images[:, 0, 0, 1])
        x, y = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64), torch.tensor([0])
        # Gradients over their mean: (1, 1), (-1, 1), (-3/2, 1/2), (-5/3, 1/3). Momentum with decay 2:
        # (1, 1), (1, 3), (1/2, 13/2), (-2/3, ...). The second pixel stops at eps.
        by_hand = [(0.6, 0.6), (0.7, 0.7), (0.8, 0.8), (0.7, 0.8)]
        for steps, pixels in enumerate(by_hand, start=1):
            result = mim(model, x, y, eps=0.3, step=0.1, steps=steps, decay=2.0)
            torch.testing.assert_close(result.flatten(), torch.tensor(pixels, dtype=torch.float64), **EXACT)
        without = [(0.6, 0.6), (0.5, 0.7), (0.6, 0.8), (0.5, 0.8)]
        for steps, pixels in enumerate(without, start=1):
            result = mim(model, x, y, eps=0.3, step=0.1, steps=steps, decay=0.0)
            torch.testing.assert_close(result.flatten(), torch.tensor(pixels, dtype=torch.float64), **EXACT)

    @pytest.mark.parametrize("norm", ["linf", "l2"])
    @pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
    @pytest.mark.parametrize("targeted", [False, True])
    def test_mim_agrees_with_the_paper_s_algorithm_on_plain_cross_entropy(self, norm, decay, targeted):
        model, eps, step = net(2), 0.3, 0.05
        x, y = rand(5, 2, 6, 6, seed=9), torch.tensor([0, 1, 2, 0, 1])
        for i in range(5):  # one image at a time: nothing of a batch can leak into it
            clean = x[i : i + 1]
            image, g = clean.clone(), torch.zeros_like(clean)
            for _ in range(8):
                leaf = image.clone().requires_grad_()
                loss = F.cross_entropy(model(leaf), y[i : i + 1]) * (-1 if targeted else 1)
                loss.backward()
                g = decay * g + leaf.grad / leaf.grad.abs().mean()
                if norm == "linf":
                    image = torch.min(torch.max(image + step * g.sign(), clean - eps), clean + eps)
                else:
                    moved = image + step * g / g.norm() - clean
                    image = clean + moved * min(1.0, eps / moved.norm().item())
                image = image.clamp(0, 1)
            ours = mim(model, x, y, eps=eps, step=step, steps=8, decay=decay, norm=norm, targeted=targeted)
            torch.testing.assert_close(ours[i : i + 1], image, **EXACT)

    def test_the_objectives_on_numbers(self):
        logits, labels = randn(4, 5, seed=2), torch.tensor([0, 4, 2, 2])
        p = logits.softmax(1)[torch.arange(4), labels]
        torch.testing.assert_close(cross_entropy(logits, labels), ((1 - p) / p).log())
        small = torch.tensor([[1.0, 5.0, 3.0], [4.0, 1.0, 2.0]])
        assert margin(small, torch.tensor([1, 2])).tolist() == [-2.0, 2.0]

    def test_the_margin_attack_follows_the_gradient_of_the_margin(self):
        model, x, y = net(), rand(1, 1, 5, 5), torch.tensor([1])
        leaf = x.clone().requires_grad_()
        one = model(leaf)[0]
        (torch.maximum(one[0], one[2]) - one[1]).backward()
        torch.testing.assert_close(
            fgsm(model, x, y, eps=0.1, loss="margin"), (x + 0.1 * leaf.grad.sign()).clamp(0, 1), **EXACT
        )


class TestLimits:
    x, y = rand(4, 3, 7, 7, seed=5), torch.tensor([0, 1, 2, 0])
    settings = MappingProxyType({"eps": 0.1, "step": 0.03, "steps": 6})

    def test_dim_and_ti_that_do_nothing_are_mim(self):
        model = net(3)
        plain = mim(model, self.x, self.y, **self.settings)
        assert torch.equal(dim(model, self.x, self.y, probability=0.0, **self.settings), plain)
        assert torch.equal(mim_ti(model, self.x, self.y, kernel=1, **self.settings), plain)
        assert torch.equal(dim_ti(model, self.x, self.y, kernel=1, probability=0.0, **self.settings), plain)

    def test_dim_and_ti_that_do_something_are_not_mim(self):
        model = net(3)
        plain = mim(model, self.x, self.y, **self.settings)
        assert not torch.equal(dim(model, self.x, self.y, probability=1.0, **self.settings), plain)
        assert not torch.equal(mim_ti(model, self.x, self.y, kernel=5, **self.settings), plain)

    def test_one_step_of_mim_without_decay_is_fgsm(self):
        model = net(3)
        one = mim(model, self.x, self.y, eps=0.1, step=0.1, steps=1, decay=0.0)
        assert torch.equal(one, fgsm(model, self.x, self.y, eps=0.1))

    @pytest.mark.parametrize("norm", ["linf", "l2"])
    def test_bim_is_pgd_from_the_clean_image_and_mim_without_decay(self, norm):
        model = net(3)
        result = bim(model, self.x, self.y, norm=norm, **self.settings)
        assert torch.equal(result, pgd(model, self.x, self.y, norm=norm, random_start=False, **self.settings))
        assert torch.equal(result, mim(model, self.x, self.y, norm=norm, decay=0.0, **self.settings))

    @pytest.mark.parametrize("name", OWN)
    def test_a_ball_of_radius_zero_holds_the_image_alone(self, name):
        torch.testing.assert_close(attack(name, eps=0.0)(net(3), self.x, self.y), self.x, rtol=0, atol=0)

    @pytest.mark.parametrize("name", OWN)
    def test_an_empty_batch_gives_an_empty_batch(self, name):
        result = attack(name)(net(3), self.x[:0], self.y[:0])
        assert (result.shape, result.dtype) == ((0, 3, 7, 7), torch.float64)

    @pytest.mark.parametrize("name", OWN)
    def test_the_clean_images_are_left_and_the_result_is_detached(self, name):
        before = self.x.clone()
        result = attack(name)(net(3), self.x, self.y)
        assert torch.equal(self.x, before)
        assert not result.requires_grad
        if ATTACKS[name].knows != "labels" and name != "fab":  # which may find no image
            assert not torch.equal(result, before)


class TestBall:
    @settings(deadline=None, max_examples=60, derandomize=True)
    @given(
        name=st.sampled_from(OWN),
        eps=st.sampled_from([0.0, 1e-7, 0.01, 0.3, 2.0]) | st.floats(0, 1),
        step=st.floats(0, 1),
        channels=st.sampled_from([1, 3]),
        dtype=st.sampled_from([torch.float32, torch.float64]),
        image=st.sampled_from(["random", "zeros", "ones", "binary"]),
        flat=st.booleans(),
        seed=st.integers(0, 100),
    )
    def test_results_stay_in_the_ball_and_in_the_box(self, name, eps, step, channels, dtype, image, flat, seed):
        x = rand(3, channels, 5, 6, dtype=dtype, seed=seed)
        x = {"random": x, "zeros": x * 0, "ones": x * 0 + 1, "binary": x.round()}[image]
        model = net(channels, dtype)
        if flat:  # a gradient that is exactly 0
            model = lambda images: images.flatten(1)[:, :4] * 0  # noqa: E731
        result = attack(name, seed=seed, eps=eps, step=step)(model, x, torch.tensor([0, 1, 0]))
        assert (result.shape, result.dtype) == (x.shape, dtype)
        assert result.isfinite().all()
        assert result.min() >= 0
        assert result.max() <= 1
        assert (result - x).abs().max() <= eps + 1e-6
        if name == "miml2":
            assert (result - x).flatten(1).norm(dim=1).max() <= 1.0 + 1e-4
        if flat and name not in ("pgd", "apgd", "apgd-t", "square", "parsimonious"):  # which begin elsewhere
            assert torch.equal(result, x)

    @settings(deadline=None, max_examples=60, derandomize=True)
    @given(
        name=st.sampled_from([name for name in OWN if "norm" in ATTACKS[name].settings]),
        eps=st.floats(0, 3),
        step=st.floats(0, 2),
        dtype=st.sampled_from([torch.float32, torch.float64]),
        flat=st.booleans(),
        seed=st.integers(0, 100),
    )
    def test_l2_results_stay_in_the_ball_and_in_the_box(self, name, eps, step, dtype, flat, seed):
        x = rand(3, 1, 5, 5, dtype=dtype, seed=seed)
        model = (lambda images: images.flatten(1)[:, :4] * 0) if flat else net(1, dtype)
        result = attack(name, seed=seed, eps=eps, step=step, norm="l2")(model, x, torch.tensor([0, 1, 0]))
        assert result.dtype == dtype
        assert result.isfinite().all()
        assert result.min() >= 0
        assert result.max() <= 1
        assert (result - x).flatten(1).norm(dim=1).max() <= eps + 1e-4
        if flat and name not in ("pgd", "apgd", "apgd-t"):  # which begin elsewhere
            torch.testing.assert_close(result, x, **EXACT)

    @pytest.mark.parametrize("norm", ["linf", "l2"])
    def test_random_starts_fill_the_ball(self, norm):
        x, eps = torch.full((4000, 1, 1, 2), 0.5, dtype=torch.float64), 0.4
        difference = (BALLS[norm](x, eps).random(generator()) - x).flatten(1)
        length = difference.abs().amax(1) if norm == "linf" else difference.norm(dim=1)
        assert length.max() <= eps + 1e-9
        # Uniform on a plane: a quarter of the points lies within half the radius, and the mean is the centre.
        assert (length <= eps / 2).double().mean().item() == pytest.approx(0.25, abs=0.03)
        assert difference.mean(0).abs().max() < 0.02

    def test_a_saturated_model_is_still_attacked(self):
        x, y = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 0])
        model = two_classes(lambda images: -150 + 1000 * (images - 0.5).mean((1, 2, 3)))
        leaf = x.clone().requires_grad_()
        logits = model(leaf)
        assert (logits[:, 0] - logits[:, 1]).tolist() == [300.0, 300.0]
        F.cross_entropy(logits, y).backward()
        assert leaf.grad.abs().max() == 0
        for name in [name for name in OWN if ATTACKS[name].knows == "weights" and name != "apgd-t"]:
            result = attack(name, eps=0.3, step=0.3, steps=5, **({"radius": 2.0} if name == "miml2" else {}))(
                model, x, y
            )
            assert model(result).argmax(1).tolist() == [1, 1], name


class TestDraws:
    x, y = rand(5, 1, 8, 8, seed=6), torch.tensor([0, 1, 2, 0, 1])

    @pytest.mark.parametrize("name", ["fgsm", "bim", "mim", "miml2", "mim-ti"])
    def test_attacks_without_draws_do_not_depend_on_the_batch(self, name):
        together = attack(name)(net(), self.x, self.y)
        alone = [attack(name)(net(), self.x[i : i + 1], self.y[i : i + 1]) for i in range(5)]
        torch.testing.assert_close(together, torch.cat(alone), **EXACT)

    @pytest.mark.parametrize("name", OWN)
    def test_the_same_attack_twice_is_the_same_and_leaves_the_global_randomness(self, name):
        before = torch.random.get_rng_state()
        first = attack(name, seed=3)(net(), self.x, self.y)
        second = attack(name, seed=3)(net(), self.x, self.y)
        assert torch.equal(first, second)
        assert torch.equal(torch.random.get_rng_state(), before)

    @pytest.mark.parametrize("name", ["pgd", "dim", "dim-ti"])
    def test_another_seed_draws_otherwise(self, name):
        first, second = (attack(name, seed=seed)(net(), self.x, self.y) for seed in (3, 4))
        assert not torch.equal(first, second)

    @pytest.mark.parametrize("name", ["pgd", "dim", "dim-ti"])
    def test_equal_images_have_draws_of_their_own(self, name):
        x = self.x[:1].expand(12, -1, -1, -1)
        result = attack(name)(net(), x, torch.zeros(12, dtype=torch.int64))
        assert len({tuple(one.flatten().tolist()) for one in result}) > 1


def module():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 4)
    )


def condition(model):
    """Everything that an attack has to leave alone."""
    return (
        {key: value.clone().tolist() for key, value in model.state_dict().items()},
        [part.training for part in model.modules()],
        [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in model.parameters()],
    )


class TestModelIsLeftAsFound:
    x, y = rand(4, 1, 6, 6, dtype=torch.float32), torch.tensor([0, 1, 2, 0])

    @pytest.fixture
    def model(self):
        model = module().train()
        model[1].eval()
        model[0].bias.requires_grad_(False)
        model(self.x).sum().backward()
        return model

    @pytest.mark.parametrize("name", OWN)
    def test_it_is_attacked_in_evaluation_mode_and_put_back(self, name, model):
        before = condition(model)
        result = attack(name)(model, self.x, self.y)
        assert condition(model) == before
        assert torch.equal(result, attack(name)(model.eval(), self.x, self.y))

    def test_it_is_put_back_when_it_raises_in_mid_attack(self, model):
        calls = []

        def raising(*_):
            calls.append(1)
            if len(calls) == 2:
                raise RuntimeError("in mid attack")

        model[2].register_forward_pre_hook(raising)
        before = condition(model)
        with pytest.raises(RuntimeError, match="in mid attack"):
            attack("mim")(model, self.x, self.y)
        assert len(calls) == 2
        assert condition(model) == before

    @pytest.mark.parametrize("name", OWN)
    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
    def test_it_works_where_gradients_are_off(self, name, context, model):
        expected = attack(name)(model, self.x, self.y)
        with context():
            # Tensors made in inference mode are special: autograd refuses to save them.
            x, y = self.x.clone(), self.y.clone()
            result = attack(name)(model, x, y)
            assert not torch.is_grad_enabled()
        assert torch.equal(result, expected)

    def test_plain_functions_are_models(self, model):
        model.eval()
        result = fgsm(lambda images: model(images), self.x, self.y, eps=0.1)
        assert torch.equal(result, fgsm(model, self.x, self.y, eps=0.1))


class TestPresets:
    def test_attacks_print_hash_and_compare(self):
        one, same = preset("dim-ti", eps=0.3), preset("dim-ti", eps=0.3)
        assert one == same
        assert len({one, same, one.but(1), one.but(eps=0.2)}) == 3
        assert "dim-ti" in repr(one)
        assert "('eps', 0.3)" in repr(one)
        assert eval(repr(one), {"Attack": type(one)}) == one
        assert one.but(2, steps=7).describe() == {
            "attack": "dim-ti",
            "attack_seed": 2,
            "eps": 0.3,
            "step": 0.01,
            "steps": 7,
            "decay": 1.0,
            "probability": 0.5,
            "shrink": 2,
            "kernel": 5,
        }

    def test_the_settings_of_imagenet_follow_eps(self):
        found = dict(preset("dim-ti-imagenet", eps=16 / 255).settings)
        assert found.pop("step") == pytest.approx(1.6 / 255)
        assert found == {"eps": 16 / 255, "steps": 10, "decay": 1.0, "probability": 0.7, "shrink": 21, "kernel": 15}
        assert dict(preset("vmi-imagenet", eps=0.1, step=0.05).settings)["step"] == 0.05
        x, y = rand(2, 1, 32, 32), torch.tensor([0, 1])
        once = preset("dim-imagenet", eps=0.1, steps=2)(net(), x, y)
        function = dim(net(), x, y, eps=0.1, step=0.01, steps=2, shrink=21, generator=generator(0))
        assert torch.allclose(once, function)

    def test_a_preset_is_its_function(self):
        x, y = rand(2, 1, 6, 6), torch.tensor([0, 1])
        once = preset("dim-ti", eps=0.3)(net(), x, y)
        function = dim_ti(net(), x, y, eps=0.3, step=0.01, steps=100, generator=generator(0))
        assert torch.equal(once, function)

    def test_every_attack_has_a_name_for_people(self):
        assert list(words.ATTACKS) == list(ATTACKS)

    def test_the_table_of_the_docs_is_drawn_from_the_registry(self):
        page = (Path(__file__).parents[1] / "docs/attacks.md").read_text()
        assert page.split("<!-- table -->\n")[1].split("\n<!-- /table -->")[0] == table()

    @pytest.mark.parametrize("name", OWN)
    def test_the_passes_are_those_of_the_table(self, name):
        passes = 0

        def model(images):
            nonlocal passes
            passes += 1
            return counted(images)

        counted = net()
        made = preset(name, eps=0.1)
        few = {"steps": 2, "samples": 3, "copies": 2, "others": 2, "targets": 2, "coordinates": 3, "budget": 20}
        made = made.but(**{key: value for key, value in few.items() if key in dict(made.settings)})
        made(model, rand(2, 1, 6, 6), torch.tensor([0, 1]))
        if ATTACKS[name].knows != "weights":
            assert 1 <= passes <= dict(made.settings)["budget"]
        else:
            assert passes == eval(ATTACKS[name].passes.replace("·", "*"), dict(made.settings))

    def test_unknown_names_are_refused_with_the_known_ones(self):
        with pytest.raises(InputError, match=r"no attack 'cw'.*fgsm, bim, pgd, mim, miml2, dim, mim-ti, dim-ti"):
            preset("cw", eps=0.3)
        with pytest.raises(InputError, match=r"'mim' has no setting 'kernel'.*eps, step, steps, decay"):
            preset("mim", eps=0.3, kernel=3)
        with pytest.raises(InputError, match="no setting 'generator'"):
            preset("dim", eps=0.3).but(generator=1)


GOOD = {"x": rand(2, 1, 4, 4), "y": torch.tensor([0, 1]), "eps": 0.1, "step": 0.1, "steps": 2}
BAD = {
    "below": ({"x": GOOD["x"] - 0.5}, "scale them"),
    "above": ({"x": GOOD["x"] * 255}, "scale them"),
    "nan": ({"x": GOOD["x"] * math.nan}, "scale them"),
    "one nan": ({"x": torch.where(GOOD["x"] == GOOD["x"].max(), math.nan, GOOD["x"])}, "scale them"),
    "three dims": ({"x": GOOD["x"][:, 0]}, r"float64 \[2, 4, 4\]"),
    "bytes": ({"x": GOOD["x"].to(torch.uint8)}, "uint8"),
    "complex": ({"x": GOOD["x"].to(torch.complex64)}, "complex64"),
    "labels high": ({"y": torch.tensor([0, 4])}, "classes 0 to 3"),
    "labels low": ({"y": torch.tensor([-1, 0])}, "from -1 to 0"),
    "labels few": ({"y": torch.tensor([0])}, "for 2 images"),
    "labels one-hot": ({"y": torch.zeros(2, 3, dtype=torch.int64)}, "one int64 label"),
    "labels int32": ({"y": torch.tensor([0, 1], dtype=torch.int32)}, "int32"),
    "eps": ({"eps": -0.1}, "eps is -0.1"),
    "eps nan": ({"eps": math.nan}, "eps is nan"),
    "eps inf": ({"eps": math.inf}, "eps is inf"),
    "step": ({"step": -0.1}, "step is -0.1"),
    "steps": ({"steps": 0}, "steps is 0"),
    "decay": ({"decay": -1.0}, "decay is -1"),
    "norm": ({"norm": "l1"}, "'l1': give one of linf, l2"),
    "loss": ({"loss": "cw"}, "'cw': give one of ce, margin, dlr"),
    "flat output": ({"model": lambda images: images.mean((1, 2, 3))}, r"\[2, classes\]"),
    "map output": ({"model": lambda images: images}, r"\[2, classes\]"),
    "one class": ({"model": lambda images: images.flatten(1)[:, :1]}, "two classes"),
    "wrong batch": ({"model": lambda images: images.flatten(1)[:1]}, "for 2 images"),
    "whole numbers": ({"model": lambda images: images.flatten(1).long()}, "int64"),
    "tuple": ({"model": lambda images: (images.flatten(1),)}, "gave a tuple"),
    "nan logits": ({"model": lambda images: images.flatten(1) * math.nan}, "not finite"),
    "nan gradient": ({"model": lambda images: (images.flatten(1) * 0).sqrt()}, "gradient .* is not finite"),
}


class TestRefusals:
    @pytest.mark.parametrize("case", BAD)
    def test_bad_input_is_refused_in_one_sentence(self, case):
        changes, words = BAD[case]
        given_ = {"model": net(), **GOOD, **changes}
        # The loop itself: the public functions' shapes are refused by the type checker first, where tests have one.
        with pytest.raises(InputError, match=words) as refused:
            _iterate(given_.pop("model"), given_.pop("x"), given_.pop("y"), **given_)
        message = str(refused.value)
        assert message.endswith(".")
        assert ". " not in message
        assert "\n" not in message

    @pytest.mark.parametrize("attack_", [fgsm, partial(mim, step=0.1, steps=1)])
    @pytest.mark.parametrize("eps", [-1.0, math.nan])
    def test_the_public_functions_refuse_too(self, attack_, eps):
        with pytest.raises(InputError, match="eps is"):
            attack_(net(), GOOD["x"], GOOD["y"], eps=eps)

    @pytest.mark.parametrize(("eps", "radius", "word"), [(-1.0, 1.0, "eps is -1"), (0.1, -1.0, "radius is -1")])
    def test_miml2_names_the_radius_that_is_wrong(self, eps, radius, word):
        with pytest.raises(InputError, match=word):
            miml2(net(), GOOD["x"], GOOD["y"], eps=eps, radius=radius, step=0.1, steps=1)

    @pytest.mark.parametrize("name", OWN)
    def test_rounding_outside_the_box_is_accepted_and_put_right(self, name):
        x = GOOD["x"].clone()
        x[0, 0, 0, 0], x[1, 0, 0, 0] = -3e-8, 1 + 3e-8
        result = attack(name)(net(), x, GOOD["y"])
        assert result.min() >= 0
        assert result.max() <= 1
