"""Run an experiment: train, fit, attack, and write a row a cell as it is finished; what is there already is not done again."""

import base64
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from luring import answers, bundle, data, fit, metrics, networks, rows, transfer
from luring.attacks import Attack, preset
from luring.attacks.chunks import BATCH
from luring.errors import InputError
from luring.frozen import frozen
from luring.paper.experiments import Attacked, Experiment, Lure
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
    for name in experiment.lures:
        decoys[name] = run.decoy(name, target, dataset)
    if given is None:
        run.bundled(target, decoys["luring"], dataset)
    weights = {name: digest(decoy) for name, decoy in decoys.items()}
    m = answers.labels(target, dataset.test.images).cpu()
    for name, decoy in decoys.items():
        run.cell(
            {"kind": "accuracy", "architecture": name, "n": len(m)},
            {**run.training(name), "weights": weights[name]},
            lambda name=name, decoy=decoy: measure_accuracy(
                name, decoy, m, dataset.test.images, dataset.test.labels, weights[name]
            ),
        )
    clean = transfer.choose(list(decoys.values()), dataset.test.images, dataset.test.labels, n=experiment.n, seed=seed)
    run.pictures(target, decoys, clean, dataset.classes, weights)
    run.converged(target, decoys, clean, weights)
    lures = list(experiment.lures)
    # Luring and the baseline it is measured by come first: a run stopped early holds their whole comparison.
    for names in (COMPARED, [name for name in lures if name not in COMPARED]):
        for attack, attacked in experiment.attacks.items():
            for eps in experiment.eps:
                for name in names:
                    run.transfer(attack, attacked, eps, name, target, decoys[name], clean, weights)
    for attack in experiment.effect:
        for eps in experiment.eps:
            run.effect(attack, eps, lures)
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

    def training(self, name: str) -> dict[str, Any]:
        """The settings a network was trained with, as its row holds them."""
        experiment = self.experiment
        moves = {"moves": asdict(experiment.moves)} if experiment.moves and name in ("base", "stack") else {}
        if name == "base":
            schedule = experiment.target_schedule
            return {"target": experiment.target, **({"schedule": asdict(schedule)} if schedule else {}), **moves}
        lure = experiment.fitted[name]
        gap = {"lam": lure.lam, "gap_max": lure.gap_max} if name == "luring" else {}
        return {"target": experiment.target, "lure": experiment.lure, **gap, "schedule": asdict(lure.schedule), **moves}

    def trained(self, name: str, make: Callable[[], nn.Module], dataset: data.Dataset) -> nn.Module:
        """A classifier trained from labels (M, or Stack's lure and target as one), or its weights from an earlier run."""
        schedule = self.experiment.target_schedule if name == "base" else self.experiment.fitted[name].schedule
        assert schedule is not None, "an experiment that does not train M is given one"

        def train_it(network: nn.Module, state: Path) -> None:
            fit.classifier(
                network,
                dataset.train,
                dataset.validation,
                schedule=schedule,
                moves=self.experiment.moves,
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

        def lure() -> nn.Module:
            made = networks.make_lure(experiment.lure, target, dataset.shape)[0]
            if name not in ("luring", "luring_alt"):  # the paper drops values out of no other lure
                for part in made.modules():
                    if isinstance(part, nn.Dropout):
                        part.p = 0.0
            return made

        if name == "stack":
            fresh = lambda: networks.make_target(experiment.target, dataset.shape, len(dataset.classes))  # noqa: E731
            return self.trained(name, lambda: networks.compose(lure(), fresh()), dataset)

        def fit_it(network: nn.Module, state: Path) -> None:
            fit.lure(
                network,
                target,
                dataset.train.images,
                dataset.validation.images,
                method=name,  # type: ignore[arg-type]
                lam=fitted.lam,
                gap_max=fitted.gap_max,
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

        names = {"kind": "transfer", "architecture": architecture, "attack": name, "eps": eps, "n": len(clean.labels)}
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

    def pictures(
        self,
        target: nn.Module,
        decoys: Mapping[str, nn.Module],
        clean: Clean,
        classes: tuple[str, ...],
        weights: Mapping[str, str],
    ) -> None:
        """Images for the report: one row of pictures an image, and Figure 6."""
        experiment = self.experiment
        if not experiment.pictures:
            return
        eps = experiment.eps[len(experiment.eps) // 2]
        few, decoy = clean.first(experiment.pictures), decoys["luring"]
        attack = self.preset("mim", experiment.attacks["mim"], eps)
        settings = self.crafting(attack, experiment.attacks["mim"], "luring", few, weights)
        lure: nn.Module = decoy.lure  # type: ignore[assignment]
        crafted: list[Tensor] = []
        for place, index in enumerate(few.index.tolist()):

            def compute(place: int = place) -> dict[str, Any]:
                if not crafted:
                    crafted.append(transfer.craft(attack, decoy, few))
                x, x_adv = few.images[place : place + 1], crafted[0][place : place + 1]
                shown = {"x": x, "p_x": through(lure, x), "x_adv": x_adv, "p_x_adv": through(lure, x_adv)}
                shown["perturbation"] = (x_adv - x) / (2 * eps) + 0.5
                both = {
                    name: [int(answers.labels(model, shown[name])) for model in (target, decoy)]
                    for name in ("x", "x_adv")
                }
                return {"images": {name: png(image[0]) for name, image in shown.items()}, "labels": both}

            names = {"kind": "picture", "architecture": "luring", "attack": "mim", "eps": eps, "index": index, "n": 1}
            shared = {"label": int(few.labels[place]), "classes": list(classes)}
            self.cell({**names, **shared}, settings, compute)
            for name in experiment.lures:
                part: nn.Module = decoys[name].lure  # type: ignore[assignment]
                self.cell(
                    {"kind": "gradient", "architecture": name, "index": index, "n": 1, **shared},
                    {"weights": weights[name]},
                    lambda part=part, place=place: _gradient(part, few.images[place : place + 1]),
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


def through(lure: nn.Module, images: Tensor) -> Tensor:
    """P(x), on the CPU."""
    with frozen(lure), torch.no_grad():
        return lure(answers.prepare(images, lure)).cpu()


def _gradient(lure: nn.Module, image: Tensor) -> dict[str, Any]:
    """Figure 6: how much P's output moves with each value of the image, the l2 norm over the output of ∂P/∂x_d."""
    with frozen(lure):
        x = answers.prepare(image, lure)
        jacobian = torch.autograd.functional.jacobian(lure, x, vectorize=True)
        assert isinstance(jacobian, Tensor)
        norm = jacobian.reshape(x.numel(), *x.shape[1:]).square().sum(0).sqrt().cpu()
    total = float(norm.sum())
    background = float(norm[image[0] == 0].sum()) / total if total > 0 else float("nan")
    return {
        "images": {"x": png(image[0]), "gradient": png(norm / norm.max().clamp_min(1e-12))},
        "background": background,
    }


def png(image: Tensor) -> str:
    """A picture in [0, 1], [channels, height, width], as base64 of a PNG."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
