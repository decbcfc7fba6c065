"""Many images a batch at a time: the same as batch after batch, also when stopped in between, and no more than fit."""

import logging

import pytest
import torch
from torch import nn

from luring.attacks import chunks, craft, preset
from luring.errors import InputError
from test_attacks import net, rand

torch.set_num_threads(1)

X, Y = rand(10, 1, 6, 6), torch.arange(10) % 4
ATTACK = preset("dim", eps=0.1, step=0.03, steps=3, seed=5)


class Watched:
    """A model that counts what it is shown, and stops the run after some of it."""

    def __init__(self, stop=None):
        self.model, self.shown, self.stop = net(), 0, stop

    def __call__(self, images):
        self.shown += len(images)
        if self.stop is not None and self.shown > self.stop:
            raise KeyboardInterrupt
        return self.model(images)


def test_each_batch_has_draws_of_its_own():
    made = craft(ATTACK, net(), X, Y, batch=4)
    parts = [ATTACK.but(5_000_015 + i)(net(), X[4 * i : 4 * i + 4], Y[4 * i : 4 * i + 4]) for i in range(3)]
    assert torch.equal(made, torch.cat(parts))
    assert not torch.equal(made, craft(ATTACK, net(), X, Y, batch=5))
    assert torch.equal(craft(ATTACK, net(), X[:0], Y[:0]), X[:0])


@pytest.mark.parametrize("stop", [5, 12, 14, 25, 29])
def test_a_run_that_was_stopped_goes_on_and_gives_the_same(tmp_path, monkeypatch, stop):
    monkeypatch.setattr(chunks, "SAVE_EVERY", 0.0)
    state, whole = tmp_path / "state", craft(ATTACK, net(), X, Y, batch=4)
    with pytest.raises(KeyboardInterrupt):
        craft(ATTACK, Watched(stop), X, Y, batch=4, state=state)
    again = Watched()
    assert torch.equal(craft(ATTACK, again, X, Y, batch=4, state=state), whole)
    # Three passes an image; finished batches of four are not done again.
    assert again.shown == 30 - 12 * min(stop // 12, 2)
    assert not state.exists()


def test_a_state_of_another_run_is_refused_and_left(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "SAVE_EVERY", 0.0)
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        craft(ATTACK, Watched(20), X, Y, batch=4, state=state)
    kept = state.read_bytes()
    for other in (
        {"attack": ATTACK.but(eps=0.2)},
        {"attack": ATTACK.but(6)},
        {"x": X / 2},
        {"y": Y.flip(0)},
        {"batch": 5},
        {"model": nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).double()},
    ):
        given = {"attack": ATTACK, "model": net(), "x": X, "y": Y, "batch": 4, **other}
        with pytest.raises(InputError, match="belongs to a run with other images or settings"):
            craft(given["attack"], given["model"], given["x"], given["y"], batch=given["batch"], state=state)
        assert state.read_bytes() == kept
    state.write_bytes(kept[:40])
    with pytest.raises(InputError, match="is damaged"):
        craft(ATTACK, net(), X, Y, batch=4, state=state)


def test_as_many_as_fit(monkeypatch, caplog):
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).double()
    x = rand(1000, 1, 6, 6)
    # Kept for the way back: the image, twice the convolution's output (rectified in another tensor).
    image, output = 36 * 8, 8 * 36 * 8
    sizes = {}
    for free in (10**5, 10**6, 10**7, 10**9):
        monkeypatch.setattr(chunks, "_free", lambda _, free=free: free)
        with caplog.at_level(logging.INFO, logger="luring"):
            sizes[free] = chunks.fitting(model, x)
        most = free / 2 / (8 * image + 2 * output)
        assert sizes[free] & (sizes[free] - 1) == 0
        assert sizes[free] <= most or sizes[free] == 1
        assert sizes[free] >= min(512, free / 2 / (8 * image + 8 * output) / 2)
    assert sizes[10**9] == 512  # of a thousand images
    assert f"{sizes[10**5]} images at a time" in caplog.text
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_auto_is_a_batch_size():
    assert torch.equal(craft(ATTACK, net(), X, Y, batch="auto"), craft(ATTACK, net(), X, Y, batch=8))


def test_the_free_memory_of_this_machine_is_known():
    assert chunks._free(torch.device("cpu")) > 10**6


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(InputError, match="batch is 0"):
        craft(ATTACK, net(), X, Y, batch=0)
