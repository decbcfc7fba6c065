"""Training in two real processes, and what the loss of one, a signal and a full disk cost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from luring import answers, cli, loop, networks, processes, rooms, tracking
from luring import training as fit
from luring.data import Split
from luring.errors import InputError
from luring.schedule import Schedule
from luring.state import load
from luring.stopping import LOST, Stopped, at_once
from luring.weights import write_tensors

torch.set_num_threads(1)

SAVED = "the same command goes on"


def images(n, seed):
    return torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TRAIN, VALIDATION = images(1003, 0), images(1203, 1)  # neither divides by 2, nor into parts of 500


def seeded(*layers):
    torch.manual_seed(0)
    return nn.Sequential(*(layer() for layer in layers)).double()


def target():
    return seeded(lambda: nn.Conv2d(1, 4, 3, padding=1), nn.ReLU, nn.Flatten, lambda: nn.Linear(144, 3))


def lure(*between):
    def first():
        return nn.Conv2d(1, 6, 3, padding=1)

    def last():
        return nn.Conv2d(6, 1, 3, padding=1)

    return seeded(first, *between, nn.ReLU, last, nn.Sigmoid)


class Struck(nn.Module):
    """A layer that changes nothing and sends its process a signal at one of its training steps."""

    def __init__(self, at, number):
        super().__init__()
        self.left, self.number = at, number

    def forward(self, x):
        self.left -= self.training
        if self.left == 0 and self.training:
            os.kill(os.getpid(), self.number)
        return x


def fitted(network=None, state=None, log=None, **settings):
    network = network if network is not None else lure()
    schedule = Schedule(18, **({"batch": 15, "lr": 1e-2, "validations": 6} | settings))
    return network, fit.lure(network, target(), TRAIN, VALIDATION, schedule=schedule, state=state, log=log, show=False)


def learned(network, **settings):
    labels = answers.labels(target(), TRAIN)
    part, held = Split(TRAIN[:600], labels[:600]), Split(TRAIN[600:], labels[600:])
    schedule = Schedule(12, **({"batch": 16, "lr": 1e-2, "validations": 3} | settings))
    return network, fit.classifier(network, part, held, schedule=schedule, show=False)


def auto():
    network, schedule = lure().float(), Schedule(6, batch=16, validations=2)
    train, held = TRAIN.float(), VALIDATION.float()
    return network, fit.lure(network, target().float(), train, held, method="auto", schedule=schedule, show=False)


CASES = {
    "plain": fitted,
    "parts and average": lambda: fitted(accumulate=3, ema=0.9),
    "patience": lambda: fitted(patience=1, lr=0.5),
    "classifier": lambda: learned(target()),
    "auto": auto,
}
"""No dropout and no batch normalisation: what two processes get must be what one gets."""


def told(result):
    network, reached = result
    weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    return weights, {"score": reached.score, "step": reached.step}


def of_two(folder):
    """What each of two processes does."""
    rank, folder = int(os.environ["RANK"]), Path(folder)
    for name, case in CASES.items():
        weights, numbers = told(case())
        write_tensors(folder / f"{name}-{rank}.safetensors", weights)
        (folder / f"{name}-{rank}.json").write_text(json.dumps(numbers))
    own = (lambda: nn.BatchNorm2d(6), lambda: nn.Dropout(0.3))
    whole, _ = fitted(lure(*own, lambda: Struck(0, 0)))
    loop.SAVE_EVERY = 0.0
    try:
        fitted(lure(*own, lambda: Struck(9 if rank == 1 else 0, signal.SIGTERM)), folder / "state")
    except Stopped as stop:
        (folder / f"stopped-{rank}").write_text(f"{stop.code} {stop.sentence}")
    parts = lure(*own, lambda: Struck(0, 0))
    again, _ = fitted(parts, folder / "state")
    for name, network in (("whole", whole), ("again", again)):
        write_tensors(folder / f"{name}-{rank}.safetensors", network.state_dict())
    processes.leave()


def of_one_that_is_lost(folder):
    """The same command in both processes; the second is killed."""
    loop.SAVE_EVERY = 0.0
    cut = Struck(9 if os.environ["RANK"] == "1" else 0, signal.SIGKILL)
    try:
        fitted(lure(lambda: cut), Path(folder) / "state")
    except Stopped as stop:
        print(stop.sentence, file=sys.stderr)
        raise


PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); import test_processes as t; getattr(t, sys.argv[2])(sys.argv[3])"
)


def two(what, folder):
    """Two processes that do it, as a launcher starts them: their exit codes and what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), what, str(folder)]
    running = [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    return [process.returncode for process in running], said


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    codes, said = two("of_two", folder)
    assert codes == [0, 0], said
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_and_score_as_one(pair, name):
    weights, numbers = told(CASES[name]())
    for rank in range(2):
        found = json.loads((pair / f"{name}-{rank}.json").read_text())
        if name == "auto":  # a loss of weights that are rounded otherwise; the others' scores are counts
            assert found == pytest.approx(numbers, abs=1e-6)
        else:
            assert found == numbers
        found = load_file(pair / f"{name}-{rank}.safetensors")
        for part, tensor in weights.items():
            torch.testing.assert_close(found[part], tensor, rtol=0, atol=1e-6 if name == "auto" else 1e-12)


def test_a_signal_to_one_of_two_stops_both_and_resuming_changes_nothing(pair):
    for rank, number in enumerate((signal.SIGTERM, signal.SIGTERM)):
        assert (pair / f"stopped-{rank}").read_text() == (
            f"{128 + number} stopped by SIGTERM after 9 of 18 steps of fit luring; {SAVED} from there."
        )
    # With batch normalisation and dropout: each process has its own, and yet all end with the same weights.
    whole, again = (
        [load_file(pair / f"{name}-{rank}.safetensors") for rank in range(2)] for name in ("whole", "again")
    )
    for found in (whole[1], *again):
        assert all(torch.equal(found[name], tensor) for name, tensor in whole[0].items())


def test_a_process_that_is_lost_ends_the_other_and_costs_nothing(tmp_path):
    start = time.monotonic()
    codes, said = two("of_one_that_is_lost", tmp_path)
    assert codes == [LOST, -signal.SIGKILL], said
    assert "another process of this run was lost" in said[0]
    assert f"{SAVED[0].upper()}{SAVED[1:]} from the last state in {tmp_path / 'state'}" in said[0]
    assert time.monotonic() - start < 90
    assert [file.name for file in tmp_path.iterdir()] == ["state"]
    # Gone on with by one process: the number of processes changes nothing but rounding.
    resumed, _ = told(fitted(lure(lambda: Struck(0, 0)), tmp_path / "state"))
    for name, tensor in told(fitted(lure(lambda: Struck(0, 0))))[0].items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=1e-12)


# One process


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


class Stop(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("settings", [{"precision": "bfloat16"}, {"ema": 0.9, "accumulate": 2, "patience": 3}])
def test_stops_cost_nothing_with_any_setting(tmp_path, monkeypatch, settings):
    def layered():
        return lure(lambda: nn.BatchNorm2d(6), lambda: nn.Dropout(0.3)).float()

    def run(state):
        train, held = TRAIN[:200].float(), VALIDATION[:100].float()
        network, schedule = layered(), Schedule(40, batch=16, lr=1e-2, validations=20, **settings)
        reached = fit.lure(network, target().float(), train, held, schedule=schedule, state=state, show=False)
        return told((network, reached))

    whole = run(None)
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    inner, saved = loop._save, 0

    def save_and_stop(*args):
        nonlocal saved
        inner(*args)
        saved += 1
        if saved % 5 == 0:
            raise Stop

    monkeypatch.setattr(loop, "_save", save_and_stop)
    stops = 0
    while stops < 10:
        try:
            resumed = run(tmp_path / "state")
            break
        except Stop:
            stops += 1
    assert stops >= 1
    assert same(resumed[0], whole[0])
    assert resumed[1] == whole[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_obeyed_after_the_step(tmp_path, number):
    handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1)]
    whole, _ = told(fitted(lure(lambda: Struck(0, 0))))
    with pytest.raises(Stopped) as caught:
        fitted(lure(lambda: Struck(7, number)), tmp_path / "state")
    assert caught.value.code == 128 + number
    assert f"after 7 of 18 steps of fit luring; {SAVED}" in caught.value.sentence
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1)] == handlers
    assert same(told(fitted(lure(lambda: Struck(0, 0)), tmp_path / "state"))[0], whole)


def test_a_signal_at_the_last_step_is_obeyed_by_what_follows(tmp_path):
    """The lure's training after the target's, say: it must not be forgotten."""
    with pytest.raises(Stopped) as caught, at_once():
        fitted(lure(lambda: Struck(18, signal.SIGTERM)), tmp_path / "state")
    assert "between two pieces of work" in caught.value.sentence
    _, reached = fitted(lure(lambda: Struck(1, signal.SIGTERM)), tmp_path / "state")
    assert reached.images_per_second == 0  # nothing was left to do


def test_a_full_disk_is_told_and_the_state_before_is_whole(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    whole, _ = told(fitted())
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    state, inner, saved = tmp_path / "state", loop._save, 0
    before = b""

    def save_on_a_full_disk(*args):
        nonlocal saved, before
        saved += 1
        if saved < 8:
            return inner(*args)
        before = state.read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
        try:
            inner(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return None

    monkeypatch.setattr(loop, "_save", save_on_a_full_disk)
    with pytest.raises(
        InputError, match=r"the state after 8 steps could not be written.*file too large.*is whole: make room"
    ):
        fitted(state=state)
    assert state.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["state"]
    monkeypatch.setattr(loop, "_save", inner)
    assert same(told(fitted(state=state))[0], whole)


def test_parts_of_a_batch_add_up_to_it():
    whole, _ = told(fitted(batch=16))
    for parts in (3, 16):
        for name, tensor in told(fitted(batch=16, accumulate=parts))[0].items():
            torch.testing.assert_close(tensor, whole[name], rtol=0, atol=1e-12)


def test_the_average_is_what_is_validated_and_kept():
    decay, seen = 0.5, []

    class Watched(nn.Module):
        def forward(self, x):
            if self.training:
                seen.append([p.detach().clone() for p in network.parameters()])
            return x

    network = lure(Watched)
    _, reached = fitted(network, ema=decay, validations=1)
    last = seen[0]
    # The weights that each step began with are those that the step before ended with; the last step's end is not seen.
    assert reached.step == 18
    shorter = lure()
    fit.lure(
        shorter,
        target(),
        TRAIN,
        VALIDATION,
        schedule=Schedule(18, batch=15, lr=1e-2, validations=1),
        show=False,
    )
    for step, now in enumerate([*seen[1:], list(shorter.parameters())], start=1):
        d = min(decay, (1 + step) / (10 + step))
        last = [d * before + (1 - d) * weight.detach() for before, weight in zip(last, now, strict=True)]
    for found, expected in zip(network.parameters(), last, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    agreement = answers.labels(networks.compose(network, target()), VALIDATION) == answers.labels(target(), VALIDATION)
    assert reached.score == pytest.approx(float(agreement.float().mean()))


def test_patience_ends_a_run_that_no_longer_rises(tmp_path):
    state = tmp_path / "state"
    rates = []
    _, reached = fitted(state=state, lr=1e-9, patience=2, log=lambda values, step: rates.append((step, values)))
    # The first validation is the best there is: two more, at every third step, do not rise above it.
    assert [step for step, values in rates if "agreement" in values][-1] == 9
    assert reached.step == 9
    _, numbers = told(fitted(state=state, lr=1e-9, patience=2))
    assert numbers == {"score": reached.score, "step": 9}
    adam = torch.optim.Adam((network := lure()).parameters(), fused=True)
    identity = load_identity(state)
    assert load(state, network, adam, identity).done == 9


def load_identity(state):
    from safetensors import safe_open

    with safe_open(state, framework="pt") as file:
        return file.metadata()["identity"]


def test_what_is_fetched_ahead_is_the_same(monkeypatch):
    whole, _ = told(fitted())
    monkeypatch.setattr(rooms, "IN_MEMORY", 0)
    network, reached = fitted()
    assert same(told((network, reached))[0], whole)
    assert 0 <= reached.waiting < 1


def test_later_settings_are_told_only_where_they_do_something():
    """Rows and states from before they were there stay valid."""
    assert Schedule(5).describe() == {
        "steps": 5,
        "batch": 64,
        "lr": 1e-3,
        "shape": "cosine",
        "beta2": 0.999,
        "precision": "float32",
        "validations": 40,
    }
    assert Schedule(5, ema=0.9, accumulate=2).describe() == {**Schedule(5).describe(), "ema": 0.9, "accumulate": 2}


@pytest.mark.parametrize("wrong", [{"accumulate": 0}, {"accumulate": 16}, {"ema": 1.0}, {"ema": 0.0}, {"patience": 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError) as caught:
        fitted(**wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("way", ["FSDP", "DEEPSPEED"])
def test_networks_cut_up_are_refused(monkeypatch, way):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(f"ACCELERATE_USE_{way}", "true")
    with pytest.raises(InputError, match=way):
        processes.here.__wrapped__()


# The command line

FITS = ("fit", "--data", "digits", "--out", "b", "--lure", "plain-4", "--target-steps", "20", "--steps", "200")
SPEAKING = "import sys; from luring import cli, progress; progress.LINE_EVERY = 0.0; sys.argv[0] = 'luring'; cli.main()"


def test_sigterm_exits_for_the_scheduler_and_the_same_command_ends_with_the_same_weights(tmp_path, monkeypatch, capsys):
    run = subprocess.Popen(
        [sys.executable, "-c", SPEAKING, *FITS],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as the tests' own process
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for line in run.stderr:
            if line.startswith("fit luring: 40 of"):
                break
        run.send_signal(signal.SIGTERM)
        said = [line for line in run.communicate(timeout=60)[1].splitlines() if line.startswith("luring: ")]
    finally:
        run.kill()
    assert run.returncode == 143
    assert len(said) == 1
    assert said[0].startswith("luring: stopped by SIGTERM after ")
    assert said[0].endswith(f"of 200 steps of fit luring; {SAVED} from there.")
    assert sorted(file.name for file in (tmp_path / "b").iterdir()) == ["lure.state", "target.state"]
    for folder in (tmp_path, tmp_path / "other"):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["luring", *FITS])
        cli.main()
    capsys.readouterr()
    one, other = (folder / "b/lure.safetensors" for folder in (tmp_path, tmp_path / "other"))
    assert one.read_bytes() == other.read_bytes()


def test_what_accelerate_launch_says_of_precision_is_taken_unless_told_otherwise(monkeypatch):
    from luring.cli.training import Training

    assert Training().schedule(5, 2, 0.1).precision == "float32"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert Training().schedule(5, 2, 0.1).precision == "bfloat16"
    assert Training(precision="float32").schedule(5, 2, 0.1).precision == "float32"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(InputError, match="fp16"):
        Training().schedule(5, 2, 0.1)


# Curves


def test_curves_are_kept_for_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told_of = {}
    with tracking.tracked("tensorboard", tmp_path, "lure", {"lr": 0.1}) as log:
        fitted(log=lambda values, step: (log(values, step), told_of.__setitem__(step, values)))
    read = EventAccumulator(str(tmp_path / "tensorboard/lure")).Reload()
    for name in ("loss", "rate", "images_per_second", "agreement"):
        found = [(event.step, event.value) for event in read.Scalars(name)]
        assert found == [(step, pytest.approx(values[name])) for step, values in told_of.items() if name in values]
    assert [step for step, values in told_of.items() if "agreement" in values] == [3, 6, 9, 12, 15, 18]
    assert [step for step, _ in [(event.step, 0) for event in read.Scalars("loss")]] == list(range(1, 19))


def test_a_tracker_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    with (
        pytest.raises(InputError, match=r"wandb is not installed: pip install 'luring\[wandb\]'"),
        tracking.tracked("wandb", tmp_path, "lure", {}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_trackers_settings_are_taken_back(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    before = dict(os.environ)
    with tracking.tracked("tensorboard", tmp_path, "lure", {}):
        assert os.environ["WANDB_MODE"] == "disabled"
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert dict(os.environ) == before
