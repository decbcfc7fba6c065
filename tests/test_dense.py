"""Dense layers for few rows: the same numbers and names, by another product."""

import pytest
import torch
from torch import nn

from luring import networks
from luring.serve.dense import FEW, Dense, for_few

torch.set_num_threads(1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(rows, 300) for rows in range(FEW + 3)] + [(2, 3, 300), (300,)])
def test_the_numbers_are_those_of_linear(shape, bias):
    torch.manual_seed(0)
    plain, other = nn.Linear(300, 70, bias=bias), Dense(300, 70, bias=bias)
    other.load_state_dict(plain.state_dict())
    rows = torch.randn(shape)
    torch.testing.assert_close(other(rows), plain(rows), atol=1e-5, rtol=1e-5)
    assert other(rows).shape == plain(rows).shape


def test_a_network_keeps_its_weights_and_names():
    network = networks.make_target("plain", (1, 8, 8), 10).eval()
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    images = torch.rand(2, 1, 8, 8)
    answered = network(images)
    for_few(network)
    assert any(isinstance(part, Dense) for part in network.modules())
    assert list(network.state_dict()) == list(before)
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())
    torch.testing.assert_close(network(images), answered)


def test_what_somebody_made_of_linear_is_left_alone():
    class Own(nn.Linear):
        def forward(self, input):  # noqa: A002, nn.Linear's name
            return super().forward(input) * 2

    network = nn.Sequential(Own(3, 2))
    for_few(network)
    assert type(network[0]) is Own
