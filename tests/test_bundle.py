import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from luring import architectures, bundle, lures, networks
from luring.errors import InputError

torch.set_num_threads(1)
SHAPE, CLASSES = (1, 8, 8), 3
CONFIG = {"target": "plain", "lure": "plain-2", "shape": list(SHAPE), "classes": ["a", "b", "c"], "seed": 4}


@pytest.fixture
def made():
    torch.manual_seed(1)
    return networks.plain_target(SHAPE, CLASSES).eval(), lures.plain_lure(SHAPE, 2).eval()


@pytest.fixture
def folder(tmp_path, made):
    bundle.save(tmp_path / "b", *made, CONFIG)
    return tmp_path / "b"


def change(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def refused(folder, match, **networks_given):
    with pytest.raises(InputError, match=match) as caught:
        bundle.load(folder, **networks_given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@torch.no_grad()
def test_what_is_saved_answers_the_same_when_loaded(folder, made):
    target, lure = made
    found, x = bundle.load(folder), torch.rand(5, *SHAPE)
    assert torch.equal(found.target(x), target(x))
    assert torch.equal(found.lure(x), lure(x))
    assert torch.equal(found.decoy(x), target(lure(x)))
    assert not any(module.training for part in (found.target, found.lure, found.decoy) for module in part.modules())
    assert found.config["seed"] == 4
    assert found.config["format"] == bundle.FORMAT
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "lure.safetensors", "target.safetensors"]


@torch.no_grad()
def test_statistics_of_batch_normalisation_and_channels_last_come_back(tmp_path):
    shape = (3, 16, 16)
    target = networks.plain_target(shape, CLASSES).eval()
    lure = architectures.svhn_lure(shape).train()
    lure(torch.rand(4, *shape))
    lure.eval().to(memory_format=torch.channels_last)
    bundle.save(tmp_path, target, lure, CONFIG | {"lure": "svhn", "shape": list(shape)})
    x = torch.rand(2, *shape)
    assert torch.allclose(bundle.load(tmp_path).lure(x), lure(x), atol=1e-6)


def test_saving_again_replaces(folder, made):
    target, _ = made
    other = lures.plain_lure(SHAPE, 2)
    bundle.save(folder, target, other, CONFIG)
    assert bundle.digest(bundle.load(folder).lure) == bundle.digest(other)
    assert len(list(folder.iterdir())) == 3, "no temporary file is left"


@torch.no_grad()
def test_stack_has_a_classifier_of_its_own(tmp_path, made):
    target, lure = made
    behind = networks.plain_target(SHAPE, CLASSES).eval()
    bundle.save(tmp_path, target, lure, CONFIG, stack=behind)
    found, x = bundle.load(tmp_path), torch.rand(3, *SHAPE)
    assert torch.equal(found.target(x), target(x))
    assert torch.equal(found.decoy(x), behind(lure(x)))
    assert not torch.equal(found.decoy(x), target(lure(x)))


@pytest.mark.parametrize("name", ["target", "lure", "stack"])
def test_altered_weights_are_refused(tmp_path, made, name):
    target, lure = made
    bundle.save(tmp_path, target, lure, CONFIG, stack=networks.plain_target(SHAPE, CLASSES))
    file = tmp_path / f"{name}.safetensors"
    weights = load_file(file)
    next(iter(weights.values())).view(-1)[0] += 1e-3
    save_file(weights, file)
    assert str(file) in refused(tmp_path, "was changed")


def test_damaged_or_missing_weights_are_refused(folder):
    file = folder / "lure.safetensors"
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:4], b""):
        file.write_bytes(damaged)
        assert str(file) in refused(folder, "does not hold the weights")
    file.unlink()
    refused(folder, "does not hold the weights")


def test_weights_of_another_network_are_refused(folder):
    change(folder, lure="plain-4")
    refused(folder, "does not hold the weights")


def test_what_is_no_bundle_is_refused(tmp_path, folder):
    refused(tmp_path, "no config.json")
    refused(tmp_path / "nowhere", "no config.json")
    change(folder, format=bundle.FORMAT + 1)
    refused(folder, "newer Luring")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", '{"format": 1}', '{"format": "1"}', "\x00", '{"format": 1, "shape": [1]}']
)
def test_a_damaged_config_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    refused(folder, "damaged")


def test_a_config_that_is_not_text_is_refused(folder):
    (folder / "config.json").write_bytes(b"\xff\xfe{")
    refused(folder, "damaged")


@torch.no_grad()
def test_networks_of_ones_own_are_given_never_looked_up(tmp_path):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, CLASSES)

        def forward(self, x):
            return self.layer(x.flatten(1))

    target, lure = Own(), lures.plain_lure(SHAPE, 2)
    bundle.save(tmp_path, target, lure, CONFIG | {"target": "os:getcwd"})
    refused(tmp_path, "no target 'os:getcwd'")
    fresh, x = Own().train(), torch.rand(2, *SHAPE)
    found = bundle.load(tmp_path, target=fresh)
    assert torch.equal(found.target(x), target(x))
    assert not found.target.training
    bundle.save(tmp_path, target, lure, CONFIG | {"target": "os:getcwd", "lure": "os:getcwd"})
    refused(tmp_path, "no lure 'os:getcwd'", target=Own())
    found = bundle.load(tmp_path, target=Own(), lure=lures.plain_lure(SHAPE, 2))
    assert torch.equal(found.lure(x), lure(x))


def test_the_digest_is_of_the_weights_alone(made):
    target, _ = made
    before = bundle.digest(target)
    assert bundle.digest(target.train().to(memory_format=torch.channels_last)) == before
    with torch.no_grad():
        next(target.parameters()).view(-1)[0] += 1
    assert bundle.digest(target) != before


# hostile and older bundles


def first_format(folder, made):
    """A bundle as Luring 0.1's first one wrote it."""
    target, lure = made
    folder.mkdir()
    for name, network in (("target", target), ("lure", lure)):
        save_file(dict(network.state_dict()), folder / f"{name}.safetensors")
    digests = {"target": bundle.digest(target), "lure": bundle.digest(lure)}
    (folder / "config.json").write_text(json.dumps({"format": 1, **CONFIG, "digests": digests}))
    return folder


@torch.no_grad()
def test_a_bundle_of_the_first_format_loads(tmp_path, made):
    found, x = bundle.load(first_format(tmp_path / "old", made)), torch.rand(3, *SHAPE)
    assert torch.equal(found.decoy(x), made[0](made[1](x)))
    assert found.scaling is None
    weights = load_file(tmp_path / "old/target.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1e-3
    save_file(weights, tmp_path / "old/target.safetensors")
    refused(tmp_path / "old", "was changed")


def resident():
    """Bytes that this process has ever held at once."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def header(shape, dtype="F32", end=400):
    said = json.dumps({"0.weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}).encode()
    return len(said).to_bytes(8, "little") + said + bytes(end)


@pytest.mark.parametrize(
    "content",
    [
        header([2**40, 2**20]),
        header([100], end=400)[:-100],
        header([100], dtype="F128"),
        (2**62).to_bytes(8, "little") + b"{}",
        (8).to_bytes(8, "little") + b"[[[[[[[[",
        b"\x80\x04cos\nsystem\n.",
    ],
)
def test_weights_that_lie_about_themselves_are_refused_in_no_memory(folder, content):
    (folder / "lure.safetensors").write_bytes(content)
    before = resident()
    refused(folder, "does not hold the weights")
    assert resident() - before < 2**26


@pytest.mark.parametrize(
    "fields",
    [
        {"shape": [1, 10**6, 10**6]},
        {"shape": [1, 8000, 8000]},
        {"shape": [10**9, 8, 8]},
        {"shape": [1, -8, 8]},
        {"shape": [1, 8]},
        {"lure": "plain-9999"},
        {"lure": "auto"},
        {"lure": "../../etc/passwd"},
        {"target": "../../etc/passwd"},
        {"target": "mnist"},
        {"target": "hf:evil/model"},
        {"found": {"kind": "factory", "stored": True, "preprocessing": None}},
        {"found": {"kind": "exported", "stored": True, "preprocessing": None}},
        {"found": {"kind": "onnx", "stored": True, "preprocessing": None}},
        {"found": {"kind": "evil", "stored": True, "preprocessing": None}},
        {"found": {"kind": "luring", "stored": True, "preprocessing": {"mean": [0]}}},
        {
            "found": {
                "kind": "timm",
                "stored": True,
                "preprocessing": None,
                "network": {"model": "local-dir:/etc", "arguments": {}},
            }
        },
        {"found": [1]},
        {"scaling": {"height": 10**9, "width": 8, "share": 1, "squash": False, "method": "bilinear"}},
        {"scaling": {"height": 8, "width": 8, "share": 1, "squash": False, "method": "evil"}},
        {"digests": {"target": "../../etc/passwd", "lure": 3}},
        {"digests": 3},
        {"classes": 10**9},
        {"format": 1.5},
    ],
)
def test_a_config_that_was_tampered_with_is_refused_in_no_memory(folder, fields):
    change(folder, **fields)
    before = resident()
    if fields == {"format": 1.5}:
        assert bundle.load(folder).config["format"] == 1.5
    else:
        with pytest.raises(InputError) as caught:
            bundle.load(folder)
        assert "\n" not in str(caught.value)
    assert resident() - before < 2**28


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"format": 1e999}', " " * (bundle.LONGEST + 1)])
def test_a_config_that_is_deep_or_endless_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    refused(folder, "damaged|longer than|newer Luring")


@pytest.mark.usefixtures("transformers")
def test_a_model_described_too_deeply_is_refused(folder):
    """What the parser still takes may be too deep for whoever walks through it."""
    change(folder, found={"kind": "transformers", "stored": True, "preprocessing": None, "network": {"model": "HERE"}})
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"HERE"', '{"a":' * 700 + "1" + "}" * 700))
    refused(folder, r"damaged \(maximum recursion depth")


@pytest.mark.parametrize(
    ("change_it", "match"),
    [
        (lambda t: t.fill_(float("nan")), "not finite"),
        (lambda t: t.fill_(float("inf")), "not finite"),
        (lambda t: t.double(), "does not hold the weights"),
        (lambda t: t.half(), "holds other weights"),
        (lambda t: t.to(torch.int32), "does not hold the weights"),
        (lambda t: t.reshape(1, *t.shape), "does not hold the weights"),
    ],
)
def test_wrong_values_types_and_shapes_are_refused(folder, change_it, match):
    weights = load_file(folder / "lure.safetensors")
    name = next(iter(weights))
    weights[name] = change_it(weights[name].clone()).contiguous()
    save_file(weights, folder / "lure.safetensors")
    refused(folder, match)


def test_a_device_or_a_folder_in_place_of_weights_is_refused(folder):
    file = folder / "lure.safetensors"
    file.unlink()
    file.symlink_to("/dev/zero")
    refused(folder, "does not hold the weights")
    file.unlink()
    file.mkdir()
    refused(folder, "does not hold the weights")


def test_a_bundle_on_the_hub_is_fetched_without_code(folder, tmp_path, monkeypatch):
    import huggingface_hub

    asked = {}

    def snapshot(repo, *, allow_patterns):
        asked[repo] = allow_patterns
        if repo == "somebody/else":
            raise OSError("404")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    assert bundle.load("somebody/bundle").config["seed"] == 4
    assert not [pattern for pattern in asked["somebody/bundle"] if pattern.endswith((".py", ".pt", ".bin", "*"))]
    with pytest.raises(InputError, match="the hub gives no bundle of that name"):
        bundle.load("somebody/else")
