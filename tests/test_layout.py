"""Weights turned to the images' layout: the same answers, and nothing broken that wants another one."""

import pytest
import torch
from torch import nn

from luring import layout, lures, networks, training
from luring.schedule import Schedule

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


def test_for_a_block_alone_and_the_weights_are_the_very_tensors_again():
    torch.manual_seed(0)
    network = networks.make_target("plain", (1, 8, 8), 5).eval()
    before = [(weight.data_ptr(), weight.stride()) for weight in network.parameters()]
    with pytest.raises(KeyError), layout.turned(network, (1, 8, 8)):  # noqa: PT012
        second = network[2].weight
        assert second.is_contiguous(memory_format=torch.channels_last)
        assert not second.is_contiguous()
        raise KeyError
    assert [(weight.data_ptr(), weight.stride()) for weight in network.parameters()] == before


def test_a_fit_sees_its_target_turned_and_leaves_it_as_it_was():
    torch.manual_seed(0)
    target = networks.make_target("plain", (1, 8, 8), 5)
    before = [(weight.data_ptr(), weight.stride()) for weight in target.parameters()]
    seen: list[bool] = []
    target[2].register_forward_pre_hook(lambda layer, _: seen.append(layer.weight.is_contiguous()))
    images = torch.rand(16, 1, 8, 8)
    training.lure(
        lures.plain_lure((1, 8, 8), 4),
        target,
        images,
        images,
        schedule=Schedule(2, batch=8, validations=1),
        show=False,
    )
    assert seen[-2:] == [False, False]
    assert [(weight.data_ptr(), weight.stride()) for weight in target.parameters()] == before
