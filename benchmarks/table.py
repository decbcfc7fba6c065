"""The tables of benchmarks in docs (attacks, training, research, serving, export) and results/README.md, drawn from stored rows: `python benchmarks/table.py`."""

from pathlib import Path

from luring import rows
from luring.paper.printed import as_table
from luring.paper.words import MISSING
from luring.paper.words import attack as name_of
from luring.rows import Row

LIBRARIES = {
    "luring": "Luring",
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "cleverhans": "CleverHans",
    "art": "ART",
    "adv_lib": "adversarial-library",
}


def markdown(found: list[Row]) -> str:
    """Speed and memory of the gradient attacks, then the share of the time that attacks by queries spend in the model."""
    return "\n\n".join((_steps(found), _queries(found)))


def _steps(found: list[Row]) -> str:
    """Shares of the bare steps' seconds, a line a network and attack, the fastest in bold; and our memory over theirs."""
    speed = rows.select(found, kind="speed")
    lines = [
        f"| network | attack | {' | '.join(LIBRARIES.values())} | memory |",
        f"|---|---|{'--:|' * (len(LIBRARIES) + 1)}",
    ]
    for network, attack in dict.fromkeys((row["dataset"], row["attack"]) for row in speed):
        cells = {row["architecture"]: row for row in rows.select(speed, dataset=network, attack=attack)}
        fastest = min(cells.values(), key=lambda row: row["of_floor"])
        shown = [f"{cells[name]['of_floor']:.2f}" if name in cells else MISSING for name in LIBRARIES]
        bold = [
            f"**{text}**" if cells.get(name) is fastest else text for name, text in zip(LIBRARIES, shown, strict=True)
        ]
        memory = rows.select(found, kind="memory", dataset=network, attack=attack)
        bold.append(f"{memory[-1]['over_floor']:+.0f}" if memory else MISSING)
        lines.append(f"| {network} | {name_of(attack)} | {' | '.join(bold)} |")
    return "\n".join(lines)


def _queries(found: list[Row]) -> str:
    """A line an attack, a column a network."""
    queries = rows.select(found, kind="queries")
    networks = list(dict.fromkeys(row["dataset"] for row in queries))
    lines = [f"| attack | {' | '.join(networks)} |", f"|---|{'--:|' * len(networks)}"]
    for attack in dict.fromkeys(row["attack"] for row in queries):
        cells = {row["dataset"]: row for row in rows.select(queries, attack=attack)}
        shown = [f"{cells[name]['in_model']:.0%}" if name in cells else MISSING for name in networks]
        lines.append(f"| {name_of(attack)} | {' | '.join(shown)} |")
    return "\n".join(lines)


def fitting(found: list[Row]) -> str:
    """The table of docs/training.md: the loop beside bare passes, and memory over a long run."""
    lines = [
        "| target, lure | on | precision | images | batch | images/s | of the bare passes | waiting for images |",
        "|---|---|---|---|--:|--:|--:|--:|",
    ]
    for row in rows.select(found, kind="fitting"):
        low, high = row["of_bare_range"]
        lines.append(
            f"| {row['dataset']} | {row['hardware']['gpu'] if row['settings']['device'] != 'cpu' else 'CPU'} | {row['settings']['precision']} "
            f"| {row['settings']['place']} | {row['settings']['batch']} | {row['images_per_second']:.0f} "
            f"| {row['of_bare']:.2f} ({low:.2f} to {high:.2f}) | {row['waiting']:.1%} |"
        )
    long = [
        f"Over {row['n']} steps of the smallest ({row['resident'] / 2**20:.0f} MiB) memory grew by {row['grown'] / 2**20:.1f} MiB "
        "between the second and the last tenth."
        for row in rows.select(found, kind="endurance")
    ]
    return "\n".join([*lines, "", *long])


def step_costs(found: list[Row]) -> str:
    """The table of docs/research.md: a step of each recipe beside one of the paper's."""
    costs = [row for row in rows.select(found, kind="step_cost") if row["architecture"] != "paper"]
    measured = list(dict.fromkeys(row["dataset"] for row in costs))
    lines: list[list[str]] = []
    for name in dict.fromkeys(row["architecture"] for row in costs):
        cells = {row["dataset"]: row for row in rows.select(costs, architecture=name)}
        spans = [(cells[dataset]["of_paper"], *cells[dataset]["of_paper_range"]) for dataset in measured]
        lines.append([f"`{name}`", *(f"{median:.1f} ({low:.1f} to {high:.1f})" for median, low, high in spans)])
    used = {row["dataset"]: row["settings"] for row in costs}
    head = [f"{used[dataset]['target']}, {used[dataset]['lure']}" for dataset in measured]
    return as_table(["recipe", *head], lines, names=1)


def serving(found: list[Row]) -> str:
    """The tables of docs/serving.md: each server under load, and the guard beside the bare target."""
    head = [
        "server",
        "images/s",
        "of the bare loop",
        "p50, s",
        "p99, s",
        "at four times the load: p99, s",
        "turned away",
        "MiB before, after, after four times the load",
    ]
    loaded: list[list[str]] = []
    for row in rows.select(found, kind="serving"):
        load, more = row["load"], row["load_times_4"]
        answered = more["statuses"].get("200", 0) / sum(more["statuses"].values())
        figures = [f"{took:.2f}" for took in (row["of_bare"], load["p50"], load["p99"], more["p99"])]
        memory = ", ".join(map(str, row["mib"]))
        loaded.append([row["architecture"], f"{row['images_per_second']:.0f}", *figures, f"{1 - answered:.0%}", memory])
    costs: list[list[str]] = []
    for row in rows.select(found, kind="guard_cost"):
        target, lure = row["settings"]["multiply_adds"]
        shown = [
            f"{row[batch]['of_target']:.1f} ({low:.1f} to {high:.1f})"
            for batch in ("batch_1", "batch_128")
            for low, high in [row[batch]["of_target_range"]]
        ]
        name, made = row["settings"]["lure"], row["architecture"]
        costs.append(
            [
                made if name == made else f"{name} ({made})",
                row["dataset"],
                row["hardware"]["cpu"],
                f"{lure / target:.2f}",
                *shown,
            ]
        )
    beside = [
        "lure",
        "images",
        "CPU",
        "of the target's multiply-adds",
        "guard over target, one image",
        "guard over target, 128 images",
    ]
    return "\n\n".join((as_table(head, loaded, names=1), as_table(beside, costs, names=3)))


def exported(found: list[Row]) -> str:
    """The table of docs/export.md: the files of a bundle, and how near their answers are to the networks'."""
    head = ["form", "file", "MB", "images", "largest difference", "labels"]
    lines = [
        [
            row["architecture"],
            name,
            f"{row[name]['bytes'] / 1e6:.1f}",
            f"{row['n']:,}",
            f"{row[name]['largest_difference']:.1e}",
            "the same" if row[name]["labels_same"] else "differ",
        ]
        for row in rows.select(found, kind="export")
        for name in ("decoy", "decision")
    ]
    return as_table(head, lines, names=2)


CLASSIFIERS = {
    "timm-resnet": "timm ResNet, CIFAR10, 10 classes",
    "timm-vit": "timm vision transformer, MNIST at 32 pixels",
    "transformers-vit": "transformers' vision transformer, Fashion-MNIST",
    "program": "program of torch.export, digits of 8 by 8",
    "onnx-resnet": "ResNet as an ONNX file, CIFAR10, 2 classes",
}
"""Folders of `classifiers.py`."""

KEYS = ("ac_mop", "ac_m", "dac")


def classifiers(folder: Path) -> str:
    """The table of results/README.md: classifiers of other libraries, protected and attacked."""
    head = ["classifier", "M", "M∘P", "ε", "MIM", "DIM-TI"]
    lines: list[list[str]] = []
    for name, shown in CLASSIFIERS.items():
        found = rows.read(folder / name / "rows.jsonl")
        right = {row["architecture"]: row["test_accuracy"] for row in rows.select(found, kind="accuracy")}
        attacked = {row["attack"]: row for row in rows.select(found, kind="transfer")}
        cells = [" / ".join(f"{attacked[attack][key]:.2f}" for key in KEYS) for attack in ("mim", "dim-ti")]
        lines.append([shown, f"{right['base']:.3f}", f"{right['luring']:.3f}", f"{attacked['mim']['eps']:g}", *cells])
    return as_table(head, lines, names=1)


if __name__ == "__main__":
    stored, root = rows.read(Path(__file__).parent / "rows.jsonl"), Path(__file__).parents[1]
    every = (
        markdown(stored),
        fitting(stored),
        step_costs(stored),
        serving(stored),
        exported(stored),
        classifiers(root / "results/classifiers"),
    )
    print(*every, sep="\n\n")
