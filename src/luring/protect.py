"""The library in three calls: fit a lure to a target, put both into a guard, ask it about images."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from luring import bundle, data, networks, processes, recipes, targets, training
from luring.augment import Moves
from luring.data import Dataset
from luring.errors import InputError
from luring.guard import Detector
from luring.targets import Target
from luring.training import Method, Schedule
from luring.types import Images, Labels

REJECTED = -1
"""The label of an image whose answer should not be believed."""


def fit(
    target: nn.Module | Target | str,
    images: Tensor | Dataset,
    *,
    lure: nn.Module | str = "auto",
    share: float = 0.25,
    method: Method = "luring",
    recipe: recipes.Name = "paper",
    eps: float | None = None,
    lam: float | None = None,
    gap_max: float | None = None,
    moves: Moves | None = None,
    schedule: Schedule | None = None,
    anyway: bool = False,
    seed: int = 0,
    out: Path | None = None,
    state: Path | None = None,
    show: bool = True,
) -> nn.Module:
    """Fit a lure to a classifier that is trained already, as `luring fit` does; no labels are needed.

    Args:
        target: images in [0, 1] to logits; or a name for `luring.targets.load`.
        images: [n, channels, height, width], bytes or floats in [0, 1], of which a seeded 17 % choose the state that is kept; or a data set
            with parts of its own.
        lure: a network from images to images in [0, 1]; or a name for `luring.networks.make_lure`.
        share: of the target's multiply-adds that the lure `auto` may cost.
        method: `luring`, or a baseline: `luring_alt`, `c_e`, `auto`.
        recipe: of `luring.recipes`.
        eps: radius of the recipes `strong`, `faithful` and `aligned`.
        lam: λ of the luring loss, where it is not the recipe's own.
        gap_max: bound on its gap in logits, likewise.
        moves: how the images of each step are moved, if they are.
        schedule: how long and how fast; 10 000 steps of 64 images where it is not given.
        anyway: go on where the target does not seem to know the images.
        seed: of the split, of fresh weights, of the order of the images.
        out: a folder for a bundle of both, as `luring fit` writes it; for a data set alone.
        state: a file that the run's state is kept in; where it exists, the run goes on from it.
        show: show progress.

    Returns:
        P, in evaluation mode, with the best weights.

    Raises:
        InputError: something given does not fit, or the target looks untrained.
    """
    gap = recipes.asked(recipe, method=method, lam=lam, gap_max=gap_max, eps=eps)
    found = _target(target)
    m = found.network
    if isinstance(images, Dataset):
        labels = images.validation.labels if images.classes else None
        images = data.matched(images, m, found.classes)
        train, validation = images.train.images, images.validation.images
    else:
        if out is not None:
            raise InputError("a bundle holds what was measured on test images: give a data set, by luring.data.load.")
        labels, (train, validation) = None, data.hold_out(data.check(images), seed)
    if not anyway:
        targets.examine(found, validation, labels)
    shape = (int(train.shape[1]), int(train.shape[2]), int(train.shape[3]))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if isinstance(lure, nn.Module):
            p, name = lure, "given"
        else:
            p, name = networks.make_lure(lure, m, shape, share=share, kind=recipes.RECIPES[recipe].lure)
    p = p.to(next((weight.device for weight in m.parameters()), torch.device("cpu")))
    schedule = schedule or Schedule(10000)
    training.lure(
        p,
        m,
        train,
        validation,
        method=method,
        **gap,
        moves=moves,
        truth=labels,
        schedule=schedule,
        seed=seed,
        state=state,
        show=show,
    )
    if out is not None and isinstance(images, Dataset) and processes.here().main:
        decoy = networks.compose(p, m)
        settings = bundle.fitted_by(recipe, gap, schedule, seed, moves)
        config = bundle.describe(images, m, p, decoy, names=(found.name, name), method=method, settings=settings)
        bundle.save(out, found, p, config, with_target=found.kind == "luring")
    return p


class Guard:
    """A classifier that keeps back answers which should not be believed.

    Its answers are for the operator alone: whoever queries the decoy must learn neither the label nor that it was kept back.

    Attributes:
        target: M.
        decoy: M∘P, for those who may ask from outside.
        detector: what decides (`luring.guard.Detector`).
    """

    def __init__(self, target: nn.Module | Target | str, lure: nn.Module, *, policy: str = "agreement") -> None:
        """A guard that needs no calibration: an answer is kept back where M and M∘P disagree.

        Args:
            target: M, or a name for `luring.targets.load`.
            lure: P, that `luring.fit` gave.
            policy: one of `luring.guard.POLICIES`; `score` and `confidence` need `calibrate`.

        Raises:
            InputError: no such policy or target.
        """
        self.target = _target(target).network
        self.decoy = networks.compose(lure, self.target).eval()
        self.detector = Detector(self.target, self.decoy, policy=policy)

    def __call__(self, images: Images) -> Labels:
        """M's labels of images, [n, channels, height, width] in [0, 1]; -1 where it should not be believed.

        Raises:
            InputError: values outside [0, 1], or a policy that was not calibrated.
        """
        found = self.detector.predict(data.check(images))["data"]
        return found["label"].where(~found["is_adversarial"], torch.tensor(REJECTED))

    def calibrate(self, images: Tensor, *, fpr: float = 0.01, seed: int = 0) -> "Guard":
        """Decide by the score from now on, so that a share of at most `fpr` of clean images is kept back.

        Args:
            images: clean ones, bytes or floats in [0, 1]; half of them, drawn by `seed`, say what is usual, the others set the threshold.
            fpr: wanted false-alarm rate.
            seed: of the draw.

        Raises:
            InputError: too few images for `fpr`.
        """
        images = data.check(images)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        self.detector = Detector(self.target, self.decoy).fit(images[order[: len(order) // 2]])
        self.detector.infer_threshold(images[order[len(order) // 2 :]], fpr)
        return self

    @classmethod
    def load(
        cls, folder: Path | str, *, target: nn.Module | Target | str | None = None, weights: Path | None = None
    ) -> "Guard":
        """The guard of a bundle: as `luring calibrate` set it, or by agreement where it did not.

        Args:
            folder: the bundle, or its hub id.
            target: where the bundle does not hold it, as for `luring.load`.
            weights: likewise.

        Raises:
            InputError: as `luring.load`; or a damaged guard.
        """
        loaded = bundle.load(folder, target=target, weights=weights)
        found = cls(Target(loaded.target, "luring", str(loaded.config["target"])), loaded.lure)
        found.decoy = loaded.decoy
        calibrated = (Path(folder) / "guard.json").is_file()
        found.detector = (
            Detector.load(Path(folder), found.target, found.decoy)
            if calibrated
            else Detector(found.target, found.decoy, policy="agreement")
        )
        return found


def _target(given: nn.Module | Target | str | Callable[..., object]) -> Target:
    if isinstance(given, Target):
        return given
    if isinstance(given, str):
        return targets.load(given)
    if isinstance(given, nn.Module):
        preprocessing = targets.Preprocessing(channels=targets.first_channels(given))
        return Target(targets.Preprocessed(given, preprocessing).eval(), "factory", type(given).__name__)
    raise InputError(f"the target is a {type(given).__name__}: give a torch module, or a name for luring.targets.load.")
