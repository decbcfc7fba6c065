"""An experiment writes each row once, goes on where it stopped, and leaves a decoy that can be used."""

import base64
import json
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import nn

from luring import answers, bundle, data, networks, recipes, rows
from luring.augment import Moves
from luring.errors import InputError
from luring.lures import Blended
from luring.paper import printed
from luring.paper.calibrate import calibrated, examine
from luring.paper.evaluate import own
from luring.paper.experiments import EXPERIMENTS, Attacked, Lure
from luring.paper.reproduce import reproduce
from luring.paper.run import Run
from luring.training import Schedule
from luring.weights import digest, read_tensors

SHORT = Schedule(60, lr=3e-3, validations=2)
SMALL = replace(
    EXPERIMENTS["digits", "demo"],
    target_schedule=Schedule(150, lr=3e-3, validations=2),
    lures=MappingProxyType({"c_e": Lure(SHORT), "luring": Lure(SHORT, recipes.asked("paper", lam=0.3, gap_max=15.0))}),
    attacks=MappingProxyType({"fgsm": Attacked(), "mim": Attacked({"step": 0.05, "steps": 4})}),
    eps=(0.1, 0.2),
    n=20,
    pictures=1,
    converged=MappingProxyType({8: 0.02}),
    apart=MappingProxyType({"luring_alt": Lure(SHORT)}),
    extras=MappingProxyType(
        {"vmi": Attacked({"step": 0.05, "steps": 2, "samples": 2}), "spsa": Attacked({"budget": 40, "samples": 4})}
    ),
    extras_n=6,
    opposite=True,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("small")
    reproduce(SMALL, out, show=False)
    return out


def test_a_precision_is_that_of_every_network():
    changed = SMALL.trained_in("bfloat16")
    assert changed.target_schedule == replace(SMALL.target_schedule, precision="bfloat16")
    assert set(changed.fitted) == set(SMALL.fitted)
    assert {lure.schedule.precision for lure in changed.fitted.values()} == {"bfloat16"}
    assert changed.trained_in("float32") == SMALL


def test_with_a_seed_a_lure_can_begin_as_one_that_is_not_compared(tmp_path):
    first = Lure(SHORT, recipes.asked("paper", lam=0.7), method="luring")
    other = replace(SMALL.lures["luring"], begins="begun", schedule=replace(SHORT, steps=1))
    changed = replace(SMALL, begun={"begun": first}, seeds={2: {"luring": other}})
    assert changed.at(1).lures == SMALL.lures
    assert changed.at(2).lures == {**SMALL.lures, "luring": other}
    assert changed.trained_in("bfloat16").at(2).lures["luring"].schedule.precision == "bfloat16"
    found = reproduce(
        replace(changed, apart={}, converged={}, extras={}, pictures=0, opposite=False), tmp_path, seed=2, show=False
    )
    assert {row["architecture"] for row in found} == {"base", "c_e", "luring"}
    begun, luring = (read_tensors(tmp_path / f"models/seed-2/{name}.safetensors") for name in ("begun", "luring"))
    # One step away.
    assert all(torch.allclose(begun[name].float(), luring[name].float(), atol=0.01) for name in begun)
    assert not all(torch.equal(begun[name], luring[name]) for name in begun)
    (row,) = rows.select(found, kind="accuracy", architecture="luring")
    assert row["settings"]["begins"] == "begun"


def test_a_second_run_adds_nothing(folder):
    before = (folder / "rows.jsonl").read_text()
    again = reproduce(SMALL, folder, show=False)
    assert (folder / "rows.jsonl").read_text() == before
    assert again == rows.read(folder / "rows.jsonl")
    kinds = [row["kind"] for row in again]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "accuracy": 4,
        "picture": 1,
        "gradient": 2,
        "convergence": 2,
        "transfer": 8 + 4 + 8 + 4,
        "effect": 8,
        "opposite": 3,
    }


def test_a_lure_may_begin_as_another_and_another_may_be_held_back(tmp_path):
    once = Lure(Schedule(1, lr=1e-6, validations=1), method="luring", recipe="on", begins="luring")
    through = replace(once, recipe="through", begins="on", share=0.75)
    part = Lure(SHORT, method="luring", recipe="part", blended=("luring", 0.5))
    few = replace(
        SMALL,
        lures=MappingProxyType({"luring": SMALL.lures["luring"]}),
        apart=MappingProxyType({"on": once, "through": through, "part": part}),
        attacks=MappingProxyType({"fgsm": Attacked()}),
        extras=MappingProxyType({}),
        effect=(),
        pictures=0,
        converged=MappingProxyType({}),
        opposite=False,
    )
    found = reproduce(few, tmp_path, show=False)
    kept = tmp_path / "models/seed-0"
    assert not (kept / "part.safetensors").exists()
    begun, went_on, held = (read_tensors(kept / f"{name}.safetensors") for name in ("luring", "on", "through"))
    assert float(held.pop("share")) == 0.75
    held = {name.removeprefix("lure."): tensor for name, tensor in held.items()}
    for old, new in ((begun, went_on), (went_on, held)):
        moved = max(float((new[name].float() - old[name].float()).abs().max()) for name in old)
        assert moved <= 1e-3, "a single small step"
    by_name = {row["architecture"]: row for row in rows.select(found, kind="accuracy")}
    assert by_name["on"]["settings"]["begins"] == "luring"
    assert by_name["through"]["settings"]["share"] == 0.75
    assert by_name["part"]["settings"]["blended"] == ["luring", 0.5]
    whole = bundle.load(kept / "bundle")
    assert by_name["part"]["weights"] == digest(networks.compose(Blended(whole.lure, 0.5), whole.target))
    assert {row["recipe"] for row in rows.select(found, kind="transfer") if "recipe" in row} == {
        "on",
        "part",
        "through",
    }


def test_what_the_paper_leaves_out_comes_last_and_l_prime_has_its_own_images(folder):
    found = rows.read(folder / "rows.jsonl")
    order = [(row["architecture"], row["attack"]) for row in rows.select(found, kind="transfer")]
    first = order.index(("luring_alt", "fgsm"))
    assert {attack for _, attack in order[:first]} == {"fgsm", "mim"}
    assert {attack for _, attack in order[first + 4 :]} == {"vmi", "spsa"}
    alt = rows.select(found, kind="transfer", architecture="luring_alt")
    own = rows.select(found, kind="opposite", architecture="luring_alt")[0]["n"]
    assert [row["n"] for row in alt] == [own] * 4 + [min(6, own)] * 4
    others = [row for row in found if row["architecture"] != "luring_alt"]
    assert all(row["n"] == 6 for row in others if row.get("attack") in ("vmi", "spsa"))
    for row in rows.select(found, kind="opposite"):
        counts = np.frombuffer(base64.b64decode(row["counts"]), "<u4").reshape(row["n"], 10)
        assert counts.mean() == pytest.approx(row["mean"])
        assert row["by_class"] == pytest.approx(counts.mean(0).tolist())
        assert counts.max() <= row["of"] == 64
    assert all(row["source"] == {"train": 1527, "test": 270} for row in found)
    assert "L'" in printed.markdown(found)


def test_weights_that_float16_does_not_hold_are_refused_and_not_kept(tmp_path):
    run = Run(SMALL, tmp_path, 0, "cpu", False)
    with pytest.raises(InputError, match="beyond 65504"):
        run.kept("base", lambda: nn.Linear(1, 1), lambda network, _: network.weight.data.fill_(1e5))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_rows_say_how_images_were_moved(tmp_path):
    run = Run(replace(SMALL, moves=Moves(shift=0.1)), tmp_path, 0, "cpu", False)
    assert run.training("base")["moves"] == {"angle": 0.0, "shift": 0.1, "mirror": False}
    assert "moves" not in run.training("luring")
    lures = {**SMALL.lures, "luring": replace(SMALL.lures["luring"], moves=Moves(mirror=True))}
    run = Run(replace(SMALL, lures=lures), tmp_path, 0, "cpu", False)
    assert run.training("luring")["moves"] == {"angle": 0.0, "shift": 0.0, "mirror": True}
    assert "moves" not in run.training("c_e")
    assert "moves" not in Run(SMALL, tmp_path, 0, "cpu", False).training("base")


def test_a_run_that_lost_rows_computes_them_again_and_the_same(folder, tmp_path):
    lines = (folder / "rows.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "models").symlink_to(folder / "models")
    (tmp_path / "rows.jsonl").write_text("".join(lines[:7]) + lines[7][:40])
    reproduce(SMALL, tmp_path, show=False)
    ours, theirs = rows.read(tmp_path / "rows.jsonl"), rows.read(folder / "rows.jsonl")
    timed = {"seconds", "date"}
    assert [{k: v for k, v in row.items() if k not in timed} for row in ours] == [
        {k: v for k, v in row.items() if k not in timed} for row in theirs
    ]


def test_other_settings_are_refused_and_the_rows_kept(folder):
    before = (folder / "rows.jsonl").read_text()
    with pytest.raises(InputError, match="with other settings or weights"):
        reproduce(
            replace(SMALL, attacks=MappingProxyType({"fgsm": Attacked(), "mim": Attacked({"steps": 5})})),
            folder,
            show=False,
        )
    assert (folder / "rows.jsonl").read_text() == before


def test_the_decoy_is_left_as_a_bundle(folder):
    found = bundle.load(folder / "models/seed-0/bundle")
    measured = rows.select(rows.read(folder / "rows.jsonl"), kind="accuracy", architecture="luring")[0]
    assert digest(found.decoy) == measured["weights"]
    assert found.config["metrics"]["test_accuracy"] == pytest.approx(measured["test_accuracy"])
    assert found.config["settings"]["gap_max"] == 15.0


def test_its_guard_is_measured_on_attacks_it_has_not_seen(folder, tmp_path):
    images = data.load("digits", progress=False)
    found = bundle.load(folder / "models/seed-0/bundle")
    detector = calibrated(found, images, fpr=0.05)
    before = detector.threshold
    experiment = own(found, images, ["mim"], [0.1, 0.3], {"step": 0.05, "steps": 4}, 30)
    measured = examine(detector, found, images, tmp_path, experiment, show=False)
    assert detector.threshold == before
    alarms, *cells = measured
    disagree = answers.labels(found.target, images.test.images) != answers.labels(found.decoy, images.test.images)
    share, low, high = alarms["false_alarms"]["agreement"]
    assert share == pytest.approx(float(disagree.double().mean()))
    assert low <= share <= high
    share, low, high = alarms["false_alarms"]["score"]
    assert low <= 0.05 <= high
    assert [cell["eps"] for cell in cells] == [0.1, 0.3]
    for cell in cells:
        assert all(cell["dac"][policy] >= cell["ac_m"] for policy in ("agreement", "confidence", "score_same", "score"))
        assert cell["fooled"] == round((1 - cell["ac_m"]) * cell["n"])
        noticed = [share for _, share in cell["roc"]]
        assert noticed == sorted(noticed)
        assert 0 <= cell["auc"] <= 1
    text = (tmp_path / "rows.jsonl").read_text()
    assert examine(detector, found, images, tmp_path, experiment, show=False) == measured
    assert (tmp_path / "rows.jsonl").read_text() == text
    assert json.loads(text.splitlines()[0])["settings"]["fpr"] == 0.05
