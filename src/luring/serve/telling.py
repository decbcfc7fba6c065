"""What happened, in a sentence: from the answers to a clean image and to an attacked one."""

from collections.abc import Sequence

from luring.guard import Detector
from luring.serve.attempt import Look


def told(label: int, classes: Sequence[str], clean: Look, now: Look) -> str:
    """One plain sentence: who was fooled.

    Args:
        label: that the attack goes away from, taken for the truth.
        classes: names.
        clean: the look at the clean image.
        now: the look to tell of.
    """
    truth, m, mop = (classes[place] for place in (label, int(now.m.argmax()), int(now.mop.argmax())))
    if now.step == 0:
        if m == mop:
            return f"Nothing is attacked yet: the decoy and the classifier behind it both answer {m}."
        return f"Nothing is attacked yet, and the decoy answers {mop} where the classifier answers {m}."
    if int(clean.mop.argmax()) != label:
        return f"The decoy was wrong before any attack; now it answers {mop}, and the classifier {m}, where {truth} is right."
    if mop == truth and m == truth:
        return f"Nobody is fooled: the decoy and the classifier both still answer {truth}."
    if mop == truth:
        return f"The decoy, all that the adversary sees, still answers {truth}; but the classifier now answers {m}."
    if m == truth:
        return f"Lured: the adversary fooled the decoy into {mop}, but the classifier still answers {truth}."
    if m != mop:
        return f"Lured in part: the adversary fooled the decoy into {mop}, but the classifier into {m}, so the two disagree."
    return f"Not lured: what fools the decoy into {mop} fools the classifier too."


def judged(label: int, now: Look) -> tuple[str, str]:
    """The guard's verdict, and what it means here."""
    right = int(now.m.argmax()) == label
    if now.flagged:
        if now.step == 0:
            return "Flagged", "a false alarm" if right else "the classifier's answer is wrong, and does not go out"
        return "Flagged", "the attack was noticed; the classifier's answer does not go out"
    return "Let through", (
        "the classifier's answer goes out, and is right" if right else "a wrong answer goes out, unnoticed"
    )


def by_what(detector: Detector, own: bool, now: Look) -> str:
    """What the verdict rests on.

    Args:
        detector: that gave it.
        own: whether it is the bundle's.
        now: the look that it was given on.
    """
    if not own:
        return "By bare agreement, flagged where the two disagree: this bundle has no guard, 'luring calibrate' sets one up."
    if detector.fpr is None:
        return f"By the bundle's guard, policy {detector.policy}."
    return f"Score {now.score:.3g}, threshold {detector.threshold:.3g}, set for false alarms on {100 * detector.fpr:g} % of clean images."
