"""FAB: the shortest step to a plane, the nearest example of a linear model, and the peer's distances."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import nn

from luring.attacks import fab
from luring.attacks.adaptive_boundary import _to_plane
from luring.errors import InputError
from test_attacks import rand
from test_peers import frozen_model, pictures

torch.set_num_threads(1)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(seed=st.integers(0, 10_000), rise=st.floats(-3, 3), sides=st.sampled_from([(1, 1), (2, 3), (3, 4)]))
def test_a_step_to_a_plane_is_as_short_as_a_linear_programme_finds(seed, rise, sides):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(1, 1, *sides, generator=generator, dtype=torch.float64)
    slope = torch.randn(1, 1, *sides, generator=generator, dtype=torch.float64)
    step = _to_plane(images, slope, torch.tensor([rise], dtype=torch.float64))
    assert ((images + step).clamp(0, 1) - images - step).abs().max() < 1e-12
    x, w = images.flatten().numpy(), slope.flatten().numpy()
    n, eye = len(x), np.eye(len(x))
    shortest = linprog(
        [*[0] * n, 1],
        A_ub=np.block([[eye, -np.ones((n, 1))], [-eye, -np.ones((n, 1))]]),
        b_ub=np.zeros(2 * n),
        A_eq=[[*w, 0]],
        b_eq=[rise],
        bounds=[*((-value, 1 - value) for value in x), (0, None)],
    )
    if shortest.success:
        assert (step * slope).sum().item() == pytest.approx(rise, abs=1e-9)
        assert step.abs().max().item() == pytest.approx(shortest.x[-1], abs=1e-6)
    else:  # as far as there is room
        ends = torch.where(slope * rise > 0, 1 - images, -images) if rise else images * 0
        assert torch.equal(step, ends)


def test_of_a_linear_model_the_nearest_example_is_found():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        linear = nn.Linear(36, 5).double()
    model = nn.Sequential(nn.Flatten(), linear).eval().requires_grad_(False)
    x = 0.3 + 0.4 * rand(64, 1, 6, 6, dtype=torch.float64, seed=2)
    logits = model(x)
    y = logits.argmax(1)
    gaps = logits.gather(1, y[:, None]) - logits
    lengths = (linear.weight[y][:, None] - linear.weight).abs().sum(2).clamp_min(1e-12)
    nearest = (gaps / lengths).scatter(1, y[:, None], torch.inf).amin(1)
    assert nearest.max() < 0.3, "the range of the images plays no part"
    made = fab(model, x, y, eps=0.3, steps=100)
    assert (model(made).argmax(1) != y).all()
    reached = (made - x).flatten(1).abs().amax(1)
    assert (reached >= nearest - 1e-9).all()
    assert (reached <= 0.3).all()
    # An image that was fooled within the ball is done: how near it can be is asked by the radius.
    alone = [fab(model, x[i : i + 1], y[i : i + 1], eps=nearest[i].item() * 1.05, steps=100) for i in range(16)]
    assert (model(torch.cat(alone)).argmax(1) != y[:16]).all()
    missed = [fab(model, x[i : i + 1], y[i : i + 1], eps=nearest[i].item() * 0.99, steps=100) for i in range(16)]
    assert torch.equal(torch.cat(missed), x[:16])


@pytest.mark.filterwarnings("ignore")
def test_it_finds_what_the_peer_finds_as_near():
    torchattacks = pytest.importorskip("torchattacks")
    (x, y), model = pictures(dtype=torch.float32), frozen_model(dtype=torch.float32)
    peer = torchattacks.FAB(model, norm="Linf", eps=1.0, steps=20, multi_targeted=True, n_classes=5)
    theirs = (peer(x, y) - x).flatten(1).abs().amax(1)
    ours = (fab(model, x, y, eps=1.0, steps=20, targets=4) - x).flatten(1).abs().amax(1)
    assert (theirs > 0).all()
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=1e-3)


def test_images_that_are_answered_wrongly_stay_and_settings_are_checked():
    (x, y), model = pictures(), frozen_model()
    assert torch.equal(fab(model, x, (y + 1) % 5, eps=0.1, steps=2), x)
    for wrong in ({"steps": 0}, {"targets": 0}):
        with pytest.raises(InputError, match="give a whole number from 1 on"):
            fab(model, x, y, **{"eps": 0.1, "steps": 2, **wrong})
