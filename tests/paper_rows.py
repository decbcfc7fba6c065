"""Rows for tests of what is drawn from rows."""

import csv
from importlib.resources import files


def row(kind, architecture, seed=0, dataset="mnist", scale="paper", **fields):
    return {
        "kind": kind,
        "dataset": dataset,
        "scale": scale,
        "architecture": architecture,
        "seed": seed,
        "n": 1000,
        "settings": {},
        "seconds": 1.0,
        "commit": None,
        "versions": {},
        "hardware": {},
        **fields,
    }


def transfer(architecture, ac_mop, ac_m, dac, attack="mim", eps=0.3, **fields):
    return row("transfer", architecture, attack=attack, eps=eps, ac_mop=ac_mop, ac_m=ac_m, dac=dac, **fields)


def accuracy(architecture, test_accuracy, agreement, disagreement=None, **fields):
    figures = {"test_accuracy": test_accuracy, "agreement": agreement, "disagreement": disagreement}
    return row("accuracy", architecture, **figures, **fields)


def lines(name):
    return list(csv.DictReader((files("luring.paper") / name).read_text().splitlines()))


def as_papers(shift=0.0, dataset="mnist"):
    """Rows that say what the paper says."""
    numbers = [
        {k: float(line[k]) + shift if line[k] else None for k in ("ac_mop", "ac_m", "dac")} | line_names(line)
        for line in lines("tables2-4.csv")
        if line["dataset"] == dataset
    ]
    return [transfer(**fields) for fields in numbers]


def line_names(line):
    names = {"attack": line["attack"], "eps": float(line["epsilon"])}
    return names | {"architecture": line["architecture"], "dataset": line["dataset"]}
