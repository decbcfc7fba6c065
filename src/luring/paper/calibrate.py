"""Calibrate a bundle's guard on clean images, and measure on others its false alarms and what it notices of attacks it never saw."""

from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from luring import answers, rows, transfer
from luring.attacks import Attack
from luring.bundle import Bundle
from luring.data import Dataset
from luring.guard import Detector, threshold
from luring.paper.evaluate import check_shape
from luring.paper.experiments import Experiment
from luring.paper.run import Run
from luring.weights import digest

LEARNED_FROM = 20_000
"""Training images whose answers the score is learned from, at most."""

ROC = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""False-alarm rates that the ROC is stored at."""


def calibrated(
    bundle: Bundle, dataset: Dataset, *, fpr: float = 0.01, device: str = "cpu", show: bool = True
) -> Detector:
    """A bundle's guard by the policy `score`: learned from training images, its threshold set on validation images.

    Args:
        bundle: that `luring.bundle.load` gave.
        dataset: the one it was fitted to, or one like it.
        fpr: wanted false-alarm rate.
        device: of the networks.
        show: show progress.

    Raises:
        InputError: other images than the bundle's, or too few for `fpr`.
    """
    check_shape(bundle, dataset)
    detector = Detector(bundle.target.to(device), bundle.decoy.to(device), show=show)
    detector.fit(dataset.train.images[:LEARNED_FROM])
    detector.infer_threshold(dataset.validation.images, fpr)
    return detector


def examine(
    detector: Detector,
    bundle: Bundle,
    dataset: Dataset,
    out: Path,
    experiment: Experiment,
    *,
    seed: int = 0,
    device: str = "cpu",
    show: bool = True,
) -> list[rows.Row]:
    """Measure a calibrated guard on test images: its false alarms, then attacks crafted on the decoy, which it has not seen.

    Beside the score stand bare agreement, whose false-alarm rate cannot be chosen, and, with the thresholds that give agreement's rate on the
    validation images, the score and M's confidence alone, which needs no lure.

    Args:
        detector: that `calibrated` gave for this bundle and data.
        bundle: whose decoy is attacked.
        dataset: whose test part is shown.
        out: folder for `rows.jsonl`.
        experiment: the attacks, eps and number of images, as `luring.paper.evaluate.own` gives it; all test images count for the false alarms.
        seed: of the choice of images and of the attacks.
        device: of the networks.
        show: show progress.

    Returns:
        One row `guard`, and one `detection` an attack and eps.
    """
    assert detector.threshold is not None, "a detector without a threshold is not examined"
    method = str(bundle.config["method"])
    target, decoy = bundle.target.to(device), bundle.decoy.to(device)
    weights = {"base": bundle.config["digests"]["target"], method: digest(bundle.decoy)}
    others = {name: Detector(target, decoy, policy=name) for name in ("agreement", "confidence")}
    held_out = dataset.validation.images
    share = float(others["agreement"].score(held_out).mean())
    # No rate below one image in those there are can be set.
    same = max(share, 1 / (len(held_out) + 1))
    thresholds = {
        "agreement": 0.5,
        "confidence": threshold(others["confidence"].score(held_out), same),
        "score_same": threshold(detector.score(held_out), same),
        "score": detector.threshold,
    }
    shared: dict[str, Any] = {
        "fpr": detector.fpr,
        "learned_n": min(LEARNED_FROM, len(dataset.train.labels)),
        "calibration_n": len(held_out),
    }

    def flags(images: Tensor) -> dict[str, Tensor]:
        found = {name: other.score(images) for name, other in others.items()}
        found["score"] = found["score_same"] = detector.score(images)
        return {name: found[name] > at for name, at in thresholds.items()}

    def alarms() -> dict[str, Any]:
        m = run.ask(target, dataset.test.images).argmax(1).cpu()
        flagged = flags(dataset.test.images)
        of_class = [m == label for label in range(len(dataset.classes))]
        return {
            "thresholds": thresholds,
            "false_alarms": {name: _share(raised) for name, raised in flagged.items()},
            "by_class": {
                name: [float(raised[found].double().mean()) if found.any() else None for found in of_class]
                for name, raised in flagged.items()
            },
            "classes": list(dataset.classes),
        }

    def noticed(attack: Attack) -> dict[str, Any]:
        examples = transfer.craft(attack, decoy, clean, state=out / "crafting.state", show=show)
        m, mop = answers.labels(target, examples).cpu(), answers.labels(decoy, examples).cpu()
        fooled = m != clean.labels
        return {
            "ac_mop": float((mop == clean.labels).double().mean()),
            "ac_m": float((~fooled).double().mean()),
            "dac": {name: float((~fooled | raised).double().mean()) for name, raised in flags(examples).items()},
            "fooled": int(fooled.sum()),
            **_curve(clean_scores, detector.score(examples)[fooled]),
        }

    clean_scores = detector.score(dataset.test.images)
    run = Run(experiment, out, seed, device, show)
    of = {"target": weights["base"], "decoy": weights[method]}
    run.cell(
        {"kind": "guard", "architecture": method, "n": len(dataset.test.labels)}, {**shared, "weights": of}, alarms
    )
    test = dataset.test
    clean = transfer.choose([target, decoy], test.images, test.labels, n=experiment.n, seed=seed, ask=run.ask)
    for name, attacked in experiment.attacks.items():
        for radius in experiment.eps:
            attack = run.preset(name, attacked, radius)
            names = {"kind": "detection", "architecture": method, "attack": name, "eps": radius, "n": len(clean.labels)}
            given = {**run.crafting(attack, attacked, method, clean, weights), **shared}
            run.cell(names, given, lambda attack=attack: noticed(attack))
    return rows.select(run.rows, dataset=dataset.name, scale="custom")


def _share(raised: Tensor) -> list[float]:
    """Share, and the ends of its 95 % interval (Clopper and Pearson 1934)."""
    found = binomtest(int(raised.sum()), len(raised))
    interval = found.proportion_ci(method="exact")
    return [float(found.statistic), float(interval.low), float(interval.high)]


def _curve(clean: Tensor, fooling: Tensor) -> dict[str, Any]:
    """AUC, and the shares noticed at the false-alarm rates of `ROC`, of examples that fool M; none where none does."""
    if not len(fooling):
        return {"auc": None, "roc": None}
    truth = torch.cat([torch.zeros(len(clean)), torch.ones(len(fooling))]).numpy()
    scores = torch.cat([clean, fooling]).numpy()
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    noticed = [float(true[false <= rate].max(initial=0.0)) for rate in ROC]
    return {"auc": float(roc_auc_score(truth, scores)), "roc": [list(pair) for pair in zip(ROC, noticed, strict=True)]}
