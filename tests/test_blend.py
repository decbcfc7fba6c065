import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from luring import lures, networks
from luring.blend import Blended
from luring.errors import InputError
from luring.weights import digest

torch.set_num_threads(1)
SHARES = st.floats(0, 1, exclude_min=True, exclude_max=True, allow_subnormal=False, width=32)


class Negative(nn.Module):
    def forward(self, images):
        return 1 - images.round()


@given(SHARES, st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_a_blend_stays_between_the_image_and_what_the_lure_makes_of_it(share, values):
    images = torch.tensor(values).reshape(1, 1, 1, -1)
    made = Negative()(images)
    blended = Blended(Negative(), share)(images)
    assert bool((blended >= torch.minimum(images, made)).all())
    assert bool((blended <= torch.maximum(images, made)).all())


def test_the_gradient_is_the_blend_of_both():
    torch.manual_seed(0)
    lure, target = lures.plain_lure((1, 8, 8), 2).double(), networks.plain_target((1, 8, 8), 3).double()
    images = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    blended = Blended(lure, 0.75)
    seen = blended(images)
    (from_target,) = torch.autograd.grad(target(seen)[:, 0].sum(), seen, retain_graph=True)
    (whole,) = torch.autograd.grad(target(seen)[:, 0].sum(), images)
    (by_lure,) = torch.autograd.grad((lure(images) * from_target).sum(), images)
    assert torch.allclose(whole, 0.25 * from_target + 0.75 * by_lure)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_share_is_a_part(share):
    with pytest.raises(InputError, match="above 0 and below 1"):
        Blended(Negative(), share)


def test_the_share_is_a_part_of_the_digest():
    lure = lures.plain_lure((1, 8, 8), 2)
    assert len({digest(Blended(lure, share)) for share in (0.7, 0.75)}) == 2
