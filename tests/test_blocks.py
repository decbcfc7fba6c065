"""BSR shows images whose blocks changed places and turned; SIA ones whose blocks changed each in its own way."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn, idctn
from scipy.ndimage import affine_transform

from luring.attacks import bsr, preset, shuffled, sia, structures
from luring.attacks.blocks import CHANGES, TURNS, _cut, _reordered
from luring.errors import InputError
from test_attacks import generator, rand
from test_slopes import BUDGET, MODEL, X, Y, by_the_paper, close, slope

torch.set_num_threads(1)


def ramp(height, width):
    """Every pixel has a value of its own, none 0."""
    return torch.arange(1, height * width + 1, dtype=torch.float64).view(1, 1, height, width) / (height * width)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(size=st.tuples(st.integers(3, 9), st.integers(3, 9)), blocks=st.integers(1, 3), seed=st.integers(0, 1000))
def test_blocks_that_are_not_turned_lose_no_pixel(size, blocks, seed):
    grey = rand(3, 1, *size, seed=seed)
    images = torch.cat([grey, grey / 2], 1).requires_grad_()
    shown = shuffled(1, blocks, 0.0)[0](images, generator(seed))
    assert torch.equal(shown.flatten(2).sort().values, images.flatten(2).sort().values)
    assert torch.equal(shown[:, 1], shown[:, 0] / 2)
    (gradient,) = torch.autograd.grad(shown.sum(), images)
    assert torch.equal(gradient, torch.ones_like(images))


def test_one_block_that_is_not_turned_is_the_image():
    images = rand(2, 3, 5, 7)
    assert torch.equal(shuffled(1, 1, 0.0)[0](images, generator()), images)


def test_the_parts_of_a_line_change_places_whole():
    seen = set()
    for seed in range(200):
        source, part, low, high = (found[0] for found in _reordered(7, 3, (1,), generator(seed), torch.device("cpu")))
        assert sorted(source.tolist()) == list(range(7))
        for place in range(7):
            assert low[place] <= source[place] < high[place]
            if place and part[place] == part[place - 1]:
                assert source[place] == source[place - 1] + 1
            else:
                assert source[place] == low[place]
        seen.add((tuple(sorted(set(low.tolist()))), tuple(part.unique_consecutive().tolist())))
    # Fifteen ways to cut seven places into three, six orders of each.
    assert len(seen) > 75


@pytest.mark.parametrize("seed", range(6))
def test_a_block_turns_about_its_centre(seed):
    image, draws = ramp(9, 12), generator(seed)
    shown = shuffled(1, 1, 70.0)[0](image, draws)[0, 0]
    draws = generator(seed)
    _reordered(9, 1, (1,), draws, torch.device("cpu"))
    _reordered(12, 1, (1, 1), draws, torch.device("cpu"))
    turn = (float(torch.rand(1, 1, generator=draws)) * 2 - 1) * math.radians(70)
    matrix = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]], dtype=torch.float64)
    centre = torch.tensor([4.0, 5.5], dtype=torch.float64)
    wanted = affine_transform(
        image[0, 0].numpy(), matrix.numpy(), (centre - matrix @ centre).numpy(), order=0, mode="grid-constant"
    )
    torch.testing.assert_close(shown, torch.from_numpy(wanted), rtol=0, atol=0)


def test_images_of_a_batch_are_cut_on_their_own():
    for see in (shuffled(1)[0], structures(1)[0]):
        shown = see(ramp(8, 8).expand(30, -1, -1, -1), generator())
        assert len({tuple(one.flatten().tolist()) for one in shown}) > 20


def test_the_cuts_are_random_and_leave_no_block_empty():
    seen = {tuple(part.shape[2] for part in _cut(rand(1, 1, 5, 4), 2, 3, generator(seed))) for seed in range(100)}
    assert seen == {(1, 1, 3), (1, 3, 1), (3, 1, 1), (1, 2, 2), (2, 1, 2), (2, 2, 1)}


def test_what_is_done_to_a_block():
    block = rand(4, 3, 10, 5)
    down, across, darker, coarser, noisy, smooth, sparse = (change(block, generator(2)) for change in CHANGES)
    assert any(torch.equal(down, block.roll(by, 2)) for by in range(10))
    assert any(torch.equal(across, block.roll(by, 3)) for by in range(5))
    ratio = darker / block
    torch.testing.assert_close(ratio, ratio[0, 0, 0, 0].expand_as(ratio))
    assert 0 <= ratio[0, 0, 0, 0] < 1
    small = F.interpolate(block, size=(9, 5), mode="bilinear")
    assert torch.equal(coarser, F.interpolate(small, size=(10, 5), mode="bilinear"))
    assert 0 < (noisy - block).abs().max() <= 16 / 255 + 1e-12
    spectrum = dctn(block.numpy(), axes=(2, 3), norm="ortho")
    spectrum[:, :, 6:], spectrum[:, :, :, 3:] = 0, 0
    close(smooth, torch.from_numpy(idctn(spectrum, axes=(2, 3), norm="ortho")))
    kept = sparse != 0
    torch.testing.assert_close(sparse[kept], block[kept] / 0.9)
    assert 0.8 < kept.double().mean() < 0.98
    assert torch.equal(TURNS[0](block, None), block.flip(2))
    assert torch.equal(TURNS[1](block, None), block.flip(3))
    assert torch.equal(TURNS[2](block, None), torch.rot90(block, 2, (2, 3)))


def test_without_turns_no_block_is_mirrored():
    image = ramp(6, 6).expand(400, -1, -1, -1)
    mirrored = [image[0].flip(1), image[0].flip(2), image[0].flip(1, 2)]
    for turns, expected in ((True, 3), (False, 0)):
        shown = structures(1, 1, turns)[0](image, generator(1))
        assert sum(bool((shown == one).flatten(1).all(1).any()) for one in mirrored) == expected


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    batch=st.integers(1, 4),
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_every_look_keeps_shape_and_dtype_and_has_a_finite_gradient(batch, size, dtype, seed):
    images = rand(batch, 2, *size, dtype=dtype, seed=seed).requires_grad_()
    before = torch.random.get_rng_state()
    for see in (shuffled(1)[0], structures(1)[0]):
        shown = see(images, generator(seed))
        assert (shown.shape, shown.dtype) == (images.shape, dtype)
        (gradient,) = torch.autograd.grad(shown.sum(), images)
        assert gradient.isfinite().all()
        assert torch.equal(see(images, generator(seed)), shown)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("attack", "pieces"), [(bsr, shuffled), (sia, structures)])
def test_the_gradients_of_the_looks_are_averaged(attack, pieces):
    draws = generator(7)
    looks = pieces(3, 2)
    gradient = lambda x: sum(slope(x, see=lambda x, see=see: see(x, draws)) for see in looks) / 3  # noqa: E731
    close(attack(MODEL, X, Y, samples=3, blocks=2, generator=generator(7), **BUDGET), by_the_paper(gradient))


def test_the_presets_for_digits_turn_nothing():
    settings = {name: dict(preset(name, eps=0.1).settings) for name in ("bsr", "bsr-digits", "sia", "sia-digits")}
    assert (settings["bsr"]["angle"], settings["bsr-digits"]["angle"]) == (24.0, 0.0)
    assert settings["sia-digits"]["turns"] is False
    assert preset("sia-digits", eps=0.1).but(samples=2).settings == preset("sia-digits", eps=0.1, samples=2).settings


def test_more_blocks_than_pixels_are_refused():
    for see in (shuffled(1, 4)[0], structures(1, 4)[0]):
        with pytest.raises(InputError, match="4 blocks do not go into images of 3 by 8"):
            see(rand(1, 1, 3, 8), generator())
    for wrong in ({"blocks": 0}, {"samples": 0}, {"angle": 181.0}):
        with pytest.raises(InputError, match="give"):
            shuffled(**wrong)
