import pytest
import torch
from torch import nn

from luring import architectures, cost, lures, networks
from luring.errors import InputError

torch.set_num_threads(1)


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_sizes_that_the_facts_give():
    rgb = (3, 32, 32)
    lure = architectures.cifar10_lure()
    assert round(parameters(lure) / 1e6, 1) == 14.8
    assert round(cost.multiply_adds(lure, rgb) / 1e9, 1) == 4.3
    assert round(cost.multiply_adds(architectures.cifar10_target(), rgb) / 1e9, 2) == 0.51
    assert round(cost.multiply_adds(architectures.svhn_lure(), rgb) / 1e9, 2) == 0.80


def test_the_small_sizes_by_hand():
    target = architectures.mnist_target()
    assert parameters(target) == 32 * 25 + 64 * 32 * 25 + (64 * 49 * 1024 + 1024) + (1024 * 10 + 10)
    adds = 28 * 28 * 32 * 25 + 14 * 14 * 64 * 32 * 25 + 64 * 49 * 1024 + 1024 * 10
    assert cost.multiply_adds(target, (1, 28, 28)) == adds
    assert parameters(architectures.mnist_lure()) == 160 + 1160 + 3 * 584 + 1168 + 145


def test_counting_leaves_the_network_as_it_was():
    network = networks.plain_target((1, 8, 8), 3).train()
    cost.multiply_adds(network, (1, 8, 8))
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "shape"), [("mnist", (1, 28, 28)), ("svhn", (3, 32, 32)), ("cifar10", (3, 32, 32)), ("plain", (3, 9, 7))]
)
def test_targets_give_logits(name, shape):
    network = networks.make_target(name, shape, 7).eval()
    with torch.no_grad():
        assert network(torch.rand(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mnist", (1, 28, 28)),
        ("svhn", (3, 32, 32)),
        ("cifar10", (3, 32, 32)),
        ("plain-4", (1, 9, 7)),
        ("plain-2", (3, 5, 8)),
        ("plain-1", (1, 2, 3)),
        ("plain-3", (3, 31, 33)),
    ],
)
def test_lures_give_images_of_the_same_shape(name, shape):
    lure, again = networks.make_lure(name, nn.Identity(), shape)
    assert again == name
    with torch.no_grad():
        seen = lure.eval()(torch.rand(2, *shape))
    assert seen.shape == (2, *shape)
    assert seen.min() >= 0
    assert seen.max() <= 1


def test_the_narrowest_place_of_the_mnist_lure():
    seen = torch.rand(1, 1, 28, 28)
    smallest = None
    with torch.no_grad():
        for layer in architectures.mnist_lure():
            seen = layer(seen)
            if smallest is None or seen.numel() < smallest.numel():
                smallest = seen
    assert smallest.shape == (1, 8, 4, 4)


def test_the_batch_normalisation_is_that_of_keras():
    norms = [m for m in architectures.cifar10_target().modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)]
    norms += [m for m in architectures.cifar10_lure().modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


@pytest.mark.parametrize(("network", "rates"), [("svhn", [0.15, 0.15]), ("cifar10", [0.3, 0.3])])
def test_the_dropout_of_the_deep_lures(network, rates):
    lure, _ = networks.make_lure(network, nn.Identity(), (3, 32, 32))
    assert [layer.p for layer in lure if isinstance(layer, nn.Dropout)] == rates


class Attending(nn.Module):
    """A transformer that sees squares of pixels."""

    def __init__(self, shape, square, width=32):
        super().__init__()
        self.see = nn.Conv2d(shape[0], width, square, square)
        self.layer = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True)
        self.last = nn.Linear(width, 10)

    def forward(self, images):
        return self.last(self.layer(self.see(images).flatten(2).mT).mean(1))


@pytest.mark.parametrize("kind", ["plain", "residual"])
@pytest.mark.parametrize("share", [0.25, 0.5])
@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((1, 8, 8), networks.plain_target),
        ((3, 9, 11), networks.plain_target),
        ((1, 28, 28), networks.plain_target),
        ((3, 96, 96), lambda shape, _: Attending(shape, 8, 128)),
        ((3, 224, 224), lambda shape, _: Attending(shape, 16, 256)),
        ((3, 512, 200), lambda shape, _: Attending(shape, 32, 256)),
    ],
)
def test_the_lure_auto_costs_at_most_its_share_and_the_next_wider_more(shape, target, share, kind):
    target = target(shape, 10)
    lure, name = networks.make_lure("auto", target, shape, share=share, kind=kind)
    budget = cost.multiply_adds(target, shape) * share
    assert cost.multiply_adds(lure, shape) <= budget
    width, fold = networks.widest(target, shape, share=share, kind=kind)
    assert name == f"{kind}-{width}" + f"-{fold}" * (fold > 1)
    again, same = networks.make_lure(name, target, shape)
    assert (same, list(again.state_dict())) == (name, list(lure.state_dict()))
    assert max(shape[1:]) <= 64 * fold
    wider = [w for w in networks.WIDTHS if w > width]
    assert not wider or cost.multiply_adds(networks.BY_WIDTH[kind](shape, wider[-1], fold), shape) > budget


def test_attention_is_counted_also_where_pytorch_fuses_it():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    tokens = 3 * 4
    network = nn.Sequential(nn.Flatten(1), nn.Unflatten(1, (tokens, 16)), layer)
    projections = tokens * 16 * (3 * 16 + 16 + 2 * 32)
    assert cost.multiply_adds(network, (3, 8, 8)) == projections + 2 * tokens**2 * 16
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("shape", [(1, 9, 11), (3, 8, 8), (2, 32, 17)])
@pytest.mark.parametrize("fold", [2, 4])
def test_a_folded_lure_keeps_every_pixel_in_its_place(shape, fold):
    x = torch.rand(2, *shape)
    assert torch.equal(lures.Folded(nn.Identity(), fold)(x), x)
    lure = lures.plain_lure(shape, 2, fold)
    assert lure(x).shape == x.shape
    assert 0 <= lure(x).min() <= lure(x).max() <= 1


@pytest.mark.parametrize("shape", [(1, 9, 11), (3, 8, 8), (2, 32, 17)])
@pytest.mark.parametrize("name", ["residual-3", "residual-4-2"])
def test_a_residual_lure_begins_as_the_identity_and_stays_in_range_without_a_clip(shape, name):
    torch.manual_seed(0)
    lure, again = networks.make_lure(name, nn.Identity(), shape)
    assert again == name
    x = torch.rand(4, *shape)
    assert torch.equal(lure(x), x)
    for parameter in lure.parameters():
        nn.init.normal_(parameter)
    leaf = x.clone().requires_grad_()
    seen = lure(leaf)
    assert seen.shape == x.shape
    assert 0 <= seen.min() <= seen.max() <= 1
    assert not torch.equal(seen, x)
    (gradient,) = torch.autograd.grad(seen.sum(), leaf)
    assert bool(gradient.isfinite().all())


def test_the_identity_learns():
    """At t = 0 a rectifier on either side would have no slope, and the lure would stay what it is for ever."""
    lure, x = lures.residual_lure((1, 8, 8), 2), torch.rand(4, 1, 8, 8)
    lure(x).square().sum().backward()
    last = lure.change[-1]
    assert float(last.weight.grad.norm()) > 0


def test_the_decoy_is_the_target_behind_the_lure():
    target, lure = networks.plain_target((1, 8, 8), 3), lures.plain_lure((1, 8, 8), 2)
    decoy, x = networks.compose(lure, target), torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(decoy(x), target(lure(x)))
    assert {id(p) for p in decoy.parameters()} == {id(p) for n in (target, lure) for p in n.parameters()}


@pytest.mark.parametrize(
    "name",
    [
        "nothing",
        "plain",
        "plain-",
        "plain-0",
        "plain-x",
        "plain-²",
        "sized",
        "plain-4-3",
        "plain-99999",
        "auto-",
    ],
)
def test_unknown_lures_are_refused(name):
    with pytest.raises(InputError, match="no lure"):
        networks.make_lure(name, nn.Identity(), (1, 8, 8))


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="no target 'nothing'"):
        networks.make_target("nothing", (1, 8, 8), 3)
    with pytest.raises(InputError, match="28 by 28"):
        networks.make_lure("mnist", nn.Identity(), (1, 32, 32))
    with pytest.raises(InputError, match="sides that 8 divides"):
        networks.make_lure("svhn", nn.Identity(), (3, 30, 32))
    with pytest.raises(InputError, match="8 by 8 or more"):
        networks.make_lure("plain-2-4", nn.Identity(), (1, 7, 9))
    with pytest.raises(InputError, match="above 0"):
        networks.make_lure("auto", nn.Identity(), (1, 7, 9), share=0.0)
    tiny = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with pytest.raises(InputError, match="costs less"):
        networks.widest(tiny, (1, 8, 8))


class Was(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x):
        return self.change(x)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x[:, :, 1:], "keeps the shape"),
        (lambda x: x.mean(1, keepdim=True), "keeps the shape"),
        (lambda x: x + 1, r"\[0, 1\]"),
        (lambda x: -x, r"\[0, 1\]"),
        (lambda x: x * float("nan"), r"\[0, 1\]"),
    ],
)
def test_a_lure_that_is_none_is_refused(change, says):
    with pytest.raises(InputError, match=says):
        networks.check_lure(Was(change), torch.rand(2, 3, 4, 4))


def test_a_lure_that_is_one_is_left_as_it_was():
    lure = lures.plain_lure((3, 5, 5), 2).train()
    networks.check_lure(lure, torch.rand(2, 3, 5, 5))
    assert lure.training
    assert all(parameter.requires_grad for parameter in lure.parameters())
