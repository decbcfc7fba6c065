"""Images are moved as far as they may be and no further; a training that moves them goes on where it stopped."""

import pytest
import torch

from luring import augment, data, loop, networks, training
from luring.augment import Moves, moved
from luring.errors import InputError
from luring.training import Schedule

RAMP = torch.arange(12.0).view(1, 1, 1, 12).expand(64, 3, 8, 12) / 11


def test_nothing_moves_without_a_reason():
    x = torch.rand(5, 3, 8, 12)
    assert torch.equal(moved(x, Moves()), x)


def test_shifts_are_whole_pixels_within_bounds_and_repeat_the_border():
    torch.manual_seed(0)
    found = moved(RAMP, Moves(shift=0.25))
    by = torch.arange(12)[None] + torch.arange(-3, 4)[:, None]
    allowed = by.clamp(0, 11).float() / 11
    rows = found[:, 0, 0]
    which = [int((row == allowed).all(1).nonzero()) for row in rows]  # each is one of the seven shifts
    assert sorted(set(which)) == list(range(7))
    assert torch.equal(found, found[:, :1, :1].expand_as(found))


def test_half_are_mirrored():
    torch.manual_seed(0)
    found = moved(RAMP, Moves(mirror=True))
    mirrored = (found == RAMP.flip(3)).flatten(1).all(1)
    assert torch.equal(found[~mirrored], RAMP[~mirrored])
    assert 16 < int(mirrored.sum()) < 48


def test_turned_as_pillow_turns():
    from PIL import Image

    y, x = torch.meshgrid(torch.arange(31), torch.arange(47), indexing="ij")
    picture = (torch.sin(x / 5) * torch.cos(y / 4) / 2 + 0.5).float()
    torch.manual_seed(3)
    angle = float((2 * torch.rand(1) - 1) * 10)
    torch.manual_seed(3)
    ours = moved(picture[None, None], Moves(angle=10.0))[0, 0]
    turned = Image.fromarray(picture.numpy()).rotate(angle, Image.Resampling.BILINEAR)
    theirs = torch.frombuffer(bytearray(turned.tobytes()), dtype=torch.float32).view(31, 47)
    inside = (slice(6, -6), slice(6, -6))
    assert abs(angle) > 3
    assert torch.allclose(ours[inside], theirs[inside], atol=1e-3)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_moves_alike_and_stays_in_range(seed):
    x = torch.rand(16, 1, 9, 9)
    found = []
    for _ in range(2):
        torch.manual_seed(seed)
        found.append(moved(x, Moves(angle=30.0, shift=0.3, mirror=True)))
    assert torch.equal(*found)
    low, high = found[0].aminmax()
    assert 0 <= low <= high <= 1


DIGITS = data.load("digits", progress=False)


def linear():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))


def classified(moves, schedule, state):
    made = linear()
    training.classifier(made, DIGITS.train, DIGITS.validation, schedule=schedule, alter=moves, state=state, show=False)
    return made.state_dict()


def lured(moves, schedule, state, method="luring"):
    target = linear()
    made, _ = networks.make_lure("plain-4", target, DIGITS.shape)
    images = DIGITS.train.images, DIGITS.validation.images
    training.lure(made, target, *images, method=method, moves=moves, schedule=schedule, state=state, show=False)
    return made.state_dict()


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("train", [classified, lured])
def test_a_stopped_training_that_moves_images_goes_on(tmp_path, monkeypatch, train):
    moves, schedule = Moves(angle=10.0, shift=0.1), Schedule(8, batch=32, validations=2)
    whole = train(moves, schedule, tmp_path / "whole")
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    draws, seen = augment.moved, 0

    def stop(images, how):
        nonlocal seen
        seen += 1
        if seen == 5:
            raise KeyboardInterrupt
        return draws(images, how)

    monkeypatch.setattr(augment, "moved", stop)
    with pytest.raises(KeyboardInterrupt):
        train(moves, schedule, tmp_path / "stopped")
    assert same(whole, train(moves, schedule, tmp_path / "stopped"))


@pytest.mark.parametrize("method", ["luring", "luring_alt", "c_e", "auto"])
def test_a_target_asked_at_each_step_says_the_same_of_images_that_do_not_move(method):
    schedule = Schedule(8, batch=32, validations=2)
    still, asked, moved = (lured(moves, schedule, None, method) for moves in (None, Moves(), Moves(shift=0.2)))
    assert all(torch.allclose(still[name], asked[name], atol=1e-5) for name in still)
    assert not same(still, moved)


def test_the_state_of_a_fit_on_other_moves_is_another_fits(tmp_path):
    schedule = Schedule(4, batch=32, validations=1)
    lured(Moves(shift=0.2), schedule, tmp_path / "state")
    with pytest.raises(InputError, match="state"):
        lured(Moves(shift=0.1), schedule, tmp_path / "state")
