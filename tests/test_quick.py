"""The faster model means the same, the model itself stays as it was, and what is not understood is left alone."""

import inspect
import logging
import random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from luring import architectures, lures, networks
from luring.attacks import ensemble, pgd
from luring.attacks.quick import AFTER, _say, quick
from luring.audit.suspicious import cuts
from luring.frozen import frozen
from luring.scaling import Scaling
from luring.targets.preprocessing import Preprocessed, Preprocessing
from test_attacks import generator, rand

torch.set_num_threads(1)

X = rand(4, 3, 12, 12, dtype=torch.float32)


@pytest.fixture(autouse=True)
def _no_line_said_yet():
    _say.cache_clear()


def lived(model, seed=0):
    """A network in evaluation mode, its weights frozen and its batch normalisation with a past."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for part in model.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.running_mean is not None:
                part.running_mean.normal_()
                part.running_var.uniform_(0.2, 3)
                if part.affine:
                    nn.init.normal_(part.weight)
                    nn.init.normal_(part.bias)
    return model.eval().requires_grad_(False)


def vgg():
    return lived(
        nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.5)),
            *(nn.Flatten(), nn.Linear(8 * 36, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5)),
        )
    )


def slope(model, x, dtype=None):
    leaf = x.detach().clone().to(dtype or x.dtype).requires_grad_()
    logits = model(leaf)
    weight = torch.randn(logits.shape[1], dtype=leaf.dtype, generator=generator(1))
    return torch.autograd.grad((logits * weight).sum(), leaf)[0], logits.detach()


def assert_same(model, x=X):
    """In float64, where rounding hardly ever decides which way a rectifier or a pool goes, as it often does in float32."""
    model, x = model.double(), x.double()
    for ours, own in zip(slope(quick(model, x), x), slope(model, x), strict=True):
        assert (ours - own).norm() <= 1e-9 * own.norm() + 1e-12


def graph_of(callable_):
    """The graph in what `quick` gave."""
    return next(cell.cell_contents for cell in callable_.__closure__ if isinstance(cell.cell_contents, fx.GraphModule))


def parts(callable_):
    """The layers of what `quick` gave, in order."""
    graph = graph_of(callable_)
    modules = dict(graph.named_modules())
    return [type(modules[str(node.target)]).__name__ for node in graph.graph.nodes if node.op == "call_module"]


class Viewed(nn.Module):
    """Takes it for granted that a convolution's output lies contiguously."""

    def __init__(self):
        super().__init__()
        self.front, self.back = nn.Conv2d(1, 3, 3), nn.Linear(300, 4)

    def forward(self, images):
        return self.back(self.front(images).view(len(images), -1))


def test_kernels_on_grey_images_are_turned_and_the_models_own_are_not():
    model = lived(architectures.mnist_target((1, 12, 12), 5, dense=16))
    x = X[:, :1]
    assert_same(model, x)
    model, x = model.float(), x.float()
    own = [part.weight.stride() for part in model if isinstance(part, nn.Conv2d)]
    turned = [part.weight for part in graph_of(quick(model, x)).modules() if isinstance(part, nn.Conv2d)]
    assert len(turned) == 2
    assert not turned[1].is_contiguous()
    assert [part.weight.stride() for part in model if isinstance(part, nn.Conv2d)] == own


def test_who_wants_grey_images_in_another_layout_is_attacked_as_it_is():
    model = lived(Viewed())
    x = X[:, :1]
    assert quick(model, x) is model
    assert pgd(model, x, torch.zeros(4, dtype=torch.int64), eps=0.1, step=0.1, steps=1).shape == x.shape


def test_each_model_of_an_ensemble_is_made_faster():
    first, second = vgg(), lived(networks.make_target("plain", (3, 12, 12), 5))
    assert_same(ensemble(first, second).eval())
    faster = quick(ensemble(first.float(), second.float()).eval(), X)
    assert "BatchNorm2d" not in parts(faster.models[0])
    assert quick(ensemble(first, second), X).training, "in training mode it is left alone"


class Residual(nn.Module):
    """A layer used twice, and a normalisation whose input goes two ways."""

    def __init__(self):
        super().__init__()
        self.conv, self.again = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.end = nn.Linear(3, 5)

    def forward(self, x):
        one = self.conv(x)
        two = self.norm(one) + one
        three = self.other(self.again(two)) + self.again(x)
        return self.end(F.relu(three).mean((2, 3)))


def test_normalisation_is_folded_and_rectifiers_wait_for_pooling():
    model = vgg()
    faster = quick(model, X)
    assert parts(faster) == (
        "Conv2d MaxPool2d ReLU Conv2d ReLU Dropout Flatten Linear ReLU Linear".split()  # noqa: SIM905
    )
    found, exact = slope(faster, X)[0], slope(model.double(), X, torch.float64)[0]
    off, size = (part.flatten(1).norm(dim=1) for part in (found - exact, exact))
    assert (off / size).median() <= 1e-5, "and in float32, but for an image at a tie"
    assert_same(model)


def test_what_goes_two_ways_is_not_folded():
    model = lived(Residual())
    faster = quick(model, X)
    assert any(cell.cell_contents is model for cell in faster.__closure__)
    assert_same(model)
    model.other = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), model.other)
    faster = quick(lived(model.float()), X)
    assert parts(faster) == ["Conv2d", "BatchNorm2d", "Conv2d", "Conv2d", "Conv2d", "Linear"]
    assert_same(model)


@pytest.mark.parametrize("name", ["mnist", "svhn", "cifar10", "plain"])
def test_the_papers_decoys_mean_the_same(name):
    shape = (1, 28, 28) if name == "mnist" else (3, 32, 32)
    target = lived(networks.make_target(name, shape, 10))
    lure, _ = networks.make_lure("auto" if name != "mnist" else "mnist", target, shape)
    decoy = lived(networks.compose(lure, target))
    assert_same(decoy, rand(2, *shape))


LAYERS = {
    "conv": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "strided": lambda: nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2, bias=False),
    "norm": lambda: nn.BatchNorm2d(4),
    "plain norm": lambda: nn.BatchNorm2d(4, affine=False),
    "batch norm": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "relu": nn.ReLU,
    "pool": lambda: nn.MaxPool2d(2, padding=1),
    "mean": lambda: nn.AvgPool2d(2, ceil_mode=True),
    "smooth": nn.Tanh,
}


@settings(deadline=None, max_examples=60, derandomize=True)
@given(names=st.lists(st.sampled_from(list(LAYERS)), min_size=1, max_size=7), seed=st.integers(0, 1000))
def test_any_chain_means_the_same(names, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        chain = [LAYERS[name]() for name in names]
        model = lived(nn.Sequential(nn.Conv2d(3, 4, 1), *chain, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)))
    assert_same(model)


def test_the_model_itself_is_not_changed():
    model = vgg()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = [(name, type(part), part.training) for name, part in model.named_modules()]
    random_state = torch.random.get_rng_state()
    quick(model, X)
    assert [(name, type(part), part.training) for name, part in model.named_modules()] == names
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), random_state)


@pytest.mark.parametrize(
    ("preprocessing", "shape"),
    [
        (Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2,)), (3, 16, 16)),
        (Preprocessing(Scaling(16, 16), 3, (0.5,), (0.2,)), (1, 20, 24)),
    ],
)
def test_a_target_with_its_preprocessing_is_folded_and_cut_at_its_layers(preprocessing, shape, caplog, monkeypatch):
    # While traced it is given no tensor, which the tests' check of types would refuse.
    monkeypatch.setattr(Preprocessed, "forward", inspect.unwrap(Preprocessed.forward))
    own = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(392, 10)
    )
    target = Preprocessed(own, preprocessing)
    decoy = lived(networks.compose(lures.plain_lure(shape, 4), target))
    x = rand(4, *shape, dtype=torch.float32)
    with caplog.at_level(logging.INFO, "luring"):
        faster = quick(decoy, x)
    assert faster is not decoy, caplog.text
    assert torch.allclose(faster(x), decoy(x), rtol=1e-3, atol=1e-4)
    # Behind P: what M is fed, and what its layers give.
    assert sum(cut.shape == shape for cut in cuts(decoy, shape)) >= 1
    assert any(cut.shape == (8, 7, 7) for cut in cuts(decoy, shape))


@pytest.mark.parametrize("make", [lures.plain_lure, lures.residual_lure])
@pytest.mark.parametrize("side", [20, 21])
def test_a_lure_that_folds_squares_is_traced_and_its_normalisation_folded(side, make, monkeypatch):
    for network in (lures.Folded, lures.Residual, lures.Beside):
        monkeypatch.setattr(network, "forward", inspect.unwrap(network.forward))
    shape = (3, side, side)
    decoy = lived(networks.compose(make(shape, 8, 2), networks.plain_target(shape, 10)))
    x = rand(4, *shape, dtype=torch.float32)
    faster = quick(decoy, x)
    assert faster is not decoy
    assert "BatchNorm2d" not in parts(faster)
    assert torch.allclose(faster(x), decoy(x), rtol=1e-4, atol=1e-5)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.end = nn.Linear(432, 5)

    def forward(self, x):
        flat = x.flatten(1)
        return self.end(flat if flat.sum() > 0 else -flat)


class Dicing(Branching):
    """A defence that draws: traced once, it would draw the same for ever."""

    def forward(self, x):
        return self.end(x.flatten(1) * random.random())


class Doubling(Branching):
    """Traced, its mean over the batch stays; for one image it is another one. It means the same all the same."""

    def forward(self, x):
        return self.end(x.flatten(1) - x.flatten(1).mean(0))


def hooked():
    model = vgg()
    model[4].register_forward_hook(lambda _module, _args, output: output * 2)
    return model


def grown():
    model = vgg()
    model[0].weight.requires_grad_(True)
    return model


def training():
    model = vgg()
    model[7].train()
    return model


REFUSED = {
    "training": (training, "training mode in 7"),
    "hooks": (hooked, "hooks in 4"),
    "gradients": (grown, "weights that are not frozen in 0"),
    "scripted": (lambda: torch.jit.trace(vgg(), X), "scripted"),
    "traced": (lambda: fx.symbolic_trace(vgg()), "scripted or traced"),
    "branches": (lambda: lived(Branching()), "cannot be traced"),
    "dice": (lambda: lived(Dicing()), "two traces of it differ"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_left_alone_and_said_once(case, caplog):
    make, words = REFUSED[case]
    model = make()
    with caplog.at_level(logging.INFO, logger="luring"):
        assert quick(model, X) is model
        assert quick(model, X) is model
    assert len(caplog.records) == 1
    assert words in caplog.text


def test_a_model_whose_meaning_would_change_is_left_alone(monkeypatch, caplog):
    model = vgg()
    monkeypatch.setitem(
        AFTER, nn.Conv2d, lambda conv, _norm: nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1)
    )
    with caplog.at_level(logging.INFO, logger="luring"):
        assert quick(model, X) is model
    assert "its gradient changed" in caplog.text


def test_what_is_no_module_is_given_back():
    function = lambda images: images.flatten(1)  # noqa: E731
    assert quick(function, X) is function
    model = vgg()
    assert quick(model, X[:0]) is model


def test_an_attack_makes_the_same_steps():
    model, y = vgg(), torch.tensor([0, 1, 2, 3])
    start = {"eps": 0.1, "step": 0.02, "steps": 5, "random_start": False}
    plain = pgd(lambda images: model(images), X, y, **start)
    model.requires_grad_(True)[0].train()
    made = pgd(model, X, y, **start)
    assert (made - plain).abs().max() <= 0.1 * 2
    assert ((made - plain).abs() > 1e-5).float().mean() < 0.01
    assert model[0].training
    assert all(weight.requires_grad for weight in model.parameters())
    with frozen(model):
        assert not model[0].training
