"""An audit in plain words, made from its figures."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from luring.audit import tables
from luring.audit.budget import ADVERSARIAL, ADVERSARIAL_LURE, AUTOENCODER, BASE, C_E, TRAPDOOR, TWIN
from luring.audit.tables import Guarded, Outcome
from luring.paper import words
from luring.paper.words import MISSING, listing, number
from luring.rows import Row

ADVERSARIES: Mapping[int, tuple[str, str]] = {
    0: ("Nobody", "clean images"),
    1: ("Unaware, white box", "has the weights of what is deployed, and takes it for the classifier"),
    2: ("Unaware, black box", "queries it for scores or labels"),
    3: ("Never touches it", "trains models of his own on the same data, or on its answers"),
    4: ("Suspicious", "cuts M∘P at every layer, or puts something else in P's place"),
    5: ("Knows everything", "has M, M∘P, the policy and its threshold, and all gradients"),
    6: ("Sees the decision", "searches by the label that is let out, or the refusal, alone"),
}
"""By rung: a name, and what he knows."""

DEFENCES = {
    BASE: "M alone",
    TWIN: "M and a twin",
    C_E: "C_E lure",
    AUTOENCODER: "Autoencoder (KL)",
    TRAPDOOR: "M with trapdoors",
    ADVERSARIAL: "M, adversarially trained",
    ADVERSARIAL_LURE: "Adversarial M with a lure",
}

POLICIES = {
    "target": "every answer goes out",
    "agreement": "agree or reject",
    "confidence": "M's confidence",
    "score": "score",
    "kl": "KL divergence",
    "signature": "trapdoors' signatures",
}

CHECKS = {
    "repeat": "the same image has the same answer",
    "gradient": "gradients are finite, not zero, and agree with finite differences",
    "radius": "a larger ε never helps the defender",
    "steps": "more steps never help the defender",
    "bound": "with ε = 1 nothing is left",
    "ball": "examples lie in [0, 1] and within ε",
    "order": "who has the gradient is ahead",
}


def defence(name: str) -> str:
    """'M and a twin' for `twin`; Luring for `luring`."""
    return DEFENCES.get(name, words.architecture(name))


def policy(name: str) -> str:
    """'agree or reject' for `agreement`."""
    return POLICIES.get(name, name)


def attack(name: str) -> str:
    """'joint' as it is, 'MIM' for `mim`."""
    return {"features": "Features", "joint": "Joint", "none": MISSING}.get(name, words.attack(name))


def share(value: float) -> str:
    """'12 %'; '–' where there is none."""
    return MISSING if isnan(value) else f"{number(100 * value, 0)} %"


def fine(value: float) -> str:
    """'1.2 %'."""
    return MISSING if isnan(value) else f"{number(100 * value, 1)} %"


def spread(outcome: Outcome) -> str:
    """'8 to 17 %'; over several seeds '8 to 17 %, ± 3'."""
    text = f"{number(100 * outcome.low, 0)} to {number(100 * outcome.high, 0)} %"
    return text if isnan(outcome.fooled.spread) else f"{text}, ± {number(100 * outcome.fooled.spread, 0)}"


def told(rows: Sequence[Row]) -> list[str]:
    """What a section's rows say, a sentence or two a paragraph."""
    guarded = tables.guarded(rows)
    guard, eps = guarded[0], next(float(row["eps"]) for row in rows if "eps" in row)
    base = next((one for one in guarded if (one.architecture, one.policy) == (BASE, "target")), None)
    found = [_clean(guard, rows), _unaware(guard, base, eps)]
    found += [text for text in (_elsewhere(guard, base), _knowing(guard, base), _worth(guard, base)) if text]
    found += [text for text in (_rivals(guarded), _dearer(guarded), _denied(rows, guard)) if text]
    return found


def _clean(guard: Guarded, rows: Sequence[Row]) -> str:
    n = next(row["n"] for row in rows if row["kind"] == "clean")
    return (
        f"Of {n:,} clean test images M is right on {fine(guard.accuracy.mean)}, and the guard ({policy(guard.policy)}) rejects "
        f"{fine(guard.rejected.mean)}."
    )


def _fooled(guard: Guarded, rung: int, base: Guarded | None) -> str:
    """'12 % (8 to 17 %; M alone 90 %)'."""
    beside = [spread(guard.rungs[rung])]
    if base is not None and rung in base.rungs:
        beside.append(f"M alone {share(base.rungs[rung].fooled.mean)}")
    return f"{share(guard.rungs[rung].fooled.mean)} ({'; '.join(beside)})"


def _unaware(guard: Guarded, base: Guarded | None, eps: float) -> str:
    text = f"Within ε {eps:g}, an adversary who takes what he sees for the classifier and has its weights gets a wrong answer past the guard on "
    text += _fooled(guard, 1, base)
    return text + (
        f" of the images; one who only queries it, on {_fooled(guard, 2, base)}."
        if 2 in guard.rungs
        else " of the images."
    )


def _elsewhere(guard: Guarded, base: Guarded | None) -> str:
    parts: list[str] = []
    if 3 in guard.rungs:
        parts.append(
            f"One who trains models of his own, and never needs the deployed one's weights, does on {_fooled(guard, 3, base)}"
        )
    if 4 in guard.rungs:
        parts.append(f"one who suspects a P and cuts it off, on {_fooled(guard, 4, None)}")
    return "; ".join(parts) + "." if parts else ""


def _knowing(guard: Guarded, base: Guarded | None) -> str:
    parts: list[str] = []
    if 5 in guard.rungs:
        parts.append(f"One who knows everything does on {_fooled(guard, 5, base)}")
    if 6 in guard.rungs:
        parts.append(f"one who sees no more than each decision, on {_fooled(guard, 6, base)}")
    return "; ".join(parts) + "." if parts else ""


def _worth(guard: Guarded, base: Guarded | None) -> str:
    """Where the guard is better than none at all, by more than chance."""
    if base is None:
        return ""
    verdicts = {
        rung: tables.better(guard.rungs[rung], base.rungs[rung])
        for rung in tables.RUNGS
        if rung in guard.rungs and rung in base.rungs
    }
    helps = [ADVERSARIES[rung][0].lower() for rung, verdict in verdicts.items() if verdict]
    open_ = [ADVERSARIES[rung][0].lower() for rung, verdict in verdicts.items() if verdict is None]
    harms = [ADVERSARIES[rung][0].lower() for rung, verdict in verdicts.items() if verdict is False]
    parts: list[str] = []
    if helps:
        parts.append(f"It lets less through than M alone would against the adversaries “{'”, “'.join(helps)}”")
    if open_:
        parts.append(f"these images do not show that it helps against “{'”, “'.join(open_)}”")
    if harms:
        # Rivals are attacked with fewer queries and targets: M alone might let as much through.
        parts.append(f"it lets more through against “{'”, “'.join(harms)}”, where less was spent on M alone")
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "."


def _rivals(guarded: Sequence[Guarded]) -> str:
    """The rivals that let less through than the guard, or no more, by adversary."""
    guard, others = guarded[0], tables.rivals(guarded)
    told_: list[str] = []
    for rung in (1, 3, 5):
        beside = [one for one in others if rung in one.rungs]
        if not beside or rung not in guard.rungs:
            continue
        best = min(beside, key=lambda one: one.rungs[rung].fooled.mean)
        told_.append(
            f"“{ADVERSARIES[rung][0].lower()}” {share(best.rungs[rung].fooled.mean)} ({defence(best.architecture)}, {policy(best.policy)}; "
            f"the guard {share(guard.rungs[rung].fooled.mean)})"
        )
    if not told_:
        return ""
    return f"The best rival, each with its threshold set on clean images, is fooled by {listing(told_)}."


def _dearer(guarded: Sequence[Guarded]) -> str:
    """What an adversary who knows everything fools less often than the guard, at a price in accuracy that makes it no rival."""
    guard = guarded[0]
    others = [one for one in tables.dearer(guarded) if 5 in one.rungs]
    if 5 not in guard.rungs or not others:
        return ""
    least = min(others, key=lambda one: one.rungs[5].fooled.mean)
    if tables.better(least.rungs[5], guard.rungs[5]) is not True:
        return ""
    return (
        f"Who knows everything fools {defence(least.architecture)} ({policy(least.policy)}) on {share(least.rungs[5].fooled.mean)}; its price is accuracy, "
        f"{fine(least.accuracy.mean)} of the clean images."
    )


def _denied(rows: Sequence[Row], guard: Guarded) -> str:
    mine = [one for one in tables.denials(rows) if (one.architecture, one.policy) == (guard.architecture, guard.policy)]
    if not mine:
        return ""
    (one,) = mine
    median = one.quartiles[1].mean
    half = "" if isnan(median) else f", half of them by moving no value by more than {number(median, 3)}"
    return f"Whoever wants refusals, not wrong answers, and knows everything, can have {share(one.rejected.mean)} of the clean images rejected{half}."


def verdict(checks: Sequence[Mapping[str, Any]]) -> str:
    """Whether the figures may be believed."""
    failed = [check for check in checks if not check["passed"]]
    if not checks:
        return "The audit was not checked: these rows hold no sanity checks."
    if not failed:
        return f"All {len(checks)} sanity checks passed."
    return (
        f"{len(failed)} of {len(checks)} sanity checks failed. Something keeps the attacks from working as they should, most often gradients that do "
        "not say what the answers do: the figures below may be far too good for the defender."
    )


def check(one: Mapping[str, Any]) -> str:
    """'On M∘P: more steps never help the defender: fooled 55 %, 65 %, 65 % at 5, 10, 20.'."""
    figures = one["figures"]
    text = f"{one['on']}: {CHECKS[one['name']]}"
    if one["name"] in ("radius", "steps"):
        at = ", ".join(f"{value:g}" for value in figures["at"])
        return f"{text}; fooled {', '.join(share(value) for value in figures['fooled'])} at {at}."
    if one["name"] == "bound":
        return f"{text}; fooled {share(figures['fooled'])}."
    if one["name"] == "order":
        first, second = figures["by"]
        return f"{text}; {first} fooled {share(figures['white'])}, {second} {share(figures['black'])}, on the same {figures['n']} images."
    if one["name"] == "gradient":
        finite = "finite" if figures["finite"] else "not finite"
        return f"{text}; {finite}, not zero on {share(figures['moving'])} of the images, off along {share(figures['off'])} of the directions."
    if one["name"] == "repeat":
        return f"{text}; two answers differ by {figures['difference']:.1e} of the largest logit."
    return f"{text}; furthest outside {figures['excess']:.1e}."
