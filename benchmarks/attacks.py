"""Time the attacks of every library on the same model and images, interleaved: `python benchmarks/attacks.py`.

The unit is the floor: as many forward and backward passes as the attack has steps, eager and contiguous, to the images only, with the
weights frozen. One row a network, library and attack goes to OUT/rows.jsonl.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision_operators import name_operators

from luring import architectures, attacks, rows

warnings.filterwarnings("ignore")  # the peers' own

Run = Callable[[Tensor, Tensor], object]

EPS, STEP = 8 / 255, 2 / 255


def vgg() -> nn.Sequential:
    """The network of the comparison: 64, 64, pool, 128, 128, pool, 256, 256, pool, each with batch normalisation; 32×32×3."""
    layers: list[nn.Module] = []
    before = 3
    for width in (64, 128, 256):
        for _ in range(2):
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256 * 16, 10))


NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "vgg": (vgg, (3, 32, 32)),
    "mnist": (architectures.mnist_target, (1, 28, 28)),
}


def floor(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> None:
    """The bare steps."""
    for _ in range(steps):
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(model(leaf), y), leaf)


def ours(model: nn.Module, steps: int) -> Mapping[str, Run]:
    """Luring's."""
    settings = {"eps": EPS, "step": STEP, "steps": steps}
    return {
        "fgsm": lambda x, y: attacks.fgsm(model, x, y, eps=EPS),
        "pgd": lambda x, y: attacks.pgd(model, x, y, **settings),
        "mim": lambda x, y: attacks.mim(model, x, y, **settings),
        "dim": lambda x, y: attacks.dim(model, x, y, probability=0.5, **settings),
        "mim-ti": lambda x, y: attacks.mim_ti(model, x, y, kernel=15, **settings),
        "dim-ti": lambda x, y: attacks.dim_ti(model, x, y, probability=0.5, kernel=15, **settings),
    }


def torchattacks(model: nn.Module, steps: int) -> Mapping[str, Run]:
    """Of torchattacks; its TI is for colour images alone."""
    import torchattacks as peer

    iterated = {"eps": EPS, "alpha": STEP, "steps": steps}
    blurred = {**iterated, "decay": 1.0, "len_kernel": 15, "nsig": 3}
    found: dict[str, Run] = {
        "fgsm": peer.FGSM(model, eps=EPS),
        "pgd": peer.PGD(model, **iterated),
        "mim": peer.MIFGSM(model, **iterated),
        "dim": peer.DIFGSM(model, **iterated, diversity_prob=0.5),
    }
    if next(model.parameters()).shape[1] == 3:
        found["mim-ti"] = peer.TIFGSM(model, **blurred, diversity_prob=0.0)
        found["dim-ti"] = peer.TIFGSM(model, **blurred, diversity_prob=0.5)
    return found


def foolbox(model: nn.Module, steps: int) -> Mapping[str, Run]:
    """Of foolbox."""
    import foolbox as peer

    wrapped = peer.PyTorchModel(model, bounds=(0, 1))
    found = {
        "fgsm": peer.attacks.LinfFastGradientAttack(),
        "pgd": peer.attacks.LinfPGD(abs_stepsize=STEP, steps=steps),
        "mim": peer.attacks.LinfMomentumIterativeFastGradientMethod(abs_stepsize=STEP, steps=steps),
    }
    return {
        name: lambda x, y, attack=attack: attack.run(wrapped, x, peer.criteria.Misclassification(y), epsilon=EPS)
        for name, attack in found.items()
    }


def cleverhans(model: nn.Module, steps: int) -> Mapping[str, Run]:
    """Of CleverHans."""
    import numpy as np
    from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    box = {"norm": np.inf, "clip_min": 0, "clip_max": 1}
    return {
        "fgsm": lambda x, y: fast_gradient_method(model, x, EPS, y=y, **box),
        "pgd": lambda x, y: projected_gradient_descent(model, x, EPS, STEP, steps, y=y, **box),
    }


def art(model: nn.Module, steps: int) -> Mapping[str, Run]:
    """Of the Adversarial Robustness Toolbox."""
    from art.attacks.evasion import FastGradientMethod, MomentumIterativeMethod, ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    shape = next(shape for make, shape in NETWORKS.values() if shape[0] == next(model.parameters()).shape[1])
    wrapped = PyTorchClassifier(
        model=model, loss=nn.CrossEntropyLoss(), input_shape=shape, nb_classes=10, clip_values=(0, 1), device_type="cpu"
    )
    iterated = {"eps": EPS, "eps_step": STEP, "max_iter": steps, "batch_size": 128, "verbose": False}
    found = {
        "fgsm": FastGradientMethod(wrapped, eps=EPS, batch_size=128),
        "pgd": ProjectedGradientDescentPyTorch(wrapped, num_random_init=1, **iterated),
        "mim": MomentumIterativeMethod(wrapped, **iterated),
    }
    return {name: lambda x, y, attack=attack: attack.generate(x.numpy(), y.numpy()) for name, attack in found.items()}


def adv_lib(model: nn.Module, steps: int) -> Mapping[str, Run]:
    """Of adversarial-library, which has none of the others."""
    name_operators()
    # A server of plots, which its attacks name in annotations alone.
    sys.modules.setdefault("visdom", ModuleType("visdom"))
    from adv_lib.attacks import pgd_linf

    return {"pgd": lambda x, y: pgd_linf(model, x, y, EPS, steps=steps, absolute_step_size=STEP)}


LIBRARIES: Mapping[str, tuple[str, Callable[[nn.Module, int], Mapping[str, Run]]]] = {
    "luring": ("luring", ours),
    "torchattacks": ("torchattacks", torchattacks),
    "foolbox": ("foolbox", foolbox),
    "cleverhans": ("cleverhans", cleverhans),
    "art": ("adversarial-robustness-toolbox", art),
    "adv_lib": ("adv-lib", adv_lib),
}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of rows.jsonl")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--network", choices=NETWORKS, action="append", help="one or more; both where none is given")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for network in given.network or NETWORKS:
        measure(network, given)


def measure(network: str, given: argparse.Namespace) -> None:
    """One network: every attack of every library, in rounds."""
    make, shape = NETWORKS[network]
    torch.manual_seed(0)
    model = make().eval().requires_grad_(False)
    x = torch.rand(given.batch, *shape)
    y = torch.randint(0, 10, (given.batch,))
    runs: dict[tuple[str, str], Run] = {}
    for library, (_, make_runs) in LIBRARIES.items():
        if library == "luring" or find_spec(library):
            runs |= {(library, attack): run for attack, run in make_runs(model, given.steps).items()}
        else:
            print(f"{library} is not installed: sh scripts/peers")
    attacks_ = dict.fromkeys(attack for _, attack in runs)
    seconds: dict[tuple[str, str], list[float]] = {}
    for turn in range(given.rounds + 1):
        for attack in attacks_:
            steps = 1 if attack == "fgsm" else given.steps
            timed: dict[str, Callable[[], object]] = {"floor": lambda steps=steps: floor(model, x, y, steps)}
            timed |= {library: lambda run=run: run(x, y) for (library, name), run in runs.items() if name == attack}
            for library, run in timed.items():
                start = time.perf_counter()
                run()
                if turn:  # the first round only warms up
                    seconds.setdefault((library, attack), []).append(time.perf_counter() - start)
    for (library, attack), found in seconds.items():
        if library == "floor":
            continue
        base = seconds["floor", attack]
        ratios = [one / bare for one, bare in zip(found, base, strict=True)]
        package = LIBRARIES[library][0]
        row = {
            "kind": "speed",
            "dataset": network,
            "scale": "benchmark",
            "architecture": library,
            "attack": attack,
            "eps": EPS,
            "seed": 0,
            "n": given.rounds,
            "settings": {"batch": given.batch, "steps": given.steps, "threads": given.threads, "shape": list(shape)},
            "median": statistics.median(found),
            "images_per_second": given.batch / statistics.median(found),
            "of_floor": statistics.median(ratios),
            "of_floor_range": [min(ratios), max(ratios)],
            "library_version": version(package),
            "seconds": sum(found),
            **rows.provenance(),
        }
        rows.append(given.out / "rows.jsonl", row)
        print(
            f"{network:6} {attack:7} {library:13} {row['median']:8.3f} s {row['images_per_second']:8.0f} images/s "
            f"{row['of_floor']:5.2f} of the floor ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
