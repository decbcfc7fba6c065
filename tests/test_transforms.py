"""DIM shows resized and padded images; TI convolves the gradient with a Gaussian."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from luring.attacks import diversity, smoothing
from luring.errors import InputError

torch.set_num_threads(1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rand(*shape, dtype=torch.float64, seed=0):
    return torch.rand(*shape, dtype=dtype, generator=generator(seed))


def gaussian(size):
    """The TI paper's kernel, by its formula and in plain Python."""
    points = [0.0] if size == 1 else [-3 + 6 * i / (size - 1) for i in range(size)]
    density = torch.tensor([math.exp(-p * p / 2) / math.sqrt(2 * math.pi) for p in points], dtype=torch.float64)
    square = torch.outer(density, density)
    return square / square.sum()


def convolved(images, size):
    channels = images.shape[1]
    before = (size - 1) // 2
    padded = F.pad(images, (before, size - 1 - before, before, size - 1 - before))
    return F.conv2d(padded, gaussian(size).expand(channels, 1, size, size).contiguous(), groups=channels)


def placements(image, shrink):
    """Every image that DIM may show, by (pixels off, top, left), with PyTorch's own resizing and padding."""
    height, width = image.shape[-2:]
    for less in range(shrink + 1):
        small = F.interpolate(image[None], size=(height - less, width - less), mode="nearest")[0]
        for top, left in itertools.product(range(less + 1), repeat=2):
            yield (less, top, left), F.pad(small, (left, less - left, top, less - top))


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 15])
def test_smoothing_is_the_convolution_with_the_two_dimensional_kernel(size, channels):
    images = torch.randn(2, channels, 8, 11, dtype=torch.float64, generator=generator(size))
    torch.testing.assert_close(smoothing(size)(images), convolved(images, size), rtol=0, atol=1e-12)


def test_smoothing_is_the_same_convolution_that_torch_calls_same():
    images = torch.randn(2, 3, 9, 9, dtype=torch.float64, generator=generator())
    same = F.conv2d(images, gaussian(5).expand(3, 1, 5, 5).contiguous(), padding="same", groups=3)
    torch.testing.assert_close(smoothing(5)(images), same, rtol=0, atol=1e-12)


def test_smoothing_keeps_the_sum_away_from_the_border_and_loses_some_at_it():
    smooth = smoothing(5)(torch.ones(1, 1, 12, 12, dtype=torch.float64))[0, 0]
    torch.testing.assert_close(smooth[2:-2, 2:-2], torch.ones(8, 8, dtype=torch.float64))
    assert (smooth[0] < 1).all()
    impulse = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    impulse[..., 4, 4] = 1
    spread = smoothing(5)(impulse)[0, 0]
    torch.testing.assert_close(spread[2:-2, 2:-2], gaussian(5))
    assert spread.sum().item() == pytest.approx(1)


def test_a_kernel_of_one_pixel_changes_nothing():
    images = rand(2, 3, 4, 4)
    assert torch.equal(smoothing(1)(images), images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_smoothing_keeps_dtype_and_shape(dtype):
    images = rand(2, 3, 6, 5, dtype=dtype)
    smooth = smoothing(5)(images)
    assert (smooth.dtype, smooth.shape) == (dtype, images.shape)


@pytest.mark.parametrize("kernel", [0, -1])
def test_a_kernel_without_pixels_is_refused(kernel):
    with pytest.raises(InputError, match="from 1 on"):
        smoothing(kernel)


@pytest.mark.parametrize(("height", "width", "shrink"), [(8, 8, 2), (7, 10, 2), (9, 6, 3)])
def test_every_shown_image_is_a_nearest_neighbour_resize_padded_with_zeros(height, width, shrink):
    image = rand(3, height, width) + 0.1
    shown = diversity(1.0, shrink)(image.expand(1000, -1, -1, -1), generator())
    possible = dict(placements(image, shrink))
    seen = {}
    for one in shown:
        matches = [draw for draw, candidate in possible.items() if torch.equal(candidate, one)]
        assert len(matches) == 1
        seen[matches[0]] = seen.get(matches[0], 0) + 1
    assert set(seen) == set(possible)
    for less in range(shrink + 1):
        share = sum(count for draw, count in seen.items() if draw[0] == less) / 1000
        assert share == pytest.approx(1 / (shrink + 1), abs=0.06)


def test_images_of_a_batch_have_draws_of_their_own():
    image = rand(1, 1, 8, 8) + 0.1
    shown = diversity(1.0)(image.expand(30, -1, -1, -1), generator())
    assert len({tuple(one.flatten().tolist()) for one in shown}) > 5


def test_the_probability_is_the_share_of_images_transformed():
    image = rand(1, 1, 4, 4) + 0.1
    shown = diversity(0.3)(image.expand(3000, -1, -1, -1), generator())
    changed = (shown != image).flatten(1).any(1).double().mean().item()
    # One size in three is the whole image.
    assert changed == pytest.approx(0.3 * 2 / 3, abs=0.03)


def test_probability_zero_and_shrink_zero_show_the_image_itself():
    images = rand(4, 3, 6, 6)
    assert torch.equal(diversity(0.0)(images, None), images)
    assert torch.equal(diversity(1.0, 0)(images, generator()), images)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    batch=st.integers(1, 4),
    channels=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    probability=st.floats(0, 1),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_diversity_keeps_shape_dtype_and_range_and_has_a_finite_gradient(
    batch, channels, size, probability, dtype, seed
):
    images = rand(batch, channels, *size, dtype=dtype, seed=seed).requires_grad_()
    shown = diversity(probability)(images, generator(seed))
    assert (shown.shape, shown.dtype) == (images.shape, dtype)
    assert shown.min() >= 0
    assert shown.max() <= 1
    (gradient,) = torch.autograd.grad(shown.sum(), images)
    assert gradient.isfinite().all()
    # Every shown pixel is one pixel of the image or padding: the counts are whole.
    assert torch.equal(gradient, gradient.round())


def test_diversity_follows_its_generator_and_leaves_the_global_one():
    images = rand(5, 1, 8, 8)
    before = torch.random.get_rng_state()
    first, again, other = (diversity(1.0)(images, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.nan])
def test_a_probability_outside_zero_and_one_is_refused(probability):
    with pytest.raises(InputError, match="from 0 to 1"):
        diversity(probability)


def test_an_impossible_shrink_is_refused():
    with pytest.raises(InputError, match="0 or more"):
        diversity(0.5, -1)
    with pytest.raises(InputError, match="smaller shrink"):
        diversity(0.5, 4)(rand(1, 1, 4, 8), None)
