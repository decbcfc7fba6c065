"""The momentum method with pieces, by the names the literature gives to certain pieces together.

Each is `gradient.mim` and takes what that takes; `decay` is 1, `norm` `linf` and `loss` `ce` where they are not given.
"""

from typing import Required, TypedDict, Unpack

from torch import Generator

from luring.attacks.blocks import shuffled, structures
from luring.attacks.gradient import mim
from luring.attacks.slopes import flat, variance
from luring.attacks.transforms import chain, diversity, mixed, scales, smoothing, spectrum
from luring.types import Classifier, Images, Labels


class Iterated(TypedDict, total=False):
    """What every attack of this file hands on to `gradient.mim`, which says what it means."""

    eps: Required[float]
    step: Required[float]
    steps: Required[int]
    decay: float
    norm: str
    targeted: bool
    loss: str


class Drawn(Iterated, total=False):
    """The same of an attack that draws."""

    generator: Generator | None


def dim(
    model: Classifier, x: Images, y: Labels, *, probability: float = 0.5, shrink: int = 2, **common: Unpack[Drawn]
) -> Images:
    """`mim` with input diversity (Xie et al. 2019), drawn per image: with `probability` the model sees it resized and padded."""
    return mim(model, x, y, see=diversity(probability, shrink), **common)


def mim_ti(model: Classifier, x: Images, y: Labels, *, kernel: int = 5, **common: Unpack[Iterated]) -> Images:
    """`mim` with the gradient smoothed by a Gaussian of `kernel` pixels (TI, Dong et al. 2019)."""
    return mim(model, x, y, smooth=smoothing(kernel), **common)


def dim_ti(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    probability: float = 0.5,
    shrink: int = 2,
    kernel: int = 5,
    **common: Unpack[Drawn],
) -> Images:
    """`mim` with input diversity and smoothed gradients (DIM-TI, Dong et al. 2019)."""
    return mim(model, x, y, see=diversity(probability, shrink), smooth=smoothing(kernel), **common)


def ni(model: Classifier, x: Images, y: Labels, **common: Unpack[Iterated]) -> Images:
    """`mim` with the gradient taken one step of the momentum ahead (NI-FGSM, Lin et al. 2020)."""
    return mim(model, x, y, nesterov=True, **common)


def si_ni(model: Classifier, x: Images, y: Labels, *, copies: int = 5, **common: Unpack[Iterated]) -> Images:
    """`ni` on the image and its halves (SI-NI-FGSM, Lin et al. 2020): `copies` passes a step."""
    return mim(model, x, y, see=scales(copies), nesterov=True, **common)


def vmi(
    model: Classifier, x: Images, y: Labels, *, samples: int = 20, beta: float = 1.5, **common: Unpack[Drawn]
) -> Images:
    """`mim` with variance tuning (Wang and He 2021): 1 + `samples` passes a step, neighbours within `beta` · eps."""
    return mim(model, x, y, estimate=variance(samples, beta), **common)


def vni(
    model: Classifier, x: Images, y: Labels, *, samples: int = 20, beta: float = 1.5, **common: Unpack[Drawn]
) -> Images:
    """`vmi` taken one step of the momentum ahead (Wang and He 2021)."""
    return mim(model, x, y, estimate=variance(samples, beta), nesterov=True, **common)


def admix(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    others: int = 3,
    portion: float = 0.2,
    copies: int = 5,
    **common: Unpack[Drawn],
) -> Images:
    """`mim` on images with a `portion` of others added, and on their halves (Wang et al. 2021): `others` · `copies` passes a step."""
    return mim(model, x, y, see=chain(mixed(others, portion), scales(copies)), **common)


def ssa(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    samples: int = 20,
    sigma: float = 16 / 255,
    rho: float = 0.5,
    **common: Unpack[Drawn],
) -> Images:
    """`mim` on images with noise and a shaken spectrum (SSA, Long et al. 2022): `samples` passes a step."""
    return mim(model, x, y, see=spectrum(samples, sigma, rho), **common)


def bsr(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    samples: int = 20,
    blocks: int = 2,
    angle: float = 24.0,
    **common: Unpack[Drawn],
) -> Images:
    """`mim` on images whose blocks are shuffled and turned (BSR, Wang et al. 2024): `samples` passes a step."""
    return mim(model, x, y, see=shuffled(samples, blocks, angle), **common)


def sia(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    samples: int = 20,
    blocks: int = 3,
    turns: bool = True,
    **common: Unpack[Drawn],
) -> Images:
    """`mim` on images whose blocks are each changed in a way of its own (SIA, Wang, Zhang and Zhang 2023): `samples` passes a step."""
    return mim(model, x, y, see=structures(samples, blocks, turns), **common)


def pgn(
    model: Classifier,
    x: Images,
    y: Labels,
    *,
    samples: int = 20,
    zeta: float = 3.0,
    delta: float = 0.5,
    **common: Unpack[Drawn],
) -> Images:
    """`mim` with the norm of the gradient penalised (PGN, Ge et al. 2023): 2 · `samples` passes a step, neighbours within `zeta` · eps."""
    return mim(model, x, y, estimate=flat(samples, zeta, delta), **common)
