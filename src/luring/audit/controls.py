"""The rivals that the audited guard is measured beside, each with its thresholds fixed on clean images before any attack."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from luring import augment, layout, recipes, training
from luring.answers import Ask
from luring.attacks import pgd
from luring.audit import trapdoor
from luring.audit.budget import ADVERSARIAL, ADVERSARIAL_LURE, AUTOENCODER, BASE, C_E, TRAPDOOR, TWIN, Budget
from luring.audit.defence import Defence, by_guard, calibrated
from luring.audit.surrogates import Keep, seen
from luring.bundle import Bundle
from luring.data import Dataset, Split
from luring.errors import InputError
from luring.guard import Detector
from luring.lures import whole
from luring.networks import compose
from luring.paper.calibrate import LEARNED_FROM
from luring.training import Schedule

FPR = 0.01
"""False-alarm rate of a guard that the bundle has none of, and then of its rivals."""

RATE = 3e-3
"""Highest learning rate of rivals and surrogates, by Adam."""

LURES = 4
"""Times the steps of a rival classifier that a rival's lure is fitted for: it stays on a first plateau for long."""

FURTHER = 2
"""The same of a lure that goes on from the bundle's, behind that plateau."""

PGD_STEPS = 7
"""Of adversarial training (Madry et al. 2018 take 7 for CIFAR10 and 40 for MNIST)."""


def schedule(steps: int) -> Schedule:
    """How rivals and surrogates are trained: along a cosine."""
    return Schedule(steps, lr=RATE, validations=8)


def audited(bundle: Bundle, folder: Path, dataset: Dataset, ask: Ask, device: str) -> Defence:
    """The bundle's own guard as it was calibrated, or, where it has none, one as `luring calibrate` would set it.

    Beside its policy stand the two others that the networks allow: `target`, which lets every answer out, and bare agreement.
    """
    target, decoy = bundle.target.to(device), bundle.decoy.to(device)
    layout.channels_last(decoy, dataset.shape)
    learned, held_out = dataset.train.images[:LEARNED_FROM], dataset.validation.images
    own = calibrated(target, decoy, ("target", "agreement"), learned, held_out, FPR, ask)
    if (folder / "guard.json").exists():
        detector = Detector.load(folder, target, decoy)
        own[detector.policy] = by_guard(detector, device)
    else:
        own |= calibrated(target, decoy, ("score",), learned, held_out, FPR, ask)
    return Defence(str(bundle.config["method"]), target, decoy, decoy, "M∘P", own)


def rate(folder: Path) -> float:
    """The false-alarm rate that the bundle's guard was calibrated to."""
    if not (folder / "guard.json").exists():
        return FPR
    return float(json.loads((folder / "guard.json").read_text()).get("fpr") or FPR)


def controls(
    bundle: Bundle,
    dataset: Dataset,
    budget: Budget,
    keep: Keep,
    ask: Ask,
    *,
    eps: float,
    fpr: float,
    seed: int,
    device: str,
    show: bool,
) -> Iterator[Defence]:
    """The budget's rivals, one after the other: each is trained when it is asked for.

    Args:
        bundle: whose target they protect.
        dataset: that they are trained and calibrated on.
        budget: names them, and how long they are trained.
        keep: where their weights are kept.
        ask: how they are asked about clean images.
        eps: radius of adversarial training.
        fpr: false-alarm rate that their thresholds are set for.
        seed: of their training.
        device: of the networks.
        show: show progress.
    """
    target, lure = bundle.target.to(device), whole(bundle.lure).to(device)
    learned, held_out = dataset.train.images[: budget.learned], dataset.validation.images
    short = seen(dataset, schedule(max(budget.training, budget.adversarial)))
    train, validation = short.train, short.validation

    def policies(answer: nn.Module, other: nn.Module, *names: str):
        return calibrated(answer, other, names, learned, held_out, fpr, ask)

    def fit_lure(method: training.Method, to: nn.Module, times: int) -> Callable[[nn.Module, Path], None]:
        fitting = schedule(times * budget.training)
        asked = recipes.stored(bundle.config["settings"] if method == "luring" else {})

        def run(network: nn.Module, state: Path) -> None:
            training.lure(
                network,
                to,
                seen(dataset, fitting).train.images,
                validation.images,
                method=method,
                **asked,
                moves=augment.stored(bundle.config["settings"]),
                truth=validation.labels,
                schedule=fitting,
                seed=seed,
                state=state,
                show=show,
            )

        return run

    def fit_classifier(
        name: str, plan: Schedule, train: Split = train, validation: Split = validation, **more: object
    ) -> Callable[[nn.Module, Path], None]:
        def run(network: nn.Module, state: Path) -> None:
            training.classifier(
                network,
                train,
                validation,
                schedule=plan,
                seed=seed,
                state=state,
                show=show,
                name=name,
                **more,  # type: ignore[arg-type]
            )

        return run

    def hardened() -> nn.Module:
        return keep(ADVERSARIAL, lambda: copied(target), harden)

    def harden(network: nn.Module, state: Path) -> None:
        def perturb(images: Tensor, labels: Tensor) -> Tensor:
            # Random starts come from the run's own randomness, which a saved state holds.
            made = pgd(network, images, labels, eps=eps, step=2.5 * eps / PGD_STEPS, steps=PGD_STEPS)
            # Half of them go all the way, the others a part of it: at the full radius alone a small network may stop telling classes apart.
            share = (2 * torch.rand(len(images), 1, 1, 1, device=images.device)).clamp_max(1)
            return images + share * (made - images)

        # The last state: by clean images the first would be kept, which has unlearnt least.
        last = replace(schedule(budget.adversarial), validations=1)
        fit_classifier(ADVERSARIAL, last, alter=perturb)(network, state)

    def trapped(train: Split, validation: Split) -> nn.Module:
        return keep(
            TRAPDOOR, lambda: fresh(target), fit_classifier(TRAPDOOR, schedule(budget.training), train, validation)
        )

    for name in budget.controls:
        if name == bundle.config["method"]:
            continue  # it is what is audited
        if name == BASE:
            yield Defence(BASE, target, None, target, "M", policies(target, target, "target", "confidence"))
        elif name == TWIN:
            twin = keep(TWIN, lambda: fresh(target), fit_classifier(TWIN, schedule(budget.training)))
            yield Defence(TWIN, target, twin, twin, "the twin", policies(target, twin, "agreement", "score"))
        elif name in (C_E, AUTOENCODER):
            # The divergence from M's softmax is the cross-entropy to it less M's entropy, which no P can change: one network for both.
            decoy = compose(keep("c_e", lambda: fresh(lure), fit_lure("c_e", target, LURES)), target).eval()
            if name == C_E:
                yield Defence(C_E, target, decoy, decoy, "M∘P", policies(target, decoy, "agreement", "score"))
            else:
                yield Defence(AUTOENCODER, target, decoy, target, "M", policies(target, decoy, "kl"))
        elif name == TRAPDOOR:
            honeypot, watch = trapdoor.trained(short, seed, trapped)
            yield Defence(TRAPDOOR, honeypot, watch, honeypot, "M", policies(honeypot, watch, "signature"))
        elif name == ADVERSARIAL:
            hard = hardened()
            yield Defence(ADVERSARIAL, hard, None, hard, "M", policies(target, target, "target"))
        elif name == ADVERSARIAL_LURE:
            hard = hardened()
            decoy = compose(
                keep(ADVERSARIAL_LURE, lambda: copied(lure), fit_lure("luring", hard, FURTHER)), hard
            ).eval()
            yield Defence(ADVERSARIAL_LURE, hard, decoy, decoy, "M∘P", policies(hard, decoy, "agreement", "score"))
        else:
            raise InputError(f"there is no control '{name}'.")


def own_lure(bundle: Bundle, dataset: Dataset, budget: Budget, keep: Keep, *, seed: int, show: bool) -> nn.Module:
    """An autoencoder that the adversary of rung 4 trains himself, without M, to stand in P's place."""

    def run(network: nn.Module, state: Path) -> None:
        steps = schedule(budget.training)
        short = seen(dataset, steps)
        training.lure(
            network,
            bundle.target,
            short.train.images,
            short.validation.images,
            method="auto",
            schedule=steps,
            seed=seed,
            state=state,
            show=show,
        )

    return keep("own-lure", lambda: fresh(whole(bundle.lure)), run)


def copied(network: nn.Module) -> nn.Module:
    """The same network once more, to be trained further: what is learnt anew from less is found sooner from there (Jeddi et al. 2020)."""
    return deepcopy(network).requires_grad_(True).train()


def fresh(network: nn.Module) -> nn.Module:
    """A network of the same layers with new weights: each layer's own initial ones."""
    copy = copied(network)
    for part in copy.modules():
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
    return copy
