"""One run of an experiment: its rows so far, its networks, and how to add a row."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import nn

from luring import answers, augment, blend, bundle, data, imitation, networks, rows, training
from luring.attacks import Attack, preset
from luring.attacks.chunks import BATCH
from luring.errors import InputError
from luring.lures import Blended, whole
from luring.paper.experiments import Attacked, Experiment, Lure
from luring.transfer import Clean
from luring.weights import half_tensors, halved, write_tensors


class Run:
    """The state of one run: its rows so far, and how to add one."""

    def __init__(
        self, experiment: Experiment, out: Path, seed: int, device: str, show: bool, batch: int = BATCH
    ) -> None:
        self.batch = batch
        self.experiment = experiment.at(seed)
        self.out, self.seed, self.device, self.show = out, seed, device, show
        self.file = out / "rows.jsonl"
        self.rows = rows.read(self.file)
        self.found = {rows.key(row): row for row in self.rows}
        self.source: Mapping[str, int] = {}
        self.weights: dict[str, str] = {}
        self.ask = answers.remembering(show=show)

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

    def lure(self, name: str) -> str:
        """The name of an architecture's lure."""
        return self.experiment.fitted[name].network or self.experiment.lure

    def training(self, name: str) -> dict[str, Any]:
        """The settings a network was trained with, as its row holds them."""
        experiment = self.experiment
        moves = augment.described(experiment.moves if name in ("base", "stack") else experiment.fitted[name].moves)
        if name == "base":
            schedule = experiment.target_schedule
            return {"target": experiment.target, **({"schedule": schedule.describe()} if schedule else {}), **moves}
        lure = experiment.fitted[name]
        asked: Mapping[str, Any] = {}
        if (lure.method or name) == "luring" and not lure.imitates:
            asked = lure.asked
        elif lure.asked["align"] is not None:
            asked = {"method": lure.method, "align": lure.asked["align"]}
        return {
            "target": experiment.target,
            "lure": self.lure(name),
            **{setting: value for setting, value in asked.items() if value is not None or setting == "gap_max"},
            "schedule": lure.schedule.describe(),
            **moves,
            **({"begins": lure.begins} if lure.begins else {}),
            **({"share": lure.share} if lure.share else {}),
            **({"blended": list(lure.blended)} if lure.blended else {}),
            **({"imitates": list(lure.imitates)} if lure.imitates else {}),
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
        if fitted.blended:
            of, share = fitted.blended
            held = blend.at(self.decoy(of, target, dataset).lure, share)  # type: ignore[arg-type]
            return networks.compose(held, target).eval()

        def lure() -> nn.Module:
            made = networks.make_lure(self.lure(name), target, dataset.shape)[0]
            if method not in ("luring", "luring_alt"):  # the paper drops values out of no other lure
                for part in made.modules():
                    if isinstance(part, nn.Dropout):
                        part.p = 0.0
            return made if fitted.share is None else Blended(made, fitted.share)

        if name == "stack":
            fresh = lambda: networks.make_target(experiment.target, dataset.shape, len(dataset.classes))  # noqa: E731
            return self.trained(name, lambda: networks.compose(lure(), fresh()), dataset)

        def fit_it(network: nn.Module, state: Path) -> None:
            if fitted.begins is not None:
                whole(network).load_state_dict(whole(self.decoy(fitted.begins, target, dataset).lure).state_dict())  # type: ignore[arg-type]
            images = dataset.train.images, dataset.validation.images
            common: dict[str, Any] = {
                "moves": fitted.moves,
                "truth": dataset.validation.labels,
                "schedule": fitted.schedule,
                "seed": self.seed,
                "state": state,
                "show": self.show,
            }
            if fitted.imitates is not None:
                of, eps = fitted.imitates
                imitation.lure(network, self.decoy(of, target, dataset).lure, target, *images, eps=eps, **common)  # type: ignore[arg-type]
            else:
                training.lure(network, target, *images, method=method, **fitted.asked, **common)  # type: ignore[arg-type]

        return networks.compose(self.kept(name, lure, fit_it), target)

    def bundled(self, target: nn.Module, decoy: nn.Module, dataset: data.Dataset) -> None:
        """Luring's decoy as a bundle, for `luring evaluate` and `luring calibrate`."""
        folder = self.out / "models" / f"seed-{self.seed}" / "bundle"
        if (folder / "config.json").exists():
            return
        lure: nn.Module = decoy.lure  # type: ignore[assignment]
        trained = {**self.training("luring"), "seed": self.seed}
        names = self.experiment.target, networks.make_lure(self.lure("luring"), target, dataset.shape)[1]
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
            # What is measured is what is published and kept with the results, to the last bit.
            write_tensors(path, half_tensors(halved(trained)))
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

    def key(self, kind: str, architecture: str, attack: str, eps: float) -> tuple[Any, ...]:
        """The key of one of this run's cells."""
        names = {"kind": kind, "architecture": architecture, "attack": attack, "eps": eps, "seed": self.seed}
        return rows.key({**names, "dataset": self.experiment.dataset, "scale": self.experiment.scale})
