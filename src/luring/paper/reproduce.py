"""Run an experiment: train, fit, attack, and write a row a cell as it is finished; what is there already is not done again."""

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from luring import answers, bundle, data, metrics, networks, rows, training, transfer
from luring.attacks import Attack, preset
from luring.attacks.chunks import BATCH
from luring.errors import InputError
from luring.paper.experiments import Attacked, Experiment, Lure
from luring.paper.pictures import pictures
from luring.transfer import Clean, Transferred
from luring.weights import digest, write_tensors

COMPARED = ("c_e", "luring")


def reproduce(
    experiment: Experiment,
    out: Path,
    *,
    given: nn.Module | None = None,
    seed: int = 0,
    device: str = "cpu",
    show: bool = True,
) -> list[rows.Row]:
    """Run an experiment, or what is left of it, and give all its rows.

    Args:
        experiment: what to do.
        out: a folder: `rows.jsonl`, and the trained networks under `models`.
        given: M, where the experiment does not train it.
        seed: of splits, initial weights, training, choice of images and attacks.
        device: of the networks.
        show: show progress.

    Raises:
        InputError: `out` holds the same cells with other settings, or a damaged file.
    """
    run = Run(experiment, out, seed, device, show)
    dataset = data.load(experiment.dataset, seed=seed, progress=show)
    run.source = {"train": len(dataset.train.labels) + len(dataset.validation.labels), "test": len(dataset.test.labels)}
    target = given or run.trained(
        "base", lambda: networks.make_target(experiment.target, dataset.shape, len(dataset.classes)), dataset
    )
    decoys: dict[str, nn.Module] = {"base": target}
    # Luring first: its bundle can be used while the others are fitted.
    for name in sorted(experiment.lures, key=lambda name: name != "luring"):
        decoys[name] = run.decoy(name, target, dataset)
        if name == "luring" and given is None:
            run.bundled(target, decoys[name], dataset)
    for name, decoy in decoys.items():
        run.accuracy(name, target, decoy, dataset)
    weights = run.weights
    clean = transfer.choose(list(decoys.values()), dataset.test.images, dataset.test.labels, n=experiment.n, seed=seed)
    pictures(run, target, decoys, clean, dataset.classes, weights)
    run.converged(target, decoys, clean, weights)
    # Luring and the baseline it is measured by come first: a run stopped early holds their whole comparison.
    first = tuple(name for name in COMPARED if name in experiment.lures)
    groups = first, tuple(name for name in experiment.lures if name not in first)
    for names in groups:
        run.table(experiment.attacks, names, target, decoys, clean)
    for attack in experiment.effect:
        for eps in experiment.eps:
            run.effect(attack, eps, list(experiment.lures))
    if experiment.opposite:
        for name in experiment.lures:
            run.opposite(name, target, decoys[name], clean)
    for name in experiment.apart:
        decoys[name] = decoy = run.decoy(name, target, dataset)
        run.accuracy(name, target, decoy, dataset)
        right = (answers.labels(decoy, clean.images).cpu() == clean.labels).nonzero().squeeze(1)
        if not len(right):
            continue  # nothing to attack; its line of Table 1 says why
        own = Clean(clean.images[right], clean.labels[right], clean.index[right])
        run.table(experiment.attacks, [name], target, decoys, own)
        if experiment.opposite:
            run.opposite(name, target, decoy, own)
    for names in groups:
        run.table(experiment.extras, names, target, decoys, clean.first(experiment.extras_n))
    return rows.select(run.rows, dataset=experiment.dataset, scale=experiment.scale)


class Run:
    """The state of one run: its rows so far, and how to add one."""

    def __init__(
        self, experiment: Experiment, out: Path, seed: int, device: str, show: bool, batch: int = BATCH
    ) -> None:
        self.batch = batch
        self.experiment, self.out, self.seed, self.device, self.show = experiment, out, seed, device, show
        self.file = out / "rows.jsonl"
        self.rows = rows.read(self.file)
        self.found = {rows.key(row): row for row in self.rows}
        self.source: Mapping[str, int] = {}
        self.weights: dict[str, str] = {}
        self.answered: Tensor | None = None

    def cell(
        self, names: Mapping[str, Any], settings: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]
    ) -> rows.Row:
        """The row of a cell: found, or computed and written. `compute` may give `settings` of its own, which are added."""
        row = {
            "dataset": self.experiment.dataset,
            "scale": self.experiment.scale,
            "seed": self.seed,
            **names,
            "settings": dict(settings),
        }
        asked = rows.digest(row)
        if (found := self.found.get(rows.key(row))) is not None:
            if found.get("asked") != asked:
                raise InputError(
                    f"{self.file} holds {' '.join(str(names[k]) for k in names if k != 'n')} for seed {self.seed} with other settings or "
                    "weights: give another folder with --out, or remove this one."
                )
            return found
        started = time.monotonic()
        measured = dict(compute())
        row["settings"] |= measured.pop("settings", {})
        row |= {**measured, "asked": asked, "seconds": round(time.monotonic() - started, 3)}
        row |= {"source": dict(self.source)} if self.source else {}
        row |= rows.provenance()
        rows.append(self.file, row)
        self.rows.append(row)
        self.found[rows.key(row)] = row
        return row

    def recipe(self, name: str) -> dict[str, str]:
        """What a row of a trial calls how its lure was fitted; nothing elsewhere, and of M."""
        lure = self.experiment.fitted.get(name)
        return {"recipe": lure.recipe} if lure is not None and lure.recipe is not None else {}

    def training(self, name: str) -> dict[str, Any]:
        """The settings a network was trained with, as its row holds them."""
        experiment = self.experiment
        moves = {"moves": asdict(experiment.moves)} if experiment.moves and name in ("base", "stack") else {}
        if name == "base":
            schedule = experiment.target_schedule
            return {"target": experiment.target, **({"schedule": schedule.describe()} if schedule else {}), **moves}
        lure = experiment.fitted[name]
        gap = {"lam": lure.lam, "gap_max": lure.gap_max} if (lure.method or name) == "luring" else {}
        gap |= {"static_eps": lure.static_eps} if lure.static_eps is not None else {}
        return {
            "target": experiment.target,
            "lure": experiment.lure,
            **gap,
            "schedule": lure.schedule.describe(),
            **moves,
        }

    def trained(self, name: str, make: Callable[[], nn.Module], dataset: data.Dataset) -> nn.Module:
        """A classifier trained from labels (M, or Stack's lure and target as one), or its weights from an earlier run."""
        schedule = self.experiment.target_schedule if name == "base" else self.experiment.fitted[name].schedule
        assert schedule is not None, "an experiment that does not train M is given one"

        def train_it(network: nn.Module, state: Path) -> None:
            training.classifier(
                network,
                dataset.train,
                dataset.validation,
                schedule=schedule,
                alter=self.experiment.moves,
                seed=self.seed,
                state=state,
                show=self.show,
                name=name,
            )

        return self.kept(name, make, train_it)

    def decoy(self, name: str, target: nn.Module, dataset: data.Dataset) -> nn.Module:
        """M∘P of an architecture."""
        experiment = self.experiment
        fitted: Lure = experiment.fitted[name]
        method = fitted.method or name

        def lure() -> nn.Module:
            made = networks.make_lure(experiment.lure, target, dataset.shape)[0]
            if method not in ("luring", "luring_alt"):  # the paper drops values out of no other lure
                for part in made.modules():
                    if isinstance(part, nn.Dropout):
                        part.p = 0.0
            return made

        if name == "stack":
            fresh = lambda: networks.make_target(experiment.target, dataset.shape, len(dataset.classes))  # noqa: E731
            return self.trained(name, lambda: networks.compose(lure(), fresh()), dataset)

        def fit_it(network: nn.Module, state: Path) -> None:
            training.lure(
                network,
                target,
                dataset.train.images,
                dataset.validation.images,
                method=method,  # type: ignore[arg-type]
                lam=fitted.lam,
                gap_max=fitted.gap_max,
                static_eps=fitted.static_eps,
                truth=dataset.validation.labels,
                schedule=fitted.schedule,
                seed=self.seed,
                state=state,
                show=self.show,
            )

        return networks.compose(self.kept(name, lure, fit_it), target)

    def bundled(self, target: nn.Module, decoy: nn.Module, dataset: data.Dataset) -> None:
        """Luring's decoy as a bundle, for `luring evaluate` and `luring calibrate`."""
        folder = self.out / "models" / f"seed-{self.seed}" / "bundle"
        if (folder / "config.json").exists():
            return
        lure: nn.Module = decoy.lure  # type: ignore[assignment]
        names = self.experiment.target, networks.make_lure(self.experiment.lure, target, dataset.shape)[1]
        trained = {**self.training("luring"), "seed": self.seed}
        config = bundle.describe(dataset, target, lure, decoy, names=names, method="luring", settings=trained)
        bundle.save(folder, target, lure, config)

    def kept(self, name: str, make: Callable[[], nn.Module], train: Callable[[nn.Module, Path], None]) -> nn.Module:
        """A network with the weights that an earlier run left, or trained now."""
        folder = self.out / "models" / f"seed-{self.seed}"
        path, state = folder / f"{name}.safetensors", folder / f"{name}.state"

        def fresh() -> nn.Module:
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                return make().to(self.device)

        if not path.exists():
            trained = fresh()
            train(trained, state)
            write_tensors(path, trained.state_dict())
            state.unlink(missing_ok=True)
        network = fresh()
        try:
            network.load_state_dict(load_tensors(path.read_bytes()))
        except (SafetensorError, RuntimeError) as error:
            raise InputError(
                f"{path} does not hold the weights of this experiment's {name}: remove it and run again."
            ) from error
        # Read back also when just trained, and in one memory format: kernels chosen by format differ in the last bit.
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return network.eval()

    def preset(self, name: str, attacked: Attacked, eps: float) -> Attack:
        """The attack of a cell, before the adversary's search."""
        return preset(name, eps=eps, seed=self.seed, **attacked.settings)

    def accuracy(self, name: str, target: nn.Module, decoy: nn.Module, dataset: data.Dataset) -> None:
        """A line of Table 1: of M itself, or of the M∘P of an architecture."""
        self.weights[name] = weights = digest(decoy)
        images, truth = dataset.test.images, dataset.test.labels
        if self.answered is None:
            self.answered = answers.labels(target, images).cpu()
        m = self.answered
        self.cell(
            {"kind": "accuracy", "architecture": name, **self.recipe(name), "n": len(m)},
            {**self.training(name), "weights": weights},
            lambda: measure_accuracy(name, decoy, m, images, truth, weights),
        )

    def table(
        self,
        attacks: Mapping[str, Attacked],
        names: Sequence[str],
        target: nn.Module,
        decoys: Mapping[str, nn.Module],
        clean: Clean,
    ) -> None:
        """Cells of Tables 2 to 4."""
        for attack, attacked in attacks.items():
            for eps in self.experiment.eps:
                for name in names:
                    self.transfer(attack, attacked, eps, name, target, decoys[name], clean, self.weights)

    def opposite(self, name: str, target: nn.Module, decoy: nn.Module, clean: Clean) -> None:
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

        weights = {"target": self.weights["base"], "decoy": self.weights[name]}
        names = {"kind": "opposite", "architecture": name, "n": len(clean.labels)}
        self.cell(names, {"choice": clean.digest, "weights": weights}, compute)

    def transfer(
        self,
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
        attack = self.preset(name, attacked, eps)

        def compute() -> dict[str, Any]:
            few = clean.first(self.experiment.search_n)
            tuned, tried = transfer.tune(attack, attacked.search, target, decoy, few, batch=self.batch, show=self.show)
            state = self.out / "crafting.state"
            examples = transfer.craft(tuned, decoy, clean, batch=self.batch, state=state, show=self.show)
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
            **self.recipe(architecture),
            "attack": name,
            "eps": eps,
            "n": len(clean.labels),
        }
        return self.cell(names, self.crafting(attack, attacked, architecture, clean, weights), compute)

    def crafting(
        self, attack: Attack, attacked: Attacked, architecture: str, clean: Clean, weights: Mapping[str, str]
    ) -> dict[str, Any]:
        """The settings of a transfer cell."""
        return {
            **attack.describe(),
            "batch": self.batch,
            "search": {setting: list(values) for setting, values in attacked.search.items()},
            "search_n": min(self.experiment.search_n, len(clean.labels)),
            "choice": clean.digest,
            "weights": {"target": weights["base"], "decoy": weights[architecture]},
        }

    def effect(self, attack: str, eps: float, lures: list[str]) -> None:
        """Figure 4: DR and Adq over the examples that fool every lure's decoy."""
        cells = {name: self.found[self.key("transfer", name, attack, eps)] for name in lures}
        answers_ = {name: _decoded(cell) for name, cell in cells.items()}
        fooled = torch.stack([found.mop != found.truth for found in answers_.values()]).all(0)
        for name, found in answers_.items():
            joint = Transferred(found.m[fooled], found.mop[fooled], found.truth[fooled]).measures()
            self.cell(
                {"kind": "effect", "architecture": name, "attack": attack, "eps": eps},
                {"cells": {other: cell["asked"] for other, cell in cells.items()}},
                lambda joint=joint: {"n": int(fooled.sum()), "of": len(fooled), "dr": joint["dr"], "adq": joint["adq"]},
            )

    def key(self, kind: str, architecture: str, attack: str, eps: float) -> tuple[Any, ...]:
        """The key of one of this run's cells."""
        names = {"kind": kind, "architecture": architecture, "attack": attack, "eps": eps, "seed": self.seed}
        return rows.key({**names, "dataset": self.experiment.dataset, "scale": self.experiment.scale})

    def converged(
        self, target: nn.Module, decoys: Mapping[str, nn.Module], clean: Clean, weights: Mapping[str, str]
    ) -> None:
        """One cell again with other steps: MIM on Luring at the middle eps."""
        experiment = self.experiment
        if not experiment.converged:
            return
        eps, attacked = experiment.eps[len(experiment.eps) // 2], experiment.attacks["mim"]
        few = clean.first(experiment.search_n)
        own = {int(attacked.settings["steps"]): attacked.settings["step"]}
        for steps, step in sorted({**experiment.converged, **own}.items()):
            attack = self.preset("mim", attacked, eps).but(steps=steps, step=step)

            def compute(attack: Attack = attack) -> dict[str, float]:
                examples = transfer.craft(attack, decoys["luring"], few, show=self.show)
                found = transfer.transfer(target, decoys["luring"], examples, few.labels).measures()
                return {name: found[name] for name in ("ac_mop", "ac_m", "dac")}

            self.cell(
                {"kind": "convergence", "architecture": "luring", "attack": "mim", "eps": eps, "n": len(few.labels)},
                self.crafting(attack, attacked, "luring", few, weights),
                compute,
            )


def measure_accuracy(
    name: str, decoy: nn.Module, m: Tensor, images: Tensor, truth: Tensor, weights: str
) -> dict[str, Any]:
    """A row of Table 1: what a network answers to the test images, beside M's answers `m`."""
    mop = answers.labels(decoy, images).cpu()
    compared = name != "base"
    return {
        "test_accuracy": metrics.accuracy(mop, truth),
        "agreement": metrics.agreement(m, mop, truth) if compared else None,
        "disagreement": metrics.disagreement(m, mop) if compared else None,
        "weights": weights,
    }


def _decoded(row: rows.Row) -> Transferred:
    y, m, mop = map(torch.from_numpy, rows.labels(row))
    return Transferred(m, mop, y)
