"""An ensemble answers with the mean of its models' logits, and is held still as each of them."""

import pytest
import torch

from luring.attacks import ensemble, mim
from luring.errors import InputError
from test_attacks import linear, net, rand, randn

torch.set_num_threads(1)

X, Y = rand(4, 1, 6, 6), torch.tensor([0, 1, 2, 3])
STEPS = {"eps": 0.1, "step": 0.03, "steps": 5}


def test_logits_are_averaged():
    first, second = net(seed=1), net(seed=2)
    both = ensemble(first, second, lambda images: 3 * first(images))
    torch.testing.assert_close(both(X), (4 * first(X) + second(X)) / 3)
    assert torch.equal(ensemble(first)(X), first(X))


def test_an_attack_on_it_follows_the_mean_of_the_gradients():
    one, other = randn(1, 6, 6, seed=1), randn(1, 6, 6, seed=2)
    made = mim(ensemble(linear(one), linear(other)), X, torch.zeros(4, dtype=torch.int64), **STEPS)
    assert torch.equal(made, mim(linear((one + other) / 2), X, torch.zeros(4, dtype=torch.int64), **STEPS))


def test_its_models_are_held_still_and_left_as_they_were():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 4)).double().train()
    inside = []

    class Watched(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, images):
            inside.append((self.net.training, any(weight.requires_grad for weight in self.net.parameters())))
            return self.net(images)

    mim(ensemble(Watched(), model), X, Y, **STEPS)
    assert set(inside) == {(False, False)}
    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())


def test_models_that_do_not_go_together_are_refused():
    with pytest.raises(InputError, match="ensemble is empty"):
        ensemble()
    with pytest.raises(InputError, match="4, 3 classes"):
        ensemble(net(), net(classes=3))(X)
