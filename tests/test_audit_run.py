"""A whole audit of a fitted bundle, its page and its words, and the attacks of other libraries on the same guard."""

import base64
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from luring import answers, bundle, cli, data, networks, rows, training
from luring.attacks import pgd
from luring.audit import page, printed, tables, words
from luring.audit.budget import ADVERSARIAL, BUDGETS
from luring.audit.controls import controls
from luring.audit.decision import search
from luring.audit.defence import FOOLED, KEPT, remembering
from luring.audit.run import Ladder, audit, drawn
from luring.audit.tries import Setting
from luring.errors import InputError
from luring.metrics import accuracy
from luring.training import Schedule

torch.set_num_threads(1)

TINY = replace(
    BUDGETS["full"],
    n=16,
    few=4,
    steps=4,
    transfer=("fgsm", "apgd"),
    rival_transfer=("fgsm",),
    surrogate=("fgsm",),
    queries=30,
    rival_queries=10,
    targets=1,
    joint=("behind",),
    cuts=2,
    controls=("base", "c_e", "ae-kl", "trapdoor", "adversarial-lure"),
    training=25,
    adversarial=12,
    checked=4,
    surfaces=1,
)


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """A small target, a lure fitted to it, as a bundle; and the digits."""
    digits, folder = data.load("digits"), tmp_path_factory.mktemp("fitted") / "bundle"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        target = networks.make_target("plain", digits.shape, 10)
        lure, name = networks.make_lure("plain-4", target, digits.shape)
    training.classifier(
        target, digits.train, digits.validation, schedule=Schedule(120, lr=5e-3, validations=2), show=False
    )
    training.lure(
        lure,
        target,
        digits.train.images,
        digits.validation.images,
        lam=0.3,
        gap_max=15.0,
        schedule=Schedule(250, lr=5e-3, validations=2),
        show=False,
    )
    settings = {"lam": 0.3, "gap_max": 15.0}
    decoy = networks.compose(lure, target)
    config = bundle.describe(digits, target, lure, decoy, names=("plain", name), method="luring", settings=settings)
    bundle.save(folder, target, lure, config)
    return folder, digits


@pytest.fixture(scope="session")
def audited(fitted, tmp_path_factory):
    """Rows of an audit with all rivals, at the least budget, and where they are."""
    folder, digits = fitted
    out = tmp_path_factory.mktemp("audited")
    found = audit(bundle.load(folder), folder, digits, out, TINY, scale="tiny", eps=0.15, show=False)
    return out, found


def test_every_rung_is_climbed_and_every_rival_measured(audited):
    _, found = audited
    measured = {(row["architecture"], row["rung"]) for row in rows.select(found, kind="audit")}
    rivals = ("luring", *TINY.controls)
    assert measured >= {(name, rung) for name in rivals for rung in (0, 1, 2, 3, 5, 6)}
    assert {name for name, rung in measured if rung == 4} == {"luring", "c_e", "adversarial-lure"}
    assert {row["architecture"] for row in rows.select(found, kind="denial")} == set(rivals)
    assert all(row["outside"] <= 1e-6 for row in rows.select(found, kind="audit"))


def test_the_figures_of_a_row_are_those_of_its_fates(audited):
    _, found = audited
    for row in rows.select(found, kind="audit"):
        for name, shares in row["policies"].items():
            fates = np.frombuffer(base64.b64decode(row["fates"][name]), np.uint8)
            assert len(fates) == row["n"]
            assert shares["fooled"] == pytest.approx((fates == FOOLED).mean())
            assert sum(shares.values()) == pytest.approx(1)
        if "curve" in row:
            for name, shares in row["curve"].items():
                assert shares == sorted(shares), name


def test_what_fools_is_wrong_and_let_out(fitted, audited):
    """The example that a row shows, put to the guard anew: nothing is taken on trust."""
    folder, digits = fitted
    _, found = audited
    target = bundle.load(folder).target
    for row in rows.select(found, kind="audit", architecture="luring", rung=0):
        index = torch.randperm(len(digits.test.labels), generator=torch.Generator().manual_seed(0))[: row["n"]]
        right = target(digits.test.images[index]).argmax(1) == digits.test.labels[index]
        fates = torch.frombuffer(bytearray(base64.b64decode(row["fates"]["target"])), dtype=torch.uint8)
        assert torch.equal(fates == KEPT, right)


def test_a_second_run_computes_nothing_anew(fitted, audited, monkeypatch):
    folder, digits = fitted
    out, found = audited
    before = (out / "rows.jsonl").read_bytes()
    monkeypatch.setattr(Ladder, "outcome", lambda *_: pytest.fail("computed again"))
    again = audit(bundle.load(folder), folder, digits, out, TINY, scale="tiny", eps=0.15, show=False)
    # As they are written: JSON knows lists, no tuples.
    assert [row["asked"] for row in again] == [row["asked"] for row in found]
    fewer = replace(TINY, controls=("base",))
    assert len(audit(bundle.load(folder), folder, digits, out, fewer, scale="tiny", eps=0.15, show=False)) == len(found)
    assert (out / "rows.jsonl").read_bytes() == before
    with pytest.raises(InputError, match="other settings"):
        audit(bundle.load(folder), folder, digits, out, replace(TINY, n=17), scale="tiny", eps=0.15, show=False)


def test_the_same_rows_give_the_same_page(audited, tmp_path):
    _, found = audited
    for name in ("one", "two"):
        page.write(found, tmp_path / name)
    drawn_ = (tmp_path / "one").read_text()
    assert drawn_ == (tmp_path / "two").read_text()
    shares = tables.guarded(found)[0].rungs[5]
    assert f"<b>{words.share(shares.fooled.mean)}</b>" in drawn_
    # Nothing is fetched when it is opened.
    assert not re.search(r'(src|href)="(?!data:|#)', drawn_)
    with pytest.raises(InputError, match="run 'luring audit'"):
        page.write([], tmp_path / "none")


def test_a_failed_check_comes_first_and_says_so(audited, tmp_path):
    _, found = audited
    bad = {"name": "radius", "on": "M", "passed": False, "figures": {"at": [0.1, 0.2], "fooled": [0.9, 0.1], "n": 50}}
    planted = [
        {**row, "checks": [*row["checks"], bad]} if row["kind"] == "sanity" and row["check"] == "attacked" else row
        for row in found
    ]
    page.write(planted, tmp_path / "page.html")
    shown = (tmp_path / "page.html").read_text()
    alarm = shown.index('class="alarm"')
    assert alarm < shown.index('class="told"') < shown.index("What each adversary leaves")
    assert "a larger ε never helps the defender; fooled 90 %, 10 % at 0.1, 0.2" in shown
    assert words.verdict(tables.checks(planted)) in shown


def test_the_words_are_made_of_the_figures(audited):
    _, found = audited
    guard = tables.guarded(found)[0]
    told = " ".join(words.told(found))
    for rung in tables.RUNGS:
        assert words.share(guard.rungs[rung].fooled.mean) in told
    assert words.fine(guard.accuracy.mean) in told


def test_what_is_fooled_less_at_the_price_of_accuracy_is_named_with_its_price(audited):
    """It is no rival, but who reads that everything is fooled must not think that nothing helps."""
    _, found = audited
    hard = [row for row in found if row["architecture"] == "adversarial-lure"]
    kept = base64.b64encode(bytes(TINY.n)).decode()
    for right, named in ((0.5, True), (1.0, False)):
        planted = [row for row in found if row not in hard] + [
            {**row, "accuracy": right, "rejected": {"score": [0.0, 0.0, 0.1]}, "policies": {"score": {}}}
            if row["kind"] == "clean"
            else {**row, "fates": {"score": kept}}
            if row["kind"] == "audit"
            else row
            for row in hard
        ]
        told = " ".join(words.told(planted))
        assert ("its price is accuracy, 50.0 % of the clean images." in told) is named


def test_a_guard_that_helps_is_said_to_and_one_that_does_not_is_not():
    def outcome(share, n=400):
        value = tables.Value(share, float("nan"), 1)
        return tables.Outcome(value, value, value, 0.0, 1.0, n)

    assert tables.better(outcome(0.1), outcome(0.9)) is True
    assert tables.better(outcome(0.9), outcome(0.1)) is False
    assert tables.better(outcome(0.50), outcome(0.52)) is None
    # The same difference, of a few images.
    assert tables.better(outcome(0.2, 10), outcome(0.4, 10)) is None


def test_markdown_holds_each_adversary(audited):
    _, found = audited
    shown = printed.markdown(found)
    for rung in tables.RUNGS:
        assert f"| {words.ADVERSARIES[rung][0]} |" in shown
    assert len({line.count("|") for line in shown.splitlines() if line.startswith("|")}) == 1


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["luring", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code or 0, capsys.readouterr()
        return 0, capsys.readouterr()

    return call


def test_the_command_writes_a_page_and_ends_with_1_where_a_check_failed(run, fitted, audited, tmp_path, monkeypatch):
    folder, _ = fitted
    _, found = audited
    told = []

    def given(*_, **settings):
        told.append(settings)
        return found

    monkeypatch.setattr("luring.audit.run.audit", given)
    failed = any(not check["passed"] for check in tables.checks(found))
    code, said = run("audit", folder, "--data", "digits", "--out", "out", "--eps", "0.15")
    assert code == int(failed)
    assert "Adversary" in said.out
    assert (tmp_path / "out/report.html").exists()
    assert told[0]["eps"] == 0.15
    assert told[0]["scale"] == "quick"
    broken = [
        {**row, "checks": [{**check, "passed": False} for check in row["checks"]]} if row["kind"] == "sanity" else row
        for row in found
    ]
    monkeypatch.setattr("luring.audit.run.audit", lambda *_, **__: broken)
    assert run("audit", folder, "--data", "digits", "--out", "out")[0] == 1


def test_a_radius_that_is_none_is_refused(run, fitted):
    folder, _ = fitted
    code, said = run("audit", folder, "--data", "digits", "--out", "out", "--eps", "0")
    assert code == 2
    assert "eps is 0" in said.err


class TestPeers:
    """No attack of another library finds more than two points more than the audit's of the same knowledge."""

    EPS = 0.12

    @pytest.fixture
    def guard(self, fitted):
        folder, digits = fitted
        from luring.audit.controls import audited as guarded

        return guarded(bundle.load(folder), folder, digits, remembering(), "cpu"), drawn(digits, 30, 0), digits

    @pytest.mark.filterwarnings("ignore")
    def test_autoattack_and_apgd_find_no_more_than_the_audit(self, guard):
        torchattacks = pytest.importorskip("torchattacks")
        defence, clean, _ = guard
        budget = replace(TINY, n=30, few=30, steps=30, queries=300, targets=9)
        setting = Setting(clean, self.EPS, budget, 0)
        from luring.audit.knowing import m_alone

        fooled = torch.zeros(30, dtype=torch.bool)
        for attempt in m_alone(defence, setting):
            fooled |= defence.fates(attempt.craft().images, clean.labels)["target"] == FOOLED
        assert 0.2 < fooled.double().mean() < 0.98
        # With its own numbers, FAB and 5000 queries of Square among them: more than ours.
        whole = torchattacks.AutoAttack(
            defence.answer, norm="Linf", eps=self.EPS, version="standard", n_classes=10, seed=0
        )
        apgd = torchattacks.APGD(defence.answer, norm="Linf", eps=self.EPS, steps=30, n_restarts=2, seed=0)
        for peer in (whole, apgd):
            theirs = defence.fates(peer(clean.images, clean.labels), clean.labels)["target"] == FOOLED
            assert theirs.double().mean() <= fooled.double().mean() + 0.02

    @pytest.mark.filterwarnings("ignore")
    def test_hop_skip_jump_finds_no_more_on_the_decision(self, guard):
        pytest.importorskip("art")
        from art.attacks.evasion import HopSkipJump
        from art.estimators.classification import BlackBoxClassifierNeuralNetwork

        defence, clean, digits = guard
        policy, asked = defence.policies["agreement"], []
        x, y = clean.images[:8].contiguous(), clean.labels[:8]
        one_hot = np.eye(11, dtype=np.float32)

        def decision(images):
            asked.append(len(images))
            m, other = defence.logits(torch.from_numpy(np.asarray(images, dtype=np.float32)))
            refused = policy.suspicion(m, other) > policy.threshold
            # A refusal is an answer of its own, and no success: it is counted out below.
            return one_hot[torch.where(refused, 10, m.argmax(1)).numpy()]

        classifier = BlackBoxClassifierNeuralNetwork(
            decision, input_shape=(1, 8, 8), nb_classes=11, clip_values=(0, 1), channels_first=True
        )
        peer = HopSkipJump(classifier, norm=np.inf, max_iter=4, max_eval=60, init_eval=30, verbose=False)
        np.random.seed(0)
        made = torch.from_numpy(peer.generate(x.numpy()))
        near = (made - x).flatten(1).abs().amax(1) <= 0.3
        theirs = near & (defence.fates(made, y)["agreement"] == FOOLED)
        spent = sum(asked) // len(x)
        setting = Setting(clean.first(8), 0.3, replace(TINY, few=8, queries=spent), 0)
        own = digits.validation.images[:200], digits.validation.labels[:200]
        found = search("hop-skip-jump", defence, "agreement", policy, own, setting).craft()
        ours = defence.fates(found.images, y)["agreement"] == FOOLED
        assert theirs.double().mean() <= ours.double().mean() + 0.02


@pytest.fixture(scope="module")
def hardened(fitted, tmp_path_factory):
    """M of the bundle, M adversarially trained, and the digits."""
    folder, digits = fitted
    loaded, out = bundle.load(folder), tmp_path_factory.mktemp("hardened")
    budget = BUDGETS["quick"].asked([ADVERSARIAL], 150)

    def keep(name, make, train):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = make()
        train(network, out / f"{name}.state")
        return network.eval()

    (rival,) = controls(
        loaded, digits, budget, keep, remembering(), eps=0.15, fpr=0.1, seed=0, device="cpu", show=False
    )
    return loaded.target, rival.answer, digits


def test_adversarial_training_makes_m_harder_to_fool(hardened):
    target, hard, digits = hardened
    x, y = digits.test.images[:100], digits.test.labels[:100]
    kept = {}
    for name, model in (("M", target), ("hard", hard)):
        made = pgd(model, x, y, eps=0.15, step=0.15 / 8, steps=20)
        kept[name] = accuracy(answers.labels(model, made), y)
    assert kept["hard"] > kept["M"] + 0.3
    assert accuracy(answers.labels(hard, digits.test.images), digits.test.labels) > 0.85


def test_the_audited_target_is_left_as_it_was(hardened, fitted):
    target, hard, _ = hardened
    before = bundle.load(fitted[0]).target.state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())
    assert any(not torch.equal(before[name], tensor) for name, tensor in hard.state_dict().items())
