"""The guard keeps the false-alarm rate it was asked for, and its score measures what it says."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from luring import guard, progress
from luring.errors import InputError
from luring.guard import Detector, reference, score, threshold
from test_attacks import generator

torch.set_num_threads(1)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def answered(n=2000, classes=4, seed=0, noise=1.0):
    """Logits of M, sure of a class, and of an M∘P that follows them on a line, with noise."""
    m = normal(n, classes, seed=seed)
    m[torch.arange(n), torch.arange(n) % classes] += 8
    return m, 2 * m + 1 + noise * normal(n, classes, seed=seed + 1)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(n=st.integers(1, 60), fpr=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_of_exchangeable_images_at_most_the_wanted_share_is_above(n, fpr, seed):
    """Exactly: of n + 1 images each in turn is left out, and at most (n + 1) · fpr of them are above the others' threshold."""
    scores = torch.randperm(n + 1, generator=generator(seed)).double()
    if math.ceil(round((n + 1) * (1 - fpr), 9)) > n:
        with pytest.raises(InputError, match="cannot show a false-alarm rate"):
            threshold(scores[1:], fpr)
        return
    above = sum(bool(scores[i] > threshold(torch.cat([scores[:i], scores[i + 1 :]]), fpr)) for i in range(n + 1))
    assert above <= (n + 1) * fpr + 1e-9
    assert above > (n + 1) * fpr - 1, "and no lower threshold keeps it"


def test_the_threshold_by_hand():
    scores = torch.arange(1, 100).double()  # 99 images: k = 100 · 0.95 = 95
    assert threshold(scores, 0.05) == 95
    assert threshold(scores, 0.01) == 99
    with pytest.raises(InputError, match="give at least 199"):
        threshold(scores, 0.005)
    for wrong in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(InputError, match="between 0 and 1"):
            threshold(scores, wrong)


def test_the_distance_from_the_line_is_mahalanobis():
    """Gaussian noise of any covariance: the squared distance has the mean of a χ² with as many degrees of freedom as classes."""
    m, _ = answered(20_000)
    mixing = normal(4, 4, seed=3)
    known = reference(m, m @ normal(4, 4, seed=4) + normal(20_000, 4, seed=5) @ mixing)
    fresh, _ = answered(20_000, seed=7)
    parts = guard._parts(fresh, fresh @ normal(4, 4, seed=4) + normal(20_000, 4, seed=8) @ mixing, known)
    assert parts[:, 1].mean() == pytest.approx(4, rel=0.05)
    assert known.scale[1] == pytest.approx(13.28, rel=0.05), "the 99 % quantile of χ² with 4 degrees of freedom"


def test_doubt_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [5.0, 5.0], [1000.0, 0.0]])
    assert guard.doubt(logits).tolist() == pytest.approx([-math.log(0.75), math.log(2), 0])
    assert torch.allclose(guard.doubt(logits), guard.doubt(logits + 7))


def test_the_score_is_the_sum_of_its_scaled_parts():
    m, mop = answered()
    known = reference(m, mop)
    margins = m.topk(2, dim=1).values.diff(dim=1).neg()
    assert float((margins / known.temperature).median()) == pytest.approx(guard.TYPICAL_MARGIN)
    parts = guard._parts(m, mop, known)
    assert torch.allclose(score(m, mop, known), parts[:, 0] / known.scale[0] + parts[:, 1] / known.scale[1])
    for part, scale in zip(parts.T, known.scale, strict=True):
        assert float((part > scale).double().mean()) == pytest.approx(0.01, abs=0.001)


def test_disagreement_stands_out():
    m, mop = answered()
    known = reference(m, mop)
    fresh, follows = answered(seed=5)
    clean = score(fresh, follows, known)
    turned = score(fresh, follows.roll(1, dims=1), known)
    assert turned.min() > clean.quantile(0.99)
    assert (clean >= 0).all()


def test_logits_that_lie_in_a_plane_are_no_trouble():
    m, mop = answered(500)
    m, mop = m - m.mean(1, keepdim=True), mop - mop.mean(1, keepdim=True)
    assert score(m, mop, reference(m, mop)).isfinite().all()
    assert score(m, m, reference(m, m)).isfinite().all(), "a decoy that is M itself"


class Linear(nn.Module):
    def __init__(self, seed=0, shift=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(9, 3, generator=generator(seed)) + shift)

    def forward(self, x):
        return 4 * x.flatten(1) @ self.weight


def images(n, seed=0):
    return torch.rand(n, 1, 3, 3, generator=generator(seed))


@pytest.fixture
def pair():
    target = Linear()
    return target, nn.Sequential(nn.Identity(), Linear(shift=0.05 * torch.randn(9, 3, generator=generator(9))))


def calibrated(pair, policy="score"):
    detector = Detector(*pair, policy=policy).fit(images(300))
    if policy == "score":
        detector.infer_threshold(images(1000, seed=1), 0.05)
    return detector


def test_it_tells_what_takes_long_and_only_where_wanted(pair, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    Detector(*pair, batch=100, show=True).fit(images(300))
    said = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in said if line.startswith("asking M∘P")] == [
        f"asking M∘P: {n} of 300" for n in (100, 200, 300)
    ]
    assert all(line.endswith(" s left") for line in said)
    Detector(*pair, batch=100).fit(images(300))
    assert capsys.readouterr().err == ""


def test_it_rejects_what_was_asked_of_images_it_has_not_seen(pair):
    detector = calibrated(pair)
    found = detector.predict(images(5000, seed=2))
    assert set(found) == {"data", "meta"}
    assert float(found["data"]["is_adversarial"].double().mean()) == pytest.approx(0.05, abs=0.02)
    assert torch.equal(found["data"]["label"], pair[0](images(5000, seed=2)).argmax(1))
    assert torch.equal(found["data"]["is_adversarial"], found["data"]["instance_score"] > found["data"]["threshold"])
    assert found["meta"]["policy"] == "score"
    assert found["meta"]["fpr"] == 0.05


def test_the_paper_s_schemes(pair):
    x = images(500, seed=3)
    disagree = pair[0](x).argmax(1) != pair[1](x).argmax(1)
    assert 0 < disagree.sum() < 500
    assert torch.equal(calibrated(pair, "agreement").predict(x)["data"]["is_adversarial"], disagree)
    assert not calibrated(pair, "target").predict(x)["data"]["is_adversarial"].any()
    sure = Detector(*pair, policy="confidence")
    sure.infer_threshold(images(1000, seed=1), 0.05)
    margin = pair[0](x).topk(2, dim=1).values.diff(dim=1).neg().squeeze(1)
    flagged = sure.predict(x)["data"]["is_adversarial"]
    assert margin[flagged].mean() < margin[~flagged].mean()
    with pytest.raises(InputError, match="'agreement' has no threshold"):
        calibrated(pair, "agreement").infer_threshold(x)


@pytest.mark.parametrize("policy", ["score", "agreement", "target"])
def test_it_comes_back_from_its_files(pair, tmp_path, policy):
    detector, x = calibrated(pair, policy), images(50, seed=4)
    detector.save(tmp_path)
    back = Detector.load(tmp_path, *pair)
    one, other = detector.predict(x), back.predict(x)
    assert torch.equal(one["data"]["instance_score"], other["data"]["instance_score"])
    assert (one["meta"], one["data"]["threshold"]) == (other["meta"], other["data"]["threshold"])
    assert {file.name for file in tmp_path.iterdir()} == {"guard.json"} | (
        {"guard.safetensors"} if policy == "score" else set()
    )


def test_what_is_not_its_own_is_refused(pair, tmp_path):
    with pytest.raises(InputError, match="calibrate"):
        Detector.load(tmp_path, *pair)
    calibrated(pair).save(tmp_path)
    with pytest.raises(InputError, match="other weights"):
        Detector.load(tmp_path, Linear(seed=1), pair[1])
    config = json.loads((tmp_path / "guard.json").read_text())
    for changed, words in (
        ({**config, "format": 99}, "newer Luring"),
        ({**config, "policy": "vote"}, "no policy 'vote'"),
        ({**config, "threshold": "high"}, "damaged"),
        ({"format": 1}, "damaged"),
        (
            {**config, "digests": {**config["digests"], "reference": "0"}},
            "not the one that guard.json was written with",
        ),
    ):
        (tmp_path / "guard.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=words):
            Detector.load(tmp_path, *pair)
    for text in ("{", "[" * 100_000, '{"a":' * 100_000):
        (tmp_path / "guard.json").write_text(text)
        with pytest.raises(InputError, match="damaged") as said:
            Detector.load(tmp_path, *pair)
        assert "\n" not in str(said.value)


def test_nothing_is_decided_before_it_was_calibrated(pair, tmp_path):
    fresh = Detector(*pair)
    with pytest.raises(InputError, match="call fit"):
        fresh.score(images(3))
    for call in (lambda: fresh.predict(images(3)), lambda: fresh.save(tmp_path)):
        with pytest.raises(InputError, match="no threshold yet"):
            call()
    with pytest.raises(InputError, match="7 clean images are too few for a score of 3 classes: give 8"):
        fresh.fit(images(7))
    with pytest.raises(InputError, match="no policy 'vote'"):
        Detector(*pair, policy="vote")
    with pytest.raises(InputError, match="M answers 3 classes and M∘P 2"):
        Detector(pair[0], lambda x: pair[0](x)[:, :2]).fit(images(20))
    assert list(tmp_path.iterdir()) == []


def test_a_rough_threshold_is_said_to_be_rough(pair, caplog):
    detector = Detector(*pair).fit(images(300))
    detector.infer_threshold(images(100, seed=1), 0.05)
    assert "5 highest of 100 clean images" in caplog.text
    assert "200 images would do" in caplog.text
    caplog.clear()
    detector.infer_threshold(images(400, seed=1), 0.05)
    assert caplog.text == ""


@pytest.mark.parametrize("size", [1.0, 0.0])
def test_where_the_decoy_says_the_same_of_all_images_the_score_does_not_hang_on_rounding(size):
    draws = torch.Generator().manual_seed(0)
    m = 4 * torch.randn(400, 10, generator=draws)
    constant = size * torch.randn(10, generator=draws).expand(400, -1)
    rounded = constant + 1e-7 * torch.randn(400, 10, generator=draws)
    known = reference(m, constant)
    torch.testing.assert_close(score(m, rounded, known), score(m, constant, known), rtol=1e-4, atol=1e-3)
    assert (score(m, constant + 1, known) > 100).all(), "another answer than ever is still suspicious"
