"""A lure held back: between the image and P's image, in a bundle as in memory, and as a command."""

import json
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from luring import answers, blend, bundle, data, export, lures, metrics, networks
from luring.attacks import preset
from luring.errors import InputError
from luring.lures import Blended
from luring.weights import digest, write_tensors

torch.set_num_threads(1)
SHARES = st.floats(0, 1, exclude_min=True, exclude_max=True, allow_subnormal=False, width=32)


class Negative(nn.Module):
    def forward(self, images):
        return 1 - images.round()


@given(SHARES, st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_a_blend_stays_between_the_image_and_what_the_lure_makes_of_it(share, values):
    images = torch.tensor(values).reshape(1, 1, 1, -1)
    made = Negative()(images)
    blended = Blended(Negative(), share)(images)
    assert bool((blended >= torch.minimum(images, made)).all())
    assert bool((blended <= torch.maximum(images, made)).all())


def test_the_gradient_is_the_blend_of_both():
    torch.manual_seed(0)
    lure, target = lures.plain_lure((1, 8, 8), 2).double(), networks.plain_target((1, 8, 8), 3).double()
    images = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    blended = Blended(lure, 0.75)
    seen = blended(images)
    (from_target,) = torch.autograd.grad(target(seen)[:, 0].sum(), seen, retain_graph=True)
    (whole,) = torch.autograd.grad(target(seen)[:, 0].sum(), images)
    (by_lure,) = torch.autograd.grad((lure(images) * from_target).sum(), images)
    assert torch.allclose(whole, 0.25 * from_target + 0.75 * by_lure)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_share_is_a_part(share):
    with pytest.raises(InputError, match="above 0 and below 1"):
        Blended(Negative(), share)


def test_the_share_is_a_part_of_the_digest():
    lure = lures.plain_lure((1, 8, 8), 2)
    assert len({digest(Blended(lure, share)) for share in (0.7, 0.75)}) == 2


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", progress=False)


def held(folder, out, share, dataset):
    blend.save(bundle.load(folder), folder, out, share, dataset)
    return bundle.load(out)


@torch.no_grad()
def test_a_bundle_of_a_share_is_the_other_one_held_back(calibrated, tmp_path, digits):
    whole, found = bundle.load(calibrated), held(calibrated, tmp_path / "held", 0.75, digits)
    images = answers.prepare(digits.test.images[:50], None)
    made = whole.lure(images)
    assert torch.equal(found.lure(images), images + 0.75 * (made - images))
    assert torch.equal(found.decoy(images), whole.target(found.lure(images)))
    assert found.config["lure"] == whole.config["lure"] + "@0.75"
    assert found.config["settings"] == whole.config["settings"] | {"share": 0.75}
    m, mop = (answers.labels(model, digits.test.images) for model in (found.target, found.decoy))
    assert found.config["metrics"]["test_accuracy"] == metrics.accuracy(mop, digits.test.labels)
    assert found.config["metrics"]["disagreement"] == metrics.disagreement(m, mop)
    assert found.config["multiply_adds"] == whole.config["multiply_adds"]
    assert not (tmp_path / "held/guard.json").exists()


def test_it_is_exported(calibrated, tmp_path, digits):
    pytest.importorskip("onnxruntime")
    found = held(calibrated, tmp_path / "held", 0.7, digits)
    assert export.decoy(tmp_path / "decoy.onnx", found.decoy, digits.shape, digits.test.images).largest < 1e-4


def test_a_share_is_one_of_the_lure_as_it_was_fitted(calibrated, tmp_path, digits):
    held(calibrated, tmp_path / "less", 0.6, digits)
    again = held(tmp_path / "less", tmp_path / "more", 0.8, digits)
    assert digest(again.lure) == digest(held(calibrated, tmp_path / "direct", 0.8, digits).lure)
    back = held(tmp_path / "more", tmp_path / "back", 1.0, digits)
    assert digest(back.lure) == digest(bundle.load(calibrated).lure)
    assert "share" not in back.config["settings"]


def test_weights_in_float16_stay_so(calibrated, tmp_path, digits):
    whole = bundle.load(calibrated)
    config = dict(whole.config) | {"weights": {"stored": "float16", "moved_by": {"test_accuracy": 0.0}}}
    bundle.save(tmp_path / "half", whole.target, whole.lure, config, half=True)
    found = held(tmp_path / "half", tmp_path / "held", 0.7, digits)
    sizes = [(tmp_path / name / "lure.safetensors").stat().st_size for name in ("half", "held")]
    assert sizes[1] < sizes[0] + 500
    assert found.config["weights"] == {"stored": "float16"}, "by how much it moved was not measured on this decoy"


def test_a_lure_of_your_own_is_given_as_before(calibrated, tmp_path, digits):
    whole = bundle.load(calibrated)
    bundle.save(tmp_path / "own", whole.target, whole.lure, dict(whole.config) | {"lure": "shop:lure"})
    found = bundle.load(tmp_path / "own", lure=lures.plain_lure(digits.shape, 8))
    blend.save(found, tmp_path / "own", tmp_path / "held", 0.7, digits)
    again = bundle.load(tmp_path / "held", lure=lures.plain_lure(digits.shape, 8))
    assert again.config["lure"] == "shop:lure@0.7"
    assert float(again.lure.share) == pytest.approx(0.7)


@pytest.mark.parametrize(("share", "said"), [("much", "is damaged"), ("2", "above 0 and below 1")])
def test_a_name_with_no_share_in_it_is_refused(calibrated, tmp_path, digits, share, said):
    held(calibrated, tmp_path, 0.7, digits)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"lure": f"plain-8@{share}"}))
    with pytest.raises(InputError, match=said):
        bundle.load(tmp_path)


def test_a_share_out_of_range_in_the_weights_is_refused(calibrated, tmp_path, digits):
    found = held(calibrated, tmp_path, 0.7, digits)
    found.lure.share.fill_(7.0)
    write_tensors(tmp_path / "lure.safetensors", found.lure.state_dict())
    config = json.loads((tmp_path / "config.json").read_text())
    config["digests"]["lure"] = digest(found.lure)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="another share"):
        bundle.load(tmp_path)


def test_the_less_of_the_lure_the_nearer_to_the_target(calibrated, digits):
    attack = preset("mim", eps=0.2, step=0.05, steps=8)
    curve = blend.curve(bundle.load(calibrated), digits, (1.0, 0.5, 0.0001), attack, n=50, show=False)
    assert [one.share for one in curve] == [1.0, 0.5, 0.0001]
    assert curve[0].disagreement > curve[1].disagreement > curve[2].disagreement == 0
    assert curve[0].dac > curve[2].dac == pytest.approx(curve[2].ac_mop), "what fools M∘P then fools M"
    assert len({one.n for one in curve}) == 1


@pytest.fixture
def run(command_line):
    return partial(command_line, "blend")


def test_the_command_shows_what_shares_are_worth_and_writes_one(calibrated, tmp_path, run):
    code, out, _ = run(calibrated, "--data", "digits", "--shares", 1, 0.5, "--steps", 2, "--n", 20)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if line.strip()[:1].isdigit()][:2] == ["1", "0.5"]
    code, out, _ = run(calibrated, "--data", "digits", "--share", 0.5, "--out", tmp_path / "held")
    assert code == 0
    assert f"{bundle.load(tmp_path / 'held').config['metrics']['test_accuracy']:.3f} (before" in out


def test_what_the_command_refuses(calibrated, tmp_path, run):
    for given_, said in (
        (("--share", 0.5), "give --share and --out"),
        (("--out", tmp_path / "new"), "give --share and --out"),
        (("--share", 1.5, "--out", tmp_path / "new"), "above 0 and below 1"),
        (("--share", 0.5, "--out", calibrated), "holds a bundle already"),
        (("--n", 0), "must be above 0"),
    ):
        code, _, error = run(calibrated, "--data", "digits", *given_)
        assert code == 2
        assert said in error
    assert not (tmp_path / "new/config.json").exists()
