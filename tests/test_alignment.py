"""The penalty on a decoy's gradient that points where its target's does, and a lure that is fitted with it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import short_fits
from luring import alignment, data, gap, lures, recipes
from luring.errors import InputError
from luring.training import Schedule

torch.set_num_threads(1)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100.0))
def test_it_knows_directions_only(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    decoy, target = (torch.randn(4, 2, 7, 6, generator=generator) for _ in range(2))
    found = alignment.penalty(decoy, target)
    assert found.shape == (4,)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1 + alignment.MARGIN + 1e-5
    assert torch.allclose(found, alignment.penalty(scale * decoy, target), atol=1e-5)
    assert torch.allclose(found, alignment.penalty(target, decoy), atol=1e-5)


def test_the_same_direction_costs_most_and_the_opposite_nothing():
    gradient = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(alignment.penalty(gradient, gradient), torch.full((3,), 1 + alignment.MARGIN), atol=1e-5)
    assert torch.equal(alignment.penalty(-gradient, gradient), torch.zeros(3))


def test_gradients_that_differ_in_detail_only_are_told_by_their_smoothing():
    generator = torch.Generator().manual_seed(0)
    plane = torch.ones(1, 1, 16, 16)
    chequers = 3 * (torch.arange(16)[:, None] + torch.arange(16)).remainder(2).mul(2).sub(1).float()[None, None]
    turned = torch.randn(1, 1, 16, 16, generator=generator).sign() * 0.1
    # Orthogonal pixel by pixel, but the same behind a Gaussian.
    one, other = plane + chequers, plane - chequers + turned
    assert float(nn.functional.cosine_similarity(one.flatten(1), other.flatten(1))) < -0.5
    assert float(alignment.penalty(one, other)) > 0.3


def test_a_linear_models_slope_is_the_difference_of_its_weights():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x, label, other = (
        torch.rand(5, 1, 3, 4, generator=generator),
        torch.tensor([0, 1, 2, 0, 1]),
        torch.tensor([1, 2, 0, 2, 0]),
    )
    found = gap.slope(model, x, label, other)
    weight = model[1].weight.detach()
    assert torch.allclose(found, (weight[other] - weight[label]).view_as(x))
    assert not found.requires_grad
    gap.slope(model, x, label, other, again=True).square().sum().backward()
    assert torch.allclose(model[1].weight.grad[0], 4 * (2 * weight[0] - weight[1] - weight[2]), atol=1e-5)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", progress=False)


@pytest.fixture(scope="module")
def target(digits):
    return short_fits.target_of(digits)


def fitted(digits, target, **asked):
    schedule = Schedule(300, lr=3e-3, validations=4)
    return short_fits.fitted(digits, target, lambda shape: lures.residual_lure(shape, 16), schedule, **asked)


def test_what_fools_an_aligned_decoy_fools_the_target_less(digits, target):
    """One seed, a short fit: from the same beginning, the identity, and not bought by masking, for the attack fools both decoys."""
    found = {}
    for name, align in (("bounded", None), ("aligned", recipes.ALIGN)):
        decoy = fitted(digits, target, **recipes.asked("aligned") | {"align": align, "static_eps": None})
        found[name] = short_fits.attacked(digits, target, decoy)
    assert found["aligned"]["dac"] >= found["bounded"]["dac"] + 0.4
    assert found["aligned"]["ac_mop"] <= 0.05
    assert found["aligned"]["accuracy"] >= found["bounded"]["accuracy"] - 0.08


@pytest.mark.parametrize("align", [0.0, -1.0, float("inf"), float("nan")])
def test_a_weight_that_asks_for_nothing_is_refused(digits, target, align):
    with pytest.raises(InputError, match="give one above 0"):
        fitted(digits, target, align=align)


def test_an_autoencoder_has_no_gradient_to_turn(digits, target):
    with pytest.raises(InputError, match="learns nothing from M"):
        fitted(digits, target, align=1.0, method="auto")
