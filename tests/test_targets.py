"""Targets of the five kinds: the same answers as where they come from, gradients, preprocessing, and what is refused."""

import json
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from luring import bundle, cost, networks, targets, training
from luring.data import Split
from luring.errors import InputError
from luring.scaling import Scaling, scale
from luring.targets import Preprocessed, Preprocessing, Target
from luring.targets.examined import COMMON, poor
from luring.weights import write_tensors

torch.set_num_threads(1)


def bright(classes, shape, n=240):
    """Images whose brightness is their class, in [0, 1], with noise."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    level = (labels + 0.5) / classes
    noise = torch.rand(n, *shape, generator=draw) - 0.5
    return Split((level.reshape(-1, 1, 1, 1) + noise * 0.3).clamp(0, 1), labels)


def trained(target, part, steps=40, lr=1e-2):
    """A network trained for a while, behind its preprocessing."""
    training.classifier(target, part, part, schedule=training.Schedule(steps, 32, lr, validations=4), show=False)
    return target.eval()


def small(classes=3, channels=1):
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, classes)
    )  # fmt: skip


def differentiable(target, shape):
    x = torch.rand(3, *shape, requires_grad=True)
    target.network(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad.flatten(1).abs().sum(1) > 0).all()
    assert cost.multiply_adds(target.network, shape) > 0


def exported(path, model, shape, batch=None):
    dynamic = ({0: torch.export.Dim("batch", min=1)},) if batch is None else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(
            torch.export.export(model.eval(), (torch.rand(batch or 2, *shape),), dynamic_shapes=dynamic), path
        )
    return path


def onnx_file(path, model, shape, batch=None):
    dynamic = ({0: torch.export.Dim("batch", min=1)},) if batch is None else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(), (torch.rand(batch or 2, *shape),), path, dynamo=True, verbose=False, external_data=False, dynamic_shapes=dynamic
        )  # fmt: skip
    return path


def fitted(of, part, tmp_path, classes, **given):
    """A lure fitted for a moment, saved and loaded: the same decoy."""
    shape = tuple(part.images.shape[1:])
    lure, name = networks.make_lure("plain-1" if shape[1] < 64 else "plain-2-4", of.network, shape)
    schedule = training.Schedule(2, 8, validations=1)
    training.lure(lure, of.network, part.images[:16], part.images[:16], schedule=schedule, show=False)
    config = {"lure": name, "shape": list(shape), "classes": list(map(str, range(classes))), "method": "luring"}
    bundle.save(tmp_path / "b", of, lure, config, with_target=False)
    found = bundle.load(tmp_path / "b", **given)
    with torch.no_grad():
        assert torch.allclose(found.decoy(part.images[:4]), of.network(lure(part.images[:4])), atol=1e-5)
    return lure, config


# preprocessing


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "share"), [((8, 8), 1.0), ((20, 30), 0.875), ((64, 17), 0.5)])
def test_scaling_is_pillows_but_for_rounding(method, size, share):
    import numpy as np
    from PIL import Image

    from luring.scaling import scale_picture

    smooth = F.interpolate(
        torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0)), size, mode="bicubic"
    ).clamp(0, 1)
    to = Scaling(16, 12, share, method=method)
    ours = scale(smooth.float(), to)
    picture = Image.fromarray((smooth[0, 0] * 255).round().byte().numpy())
    theirs = torch.from_numpy(np.asarray(scale_picture(picture, to)).astype("float32") / 255)
    assert ours.shape[-2:] == theirs.shape == (16, 12)
    off = (ours[0, 0] - theirs).abs()
    # The nearest of two pixels that are equally near may be either.
    assert (off.median() if method == "nearest" else off.mean()) < 0.01
    assert 0 <= ours.min() <= ours.max() <= 1


def test_what_stands_before_a_classifier():
    seen = Preprocessing(Scaling(8, 8), 3, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    network = Preprocessed(nn.Identity(), seen)
    x = torch.rand(2, 3, 8, 8)
    mean, std = torch.tensor([0.5, 0.4, 0.3]).reshape(3, 1, 1), torch.tensor([0.2, 0.2, 0.1]).reshape(3, 1, 1)
    assert torch.allclose(network(x), (x - mean) / std)
    grey = network(x[:, :1])
    assert torch.allclose(grey * std + mean, x[:, :1].expand(-1, 3, -1, -1), atol=1e-6)
    colour = Preprocessed(nn.Identity(), Preprocessing(None, 1))(x)
    assert torch.allclose(colour[:, 0], 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2], atol=1e-6)
    assert network(torch.rand(1, 1, 30, 20)).shape == (1, 3, 8, 8)
    assert not network.state_dict(), "the classifier's names are its own"


@pytest.mark.parametrize("given", [{"std": (0.0,)}, {"mean": (float("nan"),)}, {"mean": (0.1, 0.2)}, {"std": ()}])
def test_a_normalisation_that_is_none_is_refused(given):
    with pytest.raises(InputError, match=r"normalisation|numbers for"):
        Preprocessing(None, 3, **given)


# the first look


def test_a_wrong_normalisation_is_noticed_and_the_right_one_named():
    torch.manual_seed(0)
    part = bright(4, (3, 8, 8))
    mean, std = COMMON["ImageNet's"]
    right = Target(trained(Preprocessed(small(4, 3), Preprocessing(None, 3, mean, std)), part, 200), "factory", "a:b")
    assert targets.examine(right, part.images, part.labels).accuracy > 0.9
    for wrong in (
        right.seeing(Preprocessing(None, 3, (0.0,), (1 / 255,))),
        right.seeing(Preprocessing(None, 3, (0.9,), (1.0,))),
    ):
        with pytest.raises(InputError, match=r"another normalisation .*--mean .* --std") as said:
            targets.examine(wrong, part.images, part.labels)
        assert "--anyway" in str(said.value)


@pytest.mark.parametrize("labelled", [True, False])
def test_an_untrained_target_is_noticed(labelled):
    torch.manual_seed(0)
    part = bright(10, (1, 8, 8))
    fresh = Target(Preprocessed(small(10), Preprocessing(channels=1)).eval(), "factory", "a:b")
    with pytest.raises(InputError, match=r"is it trained|all of 240 .* the same answer"):
        targets.examine(fresh, part.images, part.labels if labelled else None)


@pytest.mark.parametrize(("classes", "limit"), [(2, 0.6), (10, 0.2), (100, 0.02), (1000, 0.002)])
def test_what_counts_as_poor(classes, limit):
    assert poor(limit - 1e-6, classes)
    assert not poor(limit + 1e-6, classes)


# kinds


def test_a_factory_with_weights_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "shop.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    given = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    write_tensors(tmp_path / "w.safetensors", given.state_dict())
    found = targets.load("shop:net", weights=tmp_path / "w.safetensors", mean=(0.5,), std=(0.25,))
    x = torch.rand(3, 1, 8, 8)
    assert torch.allclose(found.network(x), given((x - 0.5) / 0.25), atol=1e-6)
    differentiable(found, (1, 8, 8))
    part = bright(2, (1, 8, 8))
    lure, config = fitted(found, part, tmp_path, 2, target="shop:net", weights=tmp_path / "w.safetensors")
    with pytest.raises(
        InputError, match=r"does not hold its target: give --target shop:net, and its weights with --weights"
    ):
        bundle.load(tmp_path / "b")
    other = {name: tensor + 1 for name, tensor in given.state_dict().items()}
    write_tensors(tmp_path / "other.safetensors", other)
    with pytest.raises(InputError, match="not the target that"):
        bundle.load(tmp_path / "b", target="shop:net", weights=tmp_path / "other.safetensors")
    bundle.save(tmp_path / "b", found, lure, config)
    assert torch.equal(bundle.load(tmp_path / "b", target="shop:net").target(x), found.network(x))
    with pytest.raises(InputError, match="never made from a bundle: give it with --target"):
        bundle.load(tmp_path / "b")


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("test_resnet", {"num_classes": 10, "in_chans": 1}, (1, 28, 28)),
        ("test_vit", {"num_classes": 120, "img_size": 32}, (3, 32, 32)),
        ("test_vit", {"num_classes": 2, "img_size": 96}, (1, 96, 96)),
    ],
)
def test_timm(timm, tmp_path, name, arguments, shape):
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **arguments).eval()
    write_tensors(tmp_path / "w.safetensors", model.state_dict())
    found = targets.load(f"timm:{name}", weights=tmp_path / "w.safetensors", size=shape[1])
    seen = found.preprocessing
    assert (seen.mean[0], seen.std[0]) == (0.5, 0.5)
    assert seen.scaling == Scaling(*shape[1:])
    if name == "test_vit":
        own = targets.load(f"timm:{name}", weights=tmp_path / "w.safetensors").preprocessing.scaling
        assert own == Scaling(arguments["img_size"], arguments["img_size"], 0.95, method="bicubic")
    x = torch.rand(2, *shape)
    normal = (x.expand(-1, seen.channels, -1, -1) - 0.5) / 0.5
    with torch.no_grad():
        assert torch.allclose(found.network(x), model(normal), atol=1e-5)
    differentiable(found, shape)
    classes = arguments["num_classes"]
    given = {"target": f"timm:{name}", "weights": tmp_path / "w.safetensors"}
    lure, config = fitted(found, Split(torch.rand(16, *shape), torch.arange(16)), tmp_path, classes, **given)
    with pytest.raises(InputError, match="does not hold its target"):
        bundle.load(tmp_path / "b")
    bundle.save(tmp_path / "b", found, lure, config)
    with torch.no_grad():
        assert torch.allclose(bundle.load(tmp_path / "b").target(x), found.network(x), atol=1e-6)


@pytest.mark.parametrize(
    "name", ["timm:no_such_model", "timm:hf-hub:evil/model", "timm:local-dir:/tmp", "timm:", "timm:../x"]
)
def test_timm_names_are_timms_own(timm, name):
    with pytest.raises(InputError, match=f"timm {timm.__version__} has no model"):
        targets.load(name)


def vit(transformers, folder, size=224, classes=5):
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=size, patch_size=size // 4,
        id2label={index: f"kind {index}" for index in range(classes)},
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(folder)
    said = {
        "do_resize": True, "size": {"height": size, "width": size}, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return model


def test_transformers(transformers, tmp_path):
    torch.manual_seed(0)
    model = vit(transformers, tmp_path / "vit")
    found = targets.load(str(tmp_path / "vit"))
    assert found.classes == tuple(f"kind {index}" for index in range(5))
    assert found.preprocessing.scaling == Scaling(224, 224, squash=True)
    x = torch.rand(2, 3, 224, 224)
    mean, std = torch.tensor([0.5, 0.4, 0.3]).reshape(3, 1, 1), torch.tensor([0.5, 0.6, 0.7]).reshape(3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(found.network(x), model((x - mean) / std).logits, atol=1e-5)
    differentiable(found, (1, 28, 28))
    part = Split(torch.rand(16, 3, 32, 32), torch.arange(16))
    lure, config = fitted(found, part, tmp_path, 5, target=str(tmp_path / "vit"))
    bundle.save(tmp_path / "b", found, lure, config)
    with torch.no_grad():
        assert torch.allclose(bundle.load(tmp_path / "b").target(x), found.network(x), atol=1e-5)

    # A bundle that names code, kernels or other models gets none of them, and a type that fetches further models is refused.
    file = tmp_path / "b/config.json"
    said = json.loads(file.read_text())
    said["found"]["network"]["model"] |= {
        "_attn_implementation": "evil/kernel",
        "auto_map": {"AutoModel": "evil--code.Model"},
    }
    file.write_text(json.dumps(said))
    assert bundle.load(tmp_path / "b").target is not None
    for change in (
        {"model_type": "timm_wrapper"},
        {"model_type": "evil"},
        {"hidden_size": 2**20},
        {"hidden_size": "wide"},
    ):
        damaged = json.loads(json.dumps(said))
        damaged["found"]["network"]["model"] |= change
        file.write_text(json.dumps(damaged))
        with pytest.raises(InputError):
            bundle.load(tmp_path / "b")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}, "resample": 3},
         Preprocessing(Scaling(224, 224, 224 / 256, False, "bicubic"), 3, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))),
        ({"size": 32, "do_rescale": False},
         Preprocessing(Scaling(32, 32, squash=True), 3, (0.1 / 255, 0.2 / 255, 0.3 / 255), (1 / 255, 1 / 255, 1 / 255))),
        ({"do_resize": False, "do_normalize": False}, Preprocessing(None, 3)),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, Preprocessing(Scaling(224, 224, 0.875), 3, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))),
    ],
)  # fmt: skip
def test_processors_of_transformers(said, expected):
    from luring.targets.transformers_models import _preprocessing

    found = _preprocessing({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1], **said}, nn.Identity(), "here")
    assert found.scaling == expected.scaling
    assert found.mean == pytest.approx(expected.mean)
    assert found.std == pytest.approx(expected.std)


def test_transformers_refuses(transformers, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be loaded as an image classifier"):
        targets.load(str(tmp_path / "empty"))
    vit(transformers, tmp_path / "vit", 32)
    (tmp_path / "vit/preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"no preprocessor_config.json"):
        targets.load(str(tmp_path / "vit"))


@pytest.mark.parametrize("batch", [None, 4])
def test_a_program_of_torch_export(tmp_path, batch):
    torch.manual_seed(0)
    model, shape = small(10, 3), (3, 32, 32)
    path = exported(tmp_path / "m.pt2", model, shape, batch)
    found = targets.load(str(path))
    x = torch.rand(5, *shape)
    with torch.no_grad():
        assert torch.allclose(found.network(x), model(x), atol=1e-6)
    differentiable(found, shape)
    assert cost.multiply_adds(found.network, shape) == cost.multiply_adds(model, shape)
    lure, config = fitted(found, Split(x, torch.arange(5)), tmp_path, 10, target=str(path))
    with pytest.raises(InputError, match="it may hold code"):
        bundle.save(tmp_path / "b", found, lure, config)
    with pytest.raises(InputError, match=r"does not hold its target: give --target m.pt2"):
        bundle.load(tmp_path / "b")
    exported(path, small(10, 3), shape, batch)
    with pytest.raises(InputError, match="not the target that"):
        bundle.load(tmp_path / "b", target=str(path))


class Boom:
    def __reduce__(self):
        return (open, ("/tmp/luring-was-here", "w"))


@pytest.mark.parametrize("where", ["sample_inputs", "constants", "library", "nothing"])
def test_a_program_that_would_run_code_is_refused_unopened(tmp_path, where):
    path = exported(tmp_path / "m.pt2", small(), (1, 8, 8))
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    top = next(iter(files)).partition("/")[0]
    if where == "sample_inputs":
        files[f"{top}/data/sample_inputs/model.pt"] = pickle.dumps(Boom())
    elif where == "constants":
        said = {
            "config": {"c": {"path_name": "constant_0", "use_pickle": True, "is_param": False, "tensor_meta": None}}
        }
        files[f"{top}/data/constants/model_constants_config.json"] = json.dumps(said).encode()
        files[f"{top}/data/constants/constant_0"] = pickle.dumps(Boom())
    elif where == "library":
        files[f"{top}/data/aotinductor/model/x.so"] = b"\x7fELF"
    with zipfile.ZipFile(tmp_path / "evil.pt2", "w") as archive:
        for name, content in files.items() if where != "nothing" else ():
            archive.writestr(name, content)
    Path("/tmp/luring-was-here").unlink(missing_ok=True)
    with pytest.raises(InputError):
        targets.load(str(tmp_path / "evil.pt2"))
    assert not Path("/tmp/luring-was-here").exists()


class Block(nn.Module):
    """A residual block."""

    def __init__(self, channels):
        super().__init__()
        self.one, self.two = nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.Conv2d(channels, channels, 3, 1, 1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return F.relu(x + self.two(F.relu(self.norm(self.one(x)))))


def residual(classes):
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), Block(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    )  # fmt: skip


@pytest.mark.parametrize("batch", [None, 3])
def test_an_onnx_file(tmp_path, batch):
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model, shape = residual(100), (3, 32, 32)
    path = onnx_file(tmp_path / "m.onnx", model, shape, batch)
    found = targets.load(str(path), mean=(0.5,), std=(0.5,))
    assert found.preprocessing.scaling == Scaling(32, 32)
    x = torch.rand(5, *shape)
    with torch.no_grad():
        assert torch.allclose(found.network(x), model((x - 0.5) / 0.5), atol=1e-5)
    differentiable(found, shape)
    assert cost.multiply_adds(found.network, shape) == cost.multiply_adds(model, shape)
    lure, config = fitted(found, Split(x, torch.arange(5)), tmp_path, 100, target=str(path))
    with pytest.raises(InputError, match=r"does not hold its target: give --target m.onnx\."):
        bundle.load(tmp_path / "b")
    bundle.save(tmp_path / "b", found, lure, config)
    with torch.no_grad():
        assert torch.equal(bundle.load(tmp_path / "b").target(x), found.network(x))
    stored = tmp_path / "b/target.onnx"
    stored.write_bytes(stored.read_bytes()[:-1] + b"\0")
    with pytest.raises(InputError, match="was changed"):
        bundle.load(tmp_path / "b")


OPERATORS = [
    ("Relu", {}, [(2, 3, 4, 4)], {}),
    ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, [(1, 3, 7, 7), (4, 3, 2, 2)], {}),
    ("Conv", {"pads": [0, 1, 2, 1], "group": 3}, [(1, 3, 7, 7), (3, 1, 3, 3), (3,)], {}),
    ("ConvTranspose", {"strides": [2, 2], "pads": [1, 1, 1, 1]}, [(1, 3, 4, 4), (3, 2, 3, 3)], {}),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, [(1, 2, 7, 7)], {}),
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, [(1, 2, 5, 5)], {}),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, [(1, 2, 7, 7)], {}),
    ("AveragePool", {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER", "count_include_pad": 0}, [(1, 2, 5, 5)], {}),
    ("LRN", {"size": 3}, [(1, 5, 3, 3)], {}),
    ("InstanceNormalization", {}, [(2, 3, 4, 4), (3,), (3,)], {}),
    ("LayerNormalization", {"axis": -1}, [(2, 5, 8), (8,), (8,)], {}),
    ("Gemm", {"alpha": 0.5, "beta": 2.0, "transB": 1}, [(2, 5), (3, 5), (3,)], {}),
    ("HardSigmoid", {"alpha": 0.3}, [(2, 5)], {}),
    ("HardSwish", {}, [(2, 5)], {}),
    ("Gelu", {"approximate": "tanh"}, [(2, 5)], {}),
    ("Elu", {"alpha": 0.7}, [(2, 5)], {}),
    ("Selu", {}, [(2, 5)], {}),
    ("PRelu", {}, [(2, 3, 4, 4), (3, 1, 1)], {}),
    ("Softmax", {"axis": 1}, [(2, 3, 4)], {}),
    ("Clip", {}, [(2, 5)], {1: -0.5, 2: 0.5}),
    ("Transpose", {"perm": [0, 2, 1]}, [(2, 3, 4)], {}),
    ("Slice", {}, [(2, 6, 8)], {1: [1, -1], 2: [5, -9], 3: [1, 2], 4: [2, -1]}),
    ("Pad", {"mode": "reflect"}, [(1, 2, 4, 4)], {1: [0, 0, 1, 2, 0, 0, 2, 1]}),
    ("Pad", {}, [(1, 2, 4, 4)], {1: [0, 0, 1, 2, 0, 0, 2, 1], 2: 0.5}),
    ("Resize", {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, [(1, 2, 4, 4)],
     {3: [1, 2, 8, 12]}),
    ("Resize", {"mode": "linear"}, [(1, 2, 4, 4)], {3: [1, 2, 8, 7]}),
    ("ReduceMean", {"keepdims": 0}, [(2, 3, 4, 4)], {1: [2, 3]}),
    ("ReduceL2", {}, [(2, 3, 4)], {1: [1]}),
    ("DepthToSpace", {"blocksize": 2}, [(1, 8, 3, 3)], {}),
    ("SpaceToDepth", {"blocksize": 2}, [(1, 2, 4, 4)], {}),
    ("Expand", {}, [(1, 3, 1)], {1: [2, 3, 4]}),
    ("Gather", {"axis": 1}, [(2, 5, 3)], {1: [4, -1, 0]}),
    ("Squeeze", {}, [(2, 1, 3)], {1: [1]}),
    ("Unsqueeze", {}, [(2, 3)], {1: [0, -1]}),
    ("Tile", {}, [(2, 3)], {1: [2, 1]}),
    ("Einsum", {"equation": "bij,bjk->bik"}, [(2, 3, 4), (2, 4, 5)], {}),
    ("Pow", {}, [(2, 3)], {1: 2.0}),
    ("Erf", {}, [(2, 3)], {}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "attributes", "shapes", "constants"), OPERATORS)
def test_an_operator_is_onnxs_own(kind, attributes, shapes, constants):
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper
    from onnxruntime import InferenceSession

    from luring.targets.onnx_files import Graph

    draw = np.random.default_rng(0)
    values = [draw.standard_normal(shape).astype(np.float32) for shape in shapes]
    highest = max([len(shapes) - 1, *constants])
    names = [f"i{at}" if at < len(shapes) or at in constants else "" for at in range(highest + 1)]
    kept = [numpy_helper.from_array(value, f"i{at}") for at, value in enumerate(values) if at]
    for at, value in constants.items():
        whole = isinstance(value, list)
        kept.append(numpy_helper.from_array(np.array(value, np.int64 if whole else np.float32), f"i{at}"))
    node = helper.make_node(kind, names, ["out"], **attributes)
    first = helper.make_tensor_value_info("i0", TensorProto.FLOAT, shapes[0])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "one", [first], [out], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    (expected,) = InferenceSession(model.SerializeToString()).run(None, {"i0": values[0]})
    found = Graph(graph, 20)(torch.from_numpy(values[0]))
    assert found.shape == expected.shape
    assert torch.allclose(found, torch.from_numpy(expected), atol=1e-5)


def test_onnx_refuses(tmp_path):
    from onnx import TensorProto, helper, save_model

    def write(nodes, shape=("n", 3, 8, 8), kind=TensorProto.FLOAT):
        first = helper.make_tensor_value_info("x", kind, shape)
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("shop.own", 1)]
        save_model(
            helper.make_model(helper.make_graph(nodes, "g", [first], [out]), opset_imports=opsets, ir_version=8),
            tmp_path / "m.onnx",
        )

    def refused(match):
        with pytest.raises(InputError, match=match) as said:
            targets.load(str(tmp_path / "m.onnx"))
        assert "\n" not in str(said.value)

    write([helper.make_node("NonMaxSuppression", ["x", "x"], ["y"], name="/head/nms")])
    refused("its node /head/nms is a NonMaxSuppression, which is not known here")
    write([helper.make_node("Fancy", ["x"], ["y"], name="fancy", domain="shop.own")])
    refused(r"its node fancy is a Fancy of shop\.own")
    write([helper.make_node("Relu", ["x"], ["y"])], shape=("n", 8, 8, 3))
    refused("channels last")
    write([helper.make_node("Relu", ["x"], ["y"])], shape=("n", 64))
    refused("does not take one float32 tensor")
    (tmp_path / "m.onnx").write_bytes(b"not protobuf at all")
    refused("is no ONNX file that can be read")
    with pytest.raises(InputError, match="there is no file"):
        targets.load("nowhere.onnx")


@pytest.mark.parametrize("name", ["nosuch", "", "folder/without/config", "x.pth"])
def test_names_of_no_kind_are_refused(name):
    with pytest.raises(InputError, match="there is no target"):
        targets.load(name)


def test_weights_that_are_not_the_networks(tmp_path, monkeypatch):
    (tmp_path / "shop.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    good = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).state_dict()
    for change, match in (
        ({"1.weight": good["1.weight"].double()}, "is float64 where the network has float32"),
        ({"1.bias": torch.tensor([float("nan"), 0.0])}, "not finite"),
        ({"1.bias": torch.zeros(3)}, "does not hold the weights"),
        ({"2.bias": torch.zeros(3)}, "does not hold the weights"),
    ):
        write_tensors(tmp_path / "w.safetensors", good | change)
        with pytest.raises(InputError, match=match):
            targets.load("shop:net", weights=tmp_path / "w.safetensors")
