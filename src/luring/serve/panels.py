"""What the playground shows of a look, as HTML: the sentence and the verdict; five pictures and two sets of answers."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image
from torch import Tensor

from luring.guard import Detector
from luring.serve.attempt import Look
from luring.serve.telling import by_what, judged, told

BARS = 10
"""Classes shown: all where there are no more."""


def said(label: int, classes: Sequence[str], clean: Look, now: Look, detector: Detector, *, own: bool) -> str:
    """Who is fooled, the verdict, and what it rests on.

    Args:
        label: that the attack goes away from.
        classes: names.
        clean: the look at the clean image.
        now: the look at the attacked one; the same where nothing is attacked yet.
        detector: that the verdict is of.
        own: whether it is the bundle's.
    """
    verdict, meaning = judged(label, now)
    mark = "flagged" if now.flagged else "passed"
    return (
        f'<p class="told">{escape(told(label, classes, clean, now))}</p>'
        f'<p class="judged"><b class="verdict {mark}">{verdict}</b> {escape(meaning)}.</p>'
        f'<p class="quiet">{escape(by_what(detector, own, now))}</p>'
    )


def seen(label: int, classes: Sequence[str], clean: Look, now: Look) -> str:
    """The pictures and the answers; arguments as for `said`."""
    return (
        _pictures(clean, now)
        + '<div class="answers">'
        + _answers("M∘P, the decoy: what the adversary sees", label, classes, clean.mop, now.mop)
        + _answers("M, the classifier: for the operator alone", label, classes, clean.m, now.m)
        + "</div>"
    )


def refusal(sentence: str) -> str:
    """A sentence that says what is wrong."""
    return f'<p class="told refused">{escape(sentence[:1].upper() + sentence[1:])}</p>'


def _pictures(clean: Look, now: Look) -> str:
    change = now.image - clean.image
    largest = float(change.abs().max())
    shown = [_picture(clean.image, "x", "the image"), _picture(clean.lured, "P(x)", "what the lure makes of it")]
    if now.step:
        scaled = 0.5 + change / (2 * largest) if largest else change + 0.5
        shown += [
            _picture(now.image, "x\N{PRIME}", f"attacked, step {now.step}"),
            _picture(now.lured, "P(x\N{PRIME})", "what the lure makes of it"),
            _picture(scaled, "x\N{PRIME} \N{MINUS SIGN} x", f"the change, at most {largest:.3f}; grey is none"),
        ]
    return f'<ul class="pictures">{"".join(shown)}</ul>'


def _picture(image: Tensor, title: str, text: str) -> str:
    return f'<li><img src="{_png(image)}" alt="{title}: {text}"><b>{title}</b> {text}</li>'


def _png(image: Tensor) -> str:
    """A data URL."""
    values = (image.clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values).save(written, "PNG")
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()


def _answers(title: str, label: int, classes: Sequence[str], before: Tensor, now: Tensor) -> str:
    """The probabilities now as bars; the classes that are most likely, in their own order."""
    places: list[int] = sorted(now.argsort(descending=True)[:BARS].tolist())
    first, answer = int(before.argmax()), int(now.argmax())
    text = f"{classes[answer]} ({float(now[answer]):.0%})"
    if before is not now:
        text = f"{classes[first]} ({float(before[first]):.0%}) → {text}"
    wrong = " wrong" if answer != label else ""
    rows = "".join(
        f'<tr{" class=first" if place == answer else ""}><th scope="row">{escape(classes[place])}</th>'
        f'<td><span class="bar" style="width:{100 * float(now[place]):.1f}%"></span></td><td>{float(now[place]):.0%}</td></tr>'
        for place in places
    )
    return (
        f'<section><h2>{title}</h2><p class="answer{wrong}">{escape(text)}</p>'
        f'<table><thead class="unseen"><tr><th scope="col">class</th><th scope="col">bar</th><th scope="col">probability</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></section>"
    )
