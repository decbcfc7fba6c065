import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from luring import answers, data, loop, lures, networks, progress, training
from luring.attacks import preset
from luring.errors import InputError
from luring.training import Schedule
from luring.transfer import choose, craft, transfer

torch.set_num_threads(1)


def blobs(n=96, seed=0):
    """Three classes of 6 by 6 images: a bright row, column or corner."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = torch.rand(n, 1, 6, 6, generator=draw) * 0.4
    images[labels == 0, :, 2, :] += 0.5
    images[labels == 1, :, :, 3] += 0.5
    images[labels == 2, :, :2, :2] += 0.5
    return images, labels


IMAGES, LABELS = blobs()
PART = data.Split(IMAGES, LABELS)


def target_with_everything():
    """Batch normalisation and dropout: what training mode would move."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3)
    )


def small_lure(seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 1, 3, padding=1),
        nn.Sigmoid(),
    )


def weights(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def fit_lure(network=None, target=None, **settings):
    settings = {"schedule": Schedule(12, batch=16), "show": False, "gap_max": 10.0} | settings
    network = network if network is not None else small_lure()
    target = target if target is not None else target_with_everything()
    return network, training.lure(network, target, IMAGES, IMAGES[:30], **settings)


@pytest.mark.parametrize("method", ["luring", "luring_alt", "c_e", "auto"])
def test_the_target_is_left_as_it_was(method):
    target = target_with_everything().train()
    target[0].weight.requires_grad_(False)
    target[3].eval()
    before, modes = weights(target), [module.training for module in target.modules()]
    lure = small_lure()
    start = weights(lure)
    fit_lure(lure, target, method=method)
    assert same(before, weights(target))
    assert [module.training for module in target.modules()] == modes
    assert [name for name, p in target.named_parameters() if not p.requires_grad] == ["0.weight"]
    assert all(p.grad is None for p in target.parameters())
    assert not same(start, weights(lure))
    assert not any(module.training for module in lure.modules())


def test_progress_tells_loss_accuracy_agreement_rate_and_time_left(monkeypatch, capsys, trained):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    monkeypatch.setattr(answers, "AT_ONCE", 25)
    fit_lure(target=trained, show=True, truth=answers.labels(trained, IMAGES[:30]))
    asked, lines = [], capsys.readouterr().err.splitlines()
    while lines[0].startswith("asking M: "):
        asked.append(lines.pop(0))
    # Before the first step its labels and runners-up, of the validation images and of the others, some at a time.
    reached = [(min(done, n), n) for n in (30, len(IMAGES)) for done in range(25, n + 25, 25)]
    assert asked == [f"asking M: {done} of {n}, 0 s left" for done, n in reached]
    *lines, last = lines
    assert len(lines) == 12
    assert last.startswith("fit luring learnt nothing")  # 12 steps are few
    # The labels given are the target's own: accuracy and agreement are the same number.
    told = r"fit luring: 12 of 12, 0 s left, loss -?\d+\.\d{3}, validation accuracy (\d\.\d{4}), agreement (\d\.\d{4}), \d+ images/s"
    accuracy, agreement = re.fullmatch(told, lines[-1]).groups()
    assert accuracy == agreement
    training.classifier(target_with_everything(), PART, PART, schedule=Schedule(4, 16, validations=1))
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"fit target: 1 of 4, \d+ s left, loss \d+\.\d{3}, \d+ images/s", lines[0])
    assert "validation accuracy" in lines[-1]


def test_the_target_is_left_as_it_was_by_a_failure_too():
    target = target_with_everything().train()
    with pytest.raises(InputError):
        fit_lure(target=target, lam=float("nan"))
    assert all(module.training for module in target.modules())
    assert all(p.requires_grad for p in target.parameters())


def loss_of(network, target, method):
    with torch.no_grad():
        top = target(IMAGES)
        first, second = top.topk(2, dim=1).indices.unbind(1)
        seen = network(IMAGES)
        decoy = target(seen)
        return float(
            {
                "luring": lambda: training.losses.luring(decoy, first, second, gap_max=10.0),
                "luring_alt": lambda: training.losses.luring_alt(decoy, first),
                "c_e": lambda: training.losses.c_e(decoy, top),
                "auto": lambda: training.losses.auto(seen, IMAGES),
            }[method]()
        )


@pytest.fixture(scope="module")
def trained():
    target = target_with_everything()
    training.classifier(target, PART, PART, schedule=Schedule(80, 16, 1e-2), show=False)
    return target


@pytest.mark.parametrize("method", ["luring", "luring_alt", "c_e", "auto"])
def test_each_loss_goes_down(trained, method):
    lure = small_lure().eval()
    before = loss_of(lure, trained, method)
    fit_lure(lure, trained, method=method, schedule=Schedule(60, 16, 1e-2))
    assert loss_of(lure, trained, method) < before - 0.02


def test_the_classifier_learns(trained):
    images, labels = blobs(60, seed=5)
    assert float((answers.labels(trained, images) == labels).float().mean()) > 0.9


@pytest.mark.parametrize("method", ["luring", "auto"])
def test_the_state_that_is_kept_is_the_best_and_its_score_is_told(trained, method):
    # A rate far too high: the last state is not the best.
    lure, fitted = fit_lure(None, trained, method=method, schedule=Schedule(40, 8, 0.3, shape="constant"))
    assert 0 < fitted.step <= 40
    if method == "auto":
        with torch.no_grad():
            assert fitted.score == pytest.approx(-float(training.losses.auto(lure(IMAGES[:30]), IMAGES[:30])), rel=1e-4)
    else:
        decoy = networks.compose(lure, trained)
        agreement = (answers.labels(decoy, IMAGES[:30]) == answers.labels(trained, IMAGES[:30])).float().mean()
        assert fitted.score == pytest.approx(float(agreement))


class OneForAll(nn.Module):
    """Makes one image of all, and can make no other."""

    def __init__(self):
        super().__init__()
        self.image = nn.Parameter(torch.zeros(IMAGES.shape[1:]))

    def forward(self, images):
        return self.image.sigmoid().expand_as(images)


def test_a_lure_that_makes_the_same_of_all_images_is_said_to_have_learnt_nothing(trained, capsys):
    _, fitted = fit_lure(OneForAll(), trained, schedule=Schedule(6, 16, lr=0.02), lam=0.3, show=True)
    wanted = answers.labels(trained, IMAGES[:30])
    most = int(wanted.bincount().max()) / 30
    assert fitted.score <= most
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"fit luring learnt nothing: its decoy agrees with the target on {fitted.score:.3f} of the validation images, one answer to all would on "
        f"{most:.3f}; the lure still makes nearly the same of all images. Fit again with more steps, or a larger λ than 0.3."
    )
    _, learnt = fit_lure(None, trained, schedule=Schedule(60, 16, 1e-2), show=True)
    assert learnt.score > most + 0.2
    assert "learnt nothing" not in capsys.readouterr().err


def test_the_best_is_kept_where_later_states_are_worse_and_it_is_said(trained, monkeypatch, capsys):
    seen = []
    inner = answers.labels

    def fading(model, images, **kwargs):
        found = inner(model, images, **kwargs)
        if model is not trained:
            seen.append(weights(model))
            if len(seen) != 3:  # as if only the third state agreed
                return torch.full_like(found, 99)
        return found

    monkeypatch.setattr(answers, "labels", fading)
    lure, fitted = fit_lure(None, trained, schedule=Schedule(6, 16, lr=0.02), show=True)
    assert fitted.step == 3
    remark = capsys.readouterr().err.splitlines()[-1]
    assert remark == (
        f"fit luring diverged: its score on the validation images was {fitted.score:.3f} after 3 steps, and that state is kept; at the end it was 0.000. "
        "Fit again with a lower learning rate than 0.02."
    )
    assert len(seen) == 6
    assert same(
        {f"0.{name}": tensor for name, tensor in weights(lure).items()},
        {k: v for k, v in seen[2].items() if k.startswith("0.")},
    )


def test_the_rate_of_each_shape():
    constant = Schedule(100, lr=2.0, shape="constant")
    assert {constant.rate(step) for step in range(100)} == {2.0}
    steps = Schedule(100, lr=1.0, shape="steps")
    assert [round(steps.rate(step), 6) for step in (0, 69, 70, 89, 90, 99)] == [1, 1, 0.2, 0.2, 0.04, 0.04]
    cosine = [Schedule(100, lr=1.0).rate(step) for step in range(101)]
    assert cosine[0] == pytest.approx(0.1)
    assert max(cosine) == cosine[10] == pytest.approx(1)
    assert cosine[:10] == sorted(cosine[:10])
    assert cosine[10:] == sorted(cosine[10:], reverse=True)
    assert cosine[55] == pytest.approx(0.5)
    assert cosine[100] == pytest.approx(0)
    assert min(cosine[:100]) > 0


@pytest.mark.parametrize("steps", [1, 3, 40, 41, 100])
def test_the_last_state_is_always_looked_at(steps):
    schedule = Schedule(steps)
    assert schedule.validates(steps)
    assert sum(schedule.validates(step) for step in range(1, steps + 1)) <= max(2 * 40, 3)


def test_the_same_seed_gives_the_same_weights_and_the_generator_is_the_callers(trained):
    found = []
    for seed, others in ((0, 5), (0, 6), (1, 5)):
        lure = small_lure()
        torch.manual_seed(others)
        state = torch.get_rng_state()
        fit_lure(lure, trained, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        found.append(weights(lure))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_each_epoch_shows_every_image_once():
    order = loop._order(10, 5, 0, 0, torch.device("cpu"))
    first, second = (torch.cat([next(order), next(order)]) for _ in range(2))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert first.tolist() != second.tolist()
    assert torch.equal(next(loop._order(10, 5, 0, 3, torch.device("cpu"))), second[5:])


def test_half_precision_keeps_weights_whole(trained):
    lure, _ = fit_lure(None, trained, schedule=Schedule(4, 16, precision="bfloat16"))
    assert {p.dtype for p in lure.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("precision", "slow", "said"), [("bfloat16", True, True), ("bfloat16", False, False), ("float32", True, False)]
)
def test_a_processor_without_half_precision_is_told_of(trained, precision, slow, said, monkeypatch, capsys):
    monkeypatch.setattr(loop, "emulated", lambda _: slow)
    fit_lure(None, trained, schedule=Schedule(1, 16, precision=precision), show=True)
    assert ("--precision float32" in capsys.readouterr().err) is said


class Gives(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.weight, self.change = nn.Parameter(torch.ones(1)), change

    def forward(self, x):
        return self.change(x * self.weight)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: x.flatten(1).sum(1),
        lambda x: x.flatten(1)[:, :1],
        lambda x: x.flatten(1)[:1, :3],
        lambda x: (x.flatten(1),),
        lambda x: x.flatten(1)[:, :3] * float("nan"),
    ],
)
def test_a_target_that_gives_no_logits_is_refused(change):
    with pytest.raises(InputError, match="the target gave"):
        fit_lure(target=Gives(change))
    with pytest.raises(InputError, match="the target gave"):
        training.classifier(Gives(change), PART, PART, schedule=Schedule(2, 16), show=False)


def test_a_lure_that_gives_no_such_image_is_refused():
    with pytest.raises(InputError, match="keeps the shape"):
        fit_lure(Gives(lambda x: x[:, :, 1:]))
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        fit_lure(Gives(lambda x: x + 1))


@pytest.mark.parametrize("lam", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused(trained, lam):
    with pytest.raises(InputError, match="not finite after 0 steps"):
        fit_lure(None, trained, lam=lam)


# What a kill costs

DIGITS = """
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_training import fit_digits
from safetensors.torch import save_file
save_file({n: t.contiguous() for n, t in fit_digits(Path(sys.argv[2])).state_dict().items()}, sys.argv[3])
"""


def fit_digits(state):
    loop.SAVE_EVERY = 0.0
    from sklearn.datasets import load_digits

    images = torch.from_numpy(load_digits().images[:400]).float().div(16).unsqueeze(1)
    torch.manual_seed(3)
    target = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    lure = small_lure()
    schedule = Schedule(160, batch=16, lr=1e-2, validations=20)
    training.lure(lure, target, images, images[:100], gap_max=5.0, schedule=schedule, state=state, show=False)
    return lure


def steps_done(state):
    with safe_open(state, framework="pt") as file:
        return int(file.metadata()["done"])


def test_a_run_that_was_killed_ends_with_the_weights_of_one_that_was_not(tmp_path):
    state, out = tmp_path / "state.safetensors", tmp_path / "out.safetensors"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DIGITS, str(Path(__file__).parent), str(state), str(out)]
    run = subprocess.Popen(command, env=environment)
    try:
        limit = time.monotonic() + 60
        while not (state.exists() and steps_done(state) >= 70):
            assert run.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.005)
    finally:
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    assert 40 <= steps_done(state) < 160
    assert not out.exists()
    subprocess.run(command, env=environment, check=True, timeout=60)
    before = loop.SAVE_EVERY
    try:
        whole = fit_digits(None).state_dict()
    finally:
        loop.SAVE_EVERY = before
    with safe_open(out, framework="pt") as file:
        resumed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert same(whole, resumed)
    assert steps_done(state) == 160


class Stop(Exception):  # noqa: N818
    pass


def test_many_interruptions_cost_nothing_either(tmp_path, trained, monkeypatch):
    whole, expected = fit_lure(None, trained, schedule=Schedule(30, 16))
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    state, inner, reached = tmp_path / "state", loop._save, 0

    def save_and_stop(*args):
        nonlocal reached
        inner(*args)
        reached += 1
        if reached % 7 == 0:
            raise Stop

    monkeypatch.setattr(loop, "_save", save_and_stop)
    for seed in (1, 7, 8, 9):  # only the first start's weights count
        with pytest.raises(Stop):
            fit_lure(small_lure(seed), trained, schedule=Schedule(30, 16), state=state)
    lure, fitted = fit_lure(small_lure(seed=9), trained, schedule=Schedule(30, 16), state=state)
    assert same(weights(lure), weights(whole))
    assert (fitted.score, fitted.step) == (expected.score, expected.step)
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_a_finished_run_is_not_run_again(tmp_path, trained):
    state = tmp_path / "state"
    first, one = fit_lure(None, trained, state=state)
    again, two = fit_lure(small_lure(seed=5), trained, state=state)
    assert same(weights(first), weights(again))
    assert (one.score, one.step) == (two.score, two.step)


def test_the_state_of_other_settings_is_refused(tmp_path, trained):
    state = tmp_path / "state"
    fit_lure(None, trained, state=state)
    before = state.read_bytes()
    others = (
        {"lam": 0.5},
        {"gap_max": None},
        {"method": "c_e"},
        {"begins": "another lure"},
        {"seed": 1},
        {"schedule": Schedule(13, batch=16)},
        {"schedule": Schedule(12, batch=16, lr=0.5)},
        {"target": Gives(lambda x: x.flatten(1)[:, :3])},
    )
    for other in others:
        with pytest.raises(InputError, match="other settings"):
            fit_lure(**({"target": trained} | other), state=state)
    assert state.read_bytes() == before


def test_the_state_of_another_network_is_refused(tmp_path, trained):
    fit_lure(None, trained, state=tmp_path / "state")
    with pytest.raises(InputError) as caught:
        fit_lure(lures.plain_lure((1, 6, 6), 2), trained, state=tmp_path / "state")
    assert "\n" not in str(caught.value)


def test_a_damaged_state_is_refused_in_one_sentence(tmp_path, trained):
    state = tmp_path / "state"
    fit_lure(None, trained, state=state)
    whole = state.read_bytes()
    for damaged in (whole[:-10], whole[:20], b"", b"\xff" * 100):
        state.write_bytes(damaged)
        with pytest.raises(InputError, match="is not the state of a run") as caught:
            fit_lure(None, trained, state=state)
        assert "\n" not in str(caught.value)
        assert state.read_bytes() == damaged


# The paper's effect


def test_luring_makes_attacks_on_the_decoy_noticed():
    digits = data.load("digits", seed=0, progress=False)
    torch.manual_seed(0)
    target = networks.plain_target(digits.shape, 10)
    training.classifier(target, digits.train, digits.validation, schedule=Schedule(200, lr=3e-3), show=False)
    decoys = {}
    for method in ("c_e", "luring"):
        torch.manual_seed(0)
        lure = lures.plain_lure(digits.shape, 16)
        schedule = Schedule(800, lr=3e-3)
        training.lure(
            lure,
            target,
            digits.train.images,
            digits.validation.images,
            method=method,
            lam=0.3,
            gap_max=25.0,
            schedule=schedule,
            show=False,
        )
        decoys[method] = networks.compose(lure, target)
    clean = choose([target, *decoys.values()], digits.test.images, digits.test.labels, n=100)
    assert len(clean.labels) == 100
    attack = preset("mim", eps=0.2, step=0.02, steps=40)
    found = {
        method: transfer(target, decoy, craft(attack, decoy, clean), clean.labels).measures()
        for method, decoy in decoys.items()
    }
    assert found["luring"]["ac_mop"] <= 0.1, found
    assert found["luring"]["dac"] >= found["c_e"]["dac"] + 0.2, found
