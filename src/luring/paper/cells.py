"""The cells of an experiment's tables and figures: each is measured, and written by its run."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from luring import data, metrics, rows, transfer
from luring.attacks import Attack
from luring.paper.experiments import Attacked
from luring.paper.run import Run
from luring.transfer import Clean, Transferred
from luring.weights import digest


def accuracy(run: Run, name: str, target: nn.Module, decoy: nn.Module, dataset: data.Dataset) -> None:
    """A line of Table 1: of M itself, or of the M∘P of an architecture."""
    run.weights[name] = weights = digest(decoy)
    run.cell(
        {"kind": "accuracy", "architecture": name, **run.recipe(name), "n": len(dataset.test.labels)},
        {**run.training(name), "weights": weights},
        lambda: measure_accuracy(run, name, target, decoy, dataset.test, weights),
    )


def table(
    run: Run,
    attacks: Mapping[str, Attacked],
    names: Sequence[str],
    target: nn.Module,
    decoys: Mapping[str, nn.Module],
    clean: Clean,
) -> None:
    """Cells of Tables 2 to 4."""
    for attack, attacked in attacks.items():
        for eps in run.experiment.eps:
            for name in names:
                transferred(run, attack, attacked, eps, name, target, decoys[name], clean, run.weights)


def opposite(run: Run, name: str, target: nn.Module, decoy: nn.Module, clean: Clean) -> None:
    """The directions of §4.2 along which a logit of M and of M∘P move against each other."""

    def compute() -> dict[str, Any]:
        counts = metrics.opposite_directions(target, decoy, clean.images)
        return {
            "of": clean.images[0].numel(),
            "mean": float(counts.double().mean()),
            "by_class": counts.double().mean(0).tolist(),
            "counts": base64.b64encode(counts.numpy().astype("<u4").tobytes()).decode(),
            "index_of": base64.b64encode(clean.index.numpy().astype("<u4").tobytes()).decode(),
        }

    weights = {"target": run.weights["base"], "decoy": run.weights[name]}
    names = {"kind": "opposite", "architecture": name, "n": len(clean.labels)}
    run.cell(names, {"choice": clean.digest, "weights": weights}, compute)


def transferred(
    run: Run,
    name: str,
    attacked: Attacked,
    eps: float,
    architecture: str,
    target: nn.Module,
    decoy: nn.Module,
    clean: Clean,
    weights: Mapping[str, str],
) -> rows.Row:
    """A cell of Table 2."""
    attack = run.preset(name, attacked, eps)

    def compute() -> dict[str, Any]:
        few = clean.first(run.experiment.search_n)
        tuned, tried = transfer.tune(attack, attacked.search, target, decoy, few, batch=run.batch, show=run.show)
        state = run.out / "crafting.state"
        examples = transfer.craft(tuned, decoy, clean, batch=run.batch, state=state, show=run.show)
        found = transfer.transfer(target, decoy, examples, clean.labels)
        return {
            **found.measures(),
            "l0": transfer.l0_quartiles(clean.images, examples),
            "tried": tried,
            "labels": found.encoded(),
            "images": clean.digest,
            "settings": tuned.describe(),
        }

    names = {
        "kind": "transfer",
        "architecture": architecture,
        **run.recipe(architecture),
        "attack": name,
        "eps": eps,
        "n": len(clean.labels),
    }
    return run.cell(names, run.crafting(attack, attacked, architecture, clean, weights), compute)


def effect(run: Run, attack: str, eps: float, lures: list[str]) -> None:
    """Figure 4: DR and Adq over the examples that fool every lure's decoy."""
    cells = {name: run.found[run.key("transfer", name, attack, eps)] for name in lures}
    answers_ = {name: _decoded(cell) for name, cell in cells.items()}
    fooled = torch.stack([found.mop != found.truth for found in answers_.values()]).all(0)
    for name, found in answers_.items():
        joint = Transferred(found.m[fooled], found.mop[fooled], found.truth[fooled]).measures()
        run.cell(
            {"kind": "effect", "architecture": name, "attack": attack, "eps": eps},
            {"cells": {other: cell["asked"] for other, cell in cells.items()}},
            lambda joint=joint: {"n": int(fooled.sum()), "of": len(fooled), "dr": joint["dr"], "adq": joint["adq"]},
        )


def converged(
    run: Run, target: nn.Module, decoys: Mapping[str, nn.Module], clean: Clean, weights: Mapping[str, str]
) -> None:
    """One cell again with other steps: MIM on Luring at the middle eps."""
    experiment = run.experiment
    if not experiment.converged:
        return
    eps, attacked = experiment.eps[len(experiment.eps) // 2], experiment.attacks["mim"]
    few = clean.first(experiment.search_n)
    own = {int(attacked.settings["steps"]): attacked.settings["step"]}
    for steps, step in sorted({**experiment.converged, **own}.items()):
        attack = run.preset("mim", attacked, eps).but(steps=steps, step=step)

        def compute(attack: Attack = attack) -> dict[str, float]:
            examples = transfer.craft(attack, decoys["luring"], few, show=run.show)
            found = transfer.transfer(target, decoys["luring"], examples, few.labels).measures()
            return {name: found[name] for name in ("ac_mop", "ac_m", "dac")}

        run.cell(
            {"kind": "convergence", "architecture": "luring", "attack": "mim", "eps": eps, "n": len(few.labels)},
            run.crafting(attack, attacked, "luring", few, weights),
            compute,
        )


def measure_accuracy(
    run: Run, name: str, target: nn.Module, decoy: nn.Module, test: data.Split, weights: str
) -> dict[str, Any]:
    """A row of Table 1: what a network answers to the test images, beside M's answers."""
    m, mop = (run.ask(network, test.images).argmax(1).cpu() for network in (target, decoy))
    compared = name != "base"
    return {
        "test_accuracy": metrics.accuracy(mop, test.labels),
        "agreement": metrics.agreement(m, mop, test.labels) if compared else None,
        "disagreement": metrics.disagreement(m, mop) if compared else None,
        "weights": weights,
    }


def _decoded(row: rows.Row) -> Transferred:
    y, m, mop = map(torch.from_numpy, rows.labels(row))
    return Transferred(m, mop, y)
