"""Weights turned to the images' layout: the same answers, and nothing broken that wants another one."""

import torch
from torch import nn

from luring import layout, networks

torch.set_num_threads(1)


class Viewing(nn.Module):
    """Takes it for granted that a convolution's output lies contiguously."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.back = nn.Conv2d(2, 3, 3), nn.Linear(3 * 6 * 6, 4)

    def forward(self, images):
        return self.back(self.front(images).view(len(images), -1))


def test_weights_are_turned_and_answers_stay():
    torch.manual_seed(0)
    network = networks.make_target("plain", (3, 8, 8), 5).eval()
    images = torch.rand(4, 3, 8, 8)
    before = network(images)
    assert layout.channels_last(network, (3, 8, 8))
    kernels = [weight for weight in network.parameters() if weight.ndim == 4]
    assert kernels
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels)
    torch.testing.assert_close(network(images), before)


def test_who_wants_another_layout_keeps_it():
    torch.manual_seed(0)
    network = Viewing().eval()
    images = torch.rand(4, 2, 8, 8)
    before = network(images)
    assert not layout.channels_last(network, (2, 8, 8))
    assert torch.equal(network(images), before)
