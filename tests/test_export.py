"""What is exported answers as the network it was written from, and says nothing else."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from luring import answers, bundle, data, export
from luring.errors import InputError
from luring.guard import Detector
from test_cli import refused, run  # noqa: F401

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def loaded(calibrated):
    return bundle.load(calibrated)


@pytest.fixture(scope="module")
def detector(calibrated, loaded):
    return Detector.load(calibrated, loaded.target, loaded.decoy)


@pytest.fixture(scope="module")
def images():
    """10 000: the digits, with noise of every strength up to what hides them."""
    known = data.load("digits").train.images
    known = known if known.is_floating_point() else known / 255
    torch.manual_seed(0)
    many = known[torch.arange(10_000) % len(known)]
    return (many + torch.rand(10_000, 1, 1, 1) * torch.randn_like(many)).clamp(0, 1)


@pytest.fixture(scope="module")
def files(loaded, detector, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    for form in ("onnx", "pt2"):
        for found in (
            export.decoy(folder / f"decoy.{form}", loaded.decoy, SHAPE, images[:600]),
            export.decision(folder / f"decision.{form}", detector, SHAPE, images[:600]),
        ):
            assert found.n == 600
            assert found.labels
            assert found.largest <= export.TOLERANCE
    return folder


def session(file):
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def test_onnxruntime_answers_as_pytorch_on_10_000_images(files, loaded, images):
    (found,) = session(files / "decoy.onnx").run(None, {"images": images.numpy()})
    wanted = answers.logits(loaded.decoy, images)
    assert np.abs(found - wanted.numpy()).max() <= 1e-4
    assert np.array_equal(found.argmax(1), wanted.argmax(1).numpy())
    assert len(set(found.argmax(1).tolist())) > 5, "the images are of many classes"


def test_the_decision_in_onnxruntime_on_10_000_images(files, detector, images):
    label, score, flagged = session(files / "decision.onnx").run(None, {"images": images.numpy()})
    wanted = detector.predict(images)["data"]
    assert np.array_equal(label, wanted["label"].numpy())
    assert np.allclose(score, wanted["instance_score"].numpy(), rtol=1e-4, atol=1e-4 * detector.threshold)
    assert np.array_equal(flagged, wanted["is_adversarial"].numpy())
    assert 0.1 < flagged.mean() < 0.9


@torch.no_grad()
@pytest.mark.parametrize("n", [1, 3, 200])
def test_any_number_of_images(files, loaded, detector, images, n):
    x = images[:n]
    (logits,) = session(files / "decoy.onnx").run(None, {"images": x.numpy()})
    assert logits.shape == (n, 10)
    program = torch.export.load(files / "decoy.pt2").module()
    assert (program(x) - loaded.decoy(x)).abs().max() <= 1e-4
    label, score, flagged = torch.export.load(files / "decision.pt2").module()(x)
    wanted = detector.predict(x)["data"]
    assert torch.equal(label, wanted["label"])
    assert torch.equal(flagged, wanted["is_adversarial"])
    assert torch.allclose(score, wanted["instance_score"], rtol=1e-4, atol=1e-4)


def test_the_decoys_file_has_nothing_of_the_decision_nor_of_this_machine(files):
    held = (files / "decoy.onnx").read_bytes()
    model = onnx.load_from_string(held)
    onnx.checker.check_model(model)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", export.OPSET)]
    assert [one.name for one in model.graph.input] == ["images"]
    assert [one.name for one in model.graph.output] == ["logits"]
    assert not {node.op_type for node in model.graph.node} & {"LogSoftmax", "Greater", "ArgMax"}
    decision = onnx.load(files / "decision.onnx")
    assert {"LogSoftmax", "Greater", "ArgMax"} <= {node.op_type for node in decision.graph.node}
    assert len(held) < (files / "decision.onnx").stat().st_size
    for file in files.glob("*.onnx"):
        assert b"site-packages" not in file.read_bytes()
        assert str(export.__file__).encode() not in file.read_bytes()


class Branching(nn.Module):
    """An exporter cannot follow what depends on values."""

    def forward(self, x):
        flat = x.flatten(1)[:, :3]
        return flat if float(x.sum()) > 1 else 2 * flat


class Drawing(nn.Module):
    """Never the same answer twice."""

    def forward(self, x):
        return x.flatten(1)[:, :3] + torch.rand_like(x.flatten(1)[:, :3])


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(tmp_path, detector):
    x = torch.rand(4, *SHAPE)
    with pytest.raises(InputError, match=r"cannot be exported .*control flow"):
        export.decoy(tmp_path / "a.pt2", Branching(), SHAPE, x)
    with pytest.raises(InputError, match=r"a\.pt2 does not answer as the network does .* on 4 images"):
        export.decoy(tmp_path / "a.pt2", Drawing(), SHAPE, x)
    with pytest.raises(InputError, match=r"neither in \.onnx nor in \.pt2"):
        export.decoy(tmp_path / "a.pth", Drawing(), SHAPE, x)
    with pytest.raises(InputError, match="two torch modules"):
        export.decision(tmp_path / "a.pt2", Detector(lambda x: x, detector.decoy), SHAPE, x)
    with pytest.raises(InputError, match="no threshold yet"):
        export.decision(tmp_path / "a.pt2", Detector(detector.target, detector.decoy), SHAPE, x)
    assert list(tmp_path.iterdir()) == []


@torch.no_grad()
@pytest.mark.parametrize("policy", ["target", "agreement", "confidence"])
def test_every_policy_is_a_network(detector, images, policy):
    other = Detector(detector.target, detector.decoy, policy=policy)
    if policy == "confidence":
        other.infer_threshold(images[:200], 0.1)
    _, scores, flagged = export.Decision(other)(images[:300])
    wanted = other.predict(images[:300])["data"]
    assert torch.equal(flagged, wanted["is_adversarial"])
    assert torch.allclose(scores, wanted["instance_score"])


def test_the_command_writes_two_model_repositories(run, calibrated, tmp_path):  # noqa: F811
    done = run("export", calibrated, "--out", "o", "--layout", "triton")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("100 images of noise") == 2
    written = {str(file.relative_to(tmp_path / "o")) for file in (tmp_path / "o").rglob("*") if file.is_file()}
    assert written == {
        "decoy/decoy/config.pbtxt",
        "decoy/decoy/1/model.onnx",
        "decision/decision/config.pbtxt",
        "decision/decision/1/model.onnx",
    }
    for name in ("decoy", "decision"):
        repository = tmp_path / "o" / name / name
        config = (repository / "config.pbtxt").read_text()
        assert f'name: "{name}"' in config
        assert config.count("[") == config.count("]")
        assert config.count("{") == config.count("}")
        names = [one.name for one in onnx.load(repository / "1/model.onnx").graph.output]
        assert all(f'name: "{output}"' in config for output in names)
        assert "dims: [ 1, 8, 8 ]" in config
    refused(run("export", calibrated, "--out", "p", "--form", "pt2", "--layout", "triton"), "--form onnx")
    refused(run("export", calibrated, "--out", "p", "--data", "toy"), "[1, 12, 12]")
    refused(run("export", tmp_path, "--out", "p"), "not a bundle")
    assert not (tmp_path / "p").exists()
