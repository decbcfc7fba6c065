"""The table of docs/attacks.md from the rows of the benchmark: `python benchmarks/table.py`."""

from pathlib import Path

from luring import rows
from luring.paper.words import MISSING
from luring.paper.words import attack as name_of
from luring.rows import Row

LIBRARIES = {
    "luring": "Luring",
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "cleverhans": "CleverHans",
    "art": "ART",
}


def markdown(found: list[Row]) -> str:
    """Seconds as shares of the floor, a line a network and attack; the fastest in bold."""
    found = rows.select(found, kind="speed")
    lines = [f"| network | attack | {' | '.join(LIBRARIES.values())} |", f"|---|---|{'--:|' * len(LIBRARIES)}"]
    for network, attack in dict.fromkeys((row["dataset"], row["attack"]) for row in found):
        cells = {row["architecture"]: row for row in rows.select(found, dataset=network, attack=attack)}
        fastest = min(cells.values(), key=lambda row: row["of_floor"])
        shown = [f"{cells[name]['of_floor']:.2f}" if name in cells else MISSING for name in LIBRARIES]
        bold = [
            f"**{text}**" if cells.get(name) is fastest else text for name, text in zip(LIBRARIES, shown, strict=True)
        ]
        lines.append(f"| {network} | {name_of(attack)} | {' | '.join(bold)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(rows.read(Path(__file__).parent / "rows.jsonl")))
