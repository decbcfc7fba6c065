"""Images come back in the form they were given in, inside the ball also where they have few digits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from luring.attacks import ATTACKS, apgd, pgd, square, worst_case
from luring.attacks.balls import l2, linf
from luring.attacks.forms import like, representable
from test_attacks import OWN, attack, generator, net, rand

torch.set_num_threads(1)

HALF = [torch.float16, torch.bfloat16]
Y = torch.tensor([0, 3, 1])


def halved(model, dtype):
    """A model of fewer digits: it takes nothing else."""

    def logits(images):
        assert images.dtype == dtype
        return model(images.float()).to(dtype)

    return logits


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    dtype=st.sampled_from(HALF),
    ball=st.sampled_from([linf, l2]),
    eps=st.sampled_from([1e-8, 1e-4, 0.03, 0.3, 2.0]),
    seed=st.integers(0, 1000),
    image=st.sampled_from(["random", "zeros", "ones", "tiny"]),
)
def test_rounding_never_leaves_the_ball(dtype, ball, eps, seed, image):
    x = rand(2, 1, 5, 5, dtype=torch.float32, seed=seed)
    x = {"random": x, "zeros": x * 0, "ones": x * 0 + 1, "tiny": x * 1e-6}[image].to(dtype)
    made = ball(x.float(), eps).random(generator(seed))
    found = like(made, x)
    assert found.dtype == dtype
    assert found.min() >= 0
    assert found.max() <= 1
    far = found.float() - x.float()
    assert (far.abs() <= (made - x.float()).abs()).all()
    assert (far * (made - x.float()) >= 0).all()
    kind = torch.finfo(dtype)
    assert ((found.float() - made).abs() <= kind.eps * made + kind.smallest_normal * kind.eps).all()
    assert torch.equal(representable(made, x, torch.arange(2)), found.float())


@pytest.mark.parametrize("dtype", [*HALF, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", OWN)
def test_every_attack_gives_back_what_it_was_given(name, layout, dtype):
    x = rand(3, 3, 6, 6).to(dtype).contiguous(memory_format=layout)
    before = x.clone()
    model = net(3, torch.float32) if dtype in HALF else net(3, dtype)
    made = attack(name, eps=0.2)(halved(model, dtype) if dtype in HALF else model, x, Y)
    assert made.dtype == dtype
    assert made.is_contiguous(memory_format=layout)
    assert torch.equal(x, before)
    assert (made.double() - x.double()).abs().max() <= 0.2 + 1e-6
    assert made.min() >= 0
    assert made.max() <= 1


@pytest.mark.parametrize("dtype", HALF)
def test_work_is_done_with_all_digits(dtype):
    """The steps are those of a float32 model that is shown the rounded images."""
    x, model = rand(3, 1, 6, 6, dtype=torch.float32).to(dtype), net(1, torch.float32)
    exact = pgd(model, x.float(), Y, eps=0.1, step=0.02, steps=5, random_start=False)
    close = pgd(halved(model, dtype), x, Y, eps=0.1, step=0.02, steps=5, random_start=False)
    assert ((close.float() - exact).abs() < 0.005).float().mean() > 0.9


@pytest.mark.parametrize("dtype", HALF)
def test_what_fooled_the_model_is_what_comes_back(dtype):
    x, model = rand(3, 1, 6, 6, dtype=torch.float32).to(dtype), halved(net(1, torch.float32), dtype)
    for name in ("square", "spsa", "nes", "zoo", "parsimonious", "hop-skip-jump", "boundary"):
        settings_ = {"samples": 4} if "samples" in ATTACKS[name].settings else {}
        budget = {"budget": 200, "eps": 0.5, **settings_}
        found = ATTACKS[name].function(model, x, Y, **budget)
        assert found.fooled.any(), name
        assert (model(found.images).argmax(1) != Y)[found.fooled].all(), name


def test_the_worst_case_takes_them_too():
    x, model = rand(3, 1, 6, 6, dtype=torch.float32).half(), halved(net(1, torch.float32), torch.float16)
    tried = [
        lambda model, x, y: apgd(model, x, y, eps=0.1, steps=5, generator=generator()),
        lambda model, x, y: square(model, x, y, eps=0.1, budget=5, generator=generator()).images,
    ]
    found = worst_case(tried, model, x, Y)
    assert found.images.dtype == torch.float16
    assert torch.equal(found.fooled, model(found.images).argmax(1) != Y)
