"""`luring demo`."""

from pathlib import Path

from luring.cli.app import Device, Seed, app, say
from luring.cli.experiment import run


@app.command
def demo(seed: Seed = 0, device: Device = "auto", out: Path = Path("luring-demo")) -> None:
    """Fit lures to a small classifier of handwritten digits, attack them, and show what came of it: one minute on two cores.

    Trains a target M, fits Stack, C_E and Luring in front of it, attacks each decoy with FGSM, MIM and DIM-TI at three eps, and shows
    the examples to M. Everything lies in the output folder: rows.jsonl (every number with its settings), report.html, the networks.
    The luring loss is used with a bounded gap (lam 0.3, gap at most 15 logits), which costs less accuracy than the paper's.

    Args:
        seed: of everything.
        device: where to compute.
        out: folder for the results; a second run with the same folder goes on where the first stopped.
    """
    run("digits", "demo", seed, device, out)
    say(
        "\nRead each line so: examples that fool the decoy M∘P (its accuracy near 0) leave M right, or the two disagree: that is DAC.",
        "\nNext: 'luring reproduce mnist --scale quick' (nearly the paper's networks), 'luring fit --help' (your own images).",
    )
