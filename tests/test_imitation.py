"""A cheap lure that imitates a dear one: stronger than one like it that is fitted by the luring loss."""

from functools import partial

import pytest
import torch

import short_fits
from luring import anneal, answers, blend, bundle, cost, data, imitation, lures, metrics, networks, recipes
from luring.errors import InputError
from luring.training import Schedule
from luring.weights import digest

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", progress=False)


@pytest.fixture
def run(command_line):
    return partial(command_line, "imitate")


def test_it_lures_where_one_like_it_does_not_by_the_luring_loss(strong, digits, tmp_path, run):
    out = tmp_path / "cheap"
    given = ("--imitator", "residual-8-2", "--eps", 0.3, "--steps", 300, "--batch", 64, "--lr", 5e-3)
    code, said, _ = run(strong, "--data", "digits", "--out", out, *given)
    assert code == 0
    before, after = bundle.load(strong), bundle.load(out)
    target = before.target.requires_grad_(False)
    asked = recipes.stored(before.config["settings"])
    own = short_fits.fitted(digits, target, lambda shape: lures.residual_lure(shape, 8, 2), Schedule(300, lr=5e-3), **asked)  # fmt: skip
    found = {name: short_fits.attacked(digits, target, decoy) for name, decoy in (("imitation", after.decoy), ("own", own))}  # fmt: skip
    assert found["imitation"]["dac"] > found["own"]["dac"] + 0.2
    assert found["imitation"]["ac_mop"] < 0.05
    costs = after.config["multiply_adds"]
    assert (costs["target"], costs["lure"]) == (before.config["multiply_adds"]["target"], cost.multiply_adds(after.lure, digits.shape))  # fmt: skip
    assert costs["lure"] < before.config["multiply_adds"]["lure"]
    assert f"makes {costs['lure'] / costs['target']:.2f} of the target's" in said
    settings = after.config["settings"]
    assert recipes.stored(settings) == asked
    assert settings["imitates"] == {
        "eps": 0.3,
        "name": "plain-8",
        "lure": before.config["digests"]["lure"],
        **before.config["settings"],
    }
    assert after.config["lure"] == "residual-8-2"
    assert after.config["digests"]["target"] == before.config["digests"]["target"]
    assert after.config["metrics"]["disagreement"] == metrics.disagreement(
        *(answers.labels(model, digits.test.images) for model in (after.target, after.decoy))
    )
    assert not (out / "lure.state").exists()
    on = anneal.less(after.config)
    assert (on["lam"], on["static_eps"]) == (0.2, 0.15)


@pytest.fixture(scope="module")
def found(strong):
    return bundle.load(strong)


def imitating(found, digits, network, *, other=None, steps, lr=5e-3, eps=0.1, state=None):
    images = digits.train.images, digits.validation.images
    schedule = Schedule(steps, lr=lr)
    return imitation.lure(
        network, other or found.lure, found.target, *images, eps=eps, schedule=schedule, state=state, show=False
    )


def fresh(digits):
    torch.manual_seed(0)
    return networks.make_lure("residual-4-2", torch.nn.Identity(), digits.shape)[0]


def test_a_lure_that_is_the_other_one_has_nothing_to_learn(found, digits):
    """C_E alone is left of the loss, for the images do not differ."""
    same = lures.plain_lure(digits.shape, 8)
    same.load_state_dict(found.lure.state_dict())
    kept = imitating(found, digits, same, steps=1, lr=1e-12)
    told, said = (answers.logits(model, digits.validation.images).double() for model in (found.target, found.decoy))
    assert kept.score == pytest.approx(float((told.softmax(1) * said.log_softmax(1)).sum(1).mean()), rel=1e-4)


def test_a_state_of_another_radius_is_refused(found, digits, tmp_path):
    network, state = fresh(digits), tmp_path / "state"
    imitating(found, digits, network, steps=2, state=state)
    with pytest.raises(InputError, match="other settings"):
        imitating(found, digits, network, steps=2, eps=0.2, state=state)


def test_networks_that_are_not_fitted_stay_as_they_were(found, digits):
    before = digest(found.lure), digest(found.target)
    imitating(found, digits, fresh(digits), steps=2)
    assert (digest(found.lure), digest(found.target)) == before


def test_a_lure_held_back_is_imitated_as_it_is_held(found, digits):
    held = blend.at(found.lure, 0.5)
    network = fresh(digits)
    imitating(found, digits, network, other=held, steps=300)
    x = answers.prepare(digits.test.images[:100], network)
    with torch.no_grad():
        made = network(x)
        apart = [float((made - model(x)).square().mean()) for model in (held, found.lure)]
    assert apart[0] < apart[1] / 2


def test_of_a_lure_that_was_not_fitted_by_the_luring_loss_it_says_no_weight_of_a_gap(found, strong, digits, tmp_path):
    network, before = fresh(digits), found.config
    turned = {**before, "method": "turned", "settings": {"method": "c_e", "align": 0.5}}
    other = bundle.Bundle(**{**vars(found), "config": turned})
    new = imitation.save(other, strong, tmp_path / "new", digits, network, "residual-4-2", Schedule(1), eps=0.1)
    assert "lam" not in new["settings"]
    assert (new["method"], new["settings"]["imitates"]["align"]) == ("turned", 0.5)


def test_what_it_refuses(strong, calibrated, tmp_path, run):
    for given, said in (
        (("--eps", 0.1, "--steps", 0), "must all be above 0"),
        (("--eps", 0.1, "--batch", 6, "--accumulate", 4), "6 images are too few for that in 4 part(s): give 8 or more"),
        (("--eps", 2), "give a radius above 0, 1 at most"),
        (("--eps", 0.1, "--imitator", "wide"), "there is no lure 'wide'"),
    ):
        code, _, error = run(strong, "--data", "digits", "--out", tmp_path / "new", *given)
        assert code == 2
        assert said in error
    assert not (tmp_path / "new" / "config.json").exists()
    code, _, error = run(strong, "--data", "digits", "--out", calibrated, "--eps", 0.1)
    assert code == 2
    assert "holds a bundle already" in error
