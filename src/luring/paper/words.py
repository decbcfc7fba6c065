"""How names and figures are written, the same in a terminal, in Markdown and on the page."""

from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from math import isfinite

ARCHITECTURES = {
    "base": "Base (M)",
    "stack": "Stack",
    "auto": "Auto",
    "c_e": "C_E",
    "luring": "Luring",
    "luring_alt": "L'",
}
_ATTACKS = {
    "fgsm": "FGSM",
    "bim": "BIM",
    "pgd": "PGD",
    "mim": "MIM",
    "miml2": "MIML2",
    "dim": "DIM",
    "mim-ti": "MIM-TI",
    "dim-ti": "DIM-TI",
    "ni": "NI",
    "si-ni": "SI-NI",
    "vmi": "VMI",
    "vni": "VNI",
    "admix": "Admix",
    "ssa": "SSA",
    "bsr": "BSR",
    "bsr-digits": "BSR, nothing turned",
    "sia": "SIA",
    "sia-digits": "SIA, nothing turned",
    "pgn": "PGN",
    "apgd": "APGD",
    "apgd-t": "APGD-T",
    "fab": "FAB-T",
    "square": "Square",
    "spsa": "SPSA",
    "nes": "NES",
    "zoo": "ZOO",
    "parsimonious": "Parsimonious",
    "hop-skip-jump": "HopSkipJump",
    "boundary": "Boundary",
}
# Those of whose papers the settings on ImageNet are presets of their own.
_TRANSFER = ("mim", "dim", "mim-ti", "dim-ti", "ni", "si-ni", "vmi", "vni", "admix", "ssa", "bsr", "sia", "pgn")
ATTACKS = _ATTACKS | {f"{name}-imagenet": f"{_ATTACKS[name]}, ImageNet settings" for name in _TRANSFER}
DATASETS = {"toy": "Toy", "digits": "Digits", "mnist": "MNIST", "svhn": "SVHN", "cifar10": "CIFAR10"}
SCALES = {
    "demo": "demo scale",
    "quick": "quick scale",
    "paper": "paper scale",
    "research": "trials of recipes",
    "custom": "your own networks",
}
TABLES = {"svhn": "Table 3", "cifar10": "Table 4"}
COMPLETE = {"mnist": (60_000, 10_000), "svhn": (73_257, 26_032), "cifar10": (50_000, 10_000)}
"""Images of the published data sets, to train and to test on."""
RATES = {"ac_mop": "AC_M∘P", "ac_m": "AC_M", "dac": "DAC", "dr": "DR", "adq": "Adq"}

MINUS = "\N{MINUS SIGN}"
MISSING = "\N{EN DASH}"
"""Stands where there is no figure: never 0."""
SHORT = "▼"
"""Marks a figure below the paper's by more than its tolerance."""
BEST = "*"
"""Marks the best DAC of a line."""


def architecture(name: str) -> str:
    """'Base (M)' for `base`; a name of your own as it is."""
    return ARCHITECTURES.get(name, name)


def attack(name: str) -> str:
    """'MIM-TI' for `mim-ti`."""
    return {"worst": "Worst", "worst-paper": "Worst, paper's"}.get(name, ATTACKS.get(name, name))


def section(dataset: str, scale: str, source: Mapping[str, int] | None = None) -> str:
    """'MNIST, paper scale', or 'SVHN part, 10 854 / 1 952, quick scale' where there were fewer images than the published data set has."""
    name, part = DATASETS.get(dataset, dataset), ""
    if source and dataset in COMPLETE and (sizes := (source["train"], source["test"])) != COMPLETE[dataset]:
        part = " part, " + " / ".join(f"{size:,}".replace(",", "\N{NO-BREAK SPACE}") for size in sizes)
    return f"{name}{part}, {SCALES.get(scale, scale)}"


def table(dataset: str) -> str:
    """The paper's table of transfers of a data set; Table 2 for those that it does not have."""
    return TABLES.get(dataset, "Table 2")


def cell(attack_name: str, eps: float) -> str:
    """'MIM at ε 0.3'."""
    return f"{attack(attack_name)} at ε {eps:g}"


def listing(parts: Iterable[str]) -> str:
    """'a, b and c'."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def number(value: float, digits: int = 2) -> str:
    """Rounded as by hand (0.125 is 0.13); '–' where there is none."""
    if not isfinite(value):
        return MISSING
    # Float noise (0.28499999999999998) goes before the half is rounded.
    rounded = Decimal(repr(round(value, 9))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return str(abs(rounded) if rounded == 0 else rounded).replace("-", MINUS)


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign, none on zero; '–' where there is none."""
    shown = number(value, digits)
    return f"+{shown}" if value > 0 and shown.strip("0.") else shown


def duration(seconds: float) -> str:
    """'48 s', '12 min', '3 h 5 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
