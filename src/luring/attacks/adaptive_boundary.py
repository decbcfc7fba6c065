"""Fast Adaptive Boundary attack (Croce and Hein 2020, 'Minimally distorted adversarial examples'): the nearest image that fools the model."""

import torch
from torch import Tensor

from luring import answers
from luring.answers import check_logits
from luring.attacks import checks, watched
from luring.attacks.balls import TINY, linf
from luring.attacks.forms import like, shown, working
from luring.attacks.objectives import own, wrong_classes
from luring.attacks.quick import quick
from luring.frozen import frozen
from luring.types import Classifier, Images, Labels

BIAS = 0.1
"""Largest weight of the step from the clean image, the paper's alpha_max."""

OVERSHOOT = 1.05
"""How far beyond the boundary a step goes, η."""

BACK = 0.9
"""Share of its way from the clean image that one which fools the model goes on from, β."""


def fab(model: Classifier, x: Images, y: Labels, *, eps: float, steps: int, targets: int = 9) -> Images:
    """The nearest image in l∞ that fools the model, towards one class after the other (FAB-T, as AutoAttack has it), where it lies in the ball.

    Where `apgd` climbs within a ball, this one walks along the boundary of the model, taken for a plane at every step, and ever nearer to the clean image. It
    needs neither the length of a step nor the scale of the logits.

    Args:
        model: images to logits; a forward pass, and at most `targets` · `steps` forward and backward, and as many forward.
        x: clean images, [batch, channels, height, width], of any floating-point type, values in [0, 1].
        y: true labels, [batch], int64: what counts is that the model does not answer them.
        eps: radius of the ball around `x`, in units of `x`; an image fooled within it is done.
        steps: number of steps towards each class.
        targets: how many classes to go towards: those with the highest logits of the clean image, all others where there are fewer.

    Returns:
        Images in [0, 1] within `eps` of `x`, detached, same shape, dtype and memory format as `x`: the nearest found that fools the model, and `x` itself
        where none was found.

    Raises:
        InputError: a value of `x` outside [0, 1] or not finite, a setting out of range, shapes that do not match, or a model whose output is not
            [batch, classes].
    """
    checks.pictures(x, y)
    checks.number("eps", eps)
    checks.count("steps", steps)
    checks.count("targets", targets)
    if not len(x):
        return x.clone()
    with torch.inference_mode(False), torch.enable_grad(), frozen(model):
        given, x, y = x, working(x), y.clone()
        model = shown(quick(model, given), given)
        logits = answers.logits(model, x)
        checks.labels(y, logits.shape[1])
        wrong = logits.argmax(1) != y
        best, nearest = x.clone(), x.new_full((len(x),), torch.inf).masked_fill(wrong, 0)
        for classes in wrong_classes(logits, y, targets):
            left = (nearest > eps).nonzero().squeeze(1)
            if not len(left):
                break
            found, distance = _walk(model, x[left], y[left], classes[left], steps)
            closer = distance < nearest[left]
            best[left[closer]], nearest[left[closer]] = found[closer], distance[closer]
        reached = (nearest <= eps).view(-1, 1, 1, 1)
        return like(linf(x, eps).project(torch.where(reached, best, x)), given)


def _walk(model: Classifier, x: Tensor, y: Tensor, wanted: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Algorithm 1 towards one class: the nearest image that fools the model, and how far it is; infinity where there is none."""
    images, best, nearest = x, x.clone(), x.new_full((len(x),), torch.inf)
    for _ in range(steps):
        leaf = images.detach().requires_grad_()
        logits = check_logits(model(leaf), len(leaf))
        lead = own(logits, wanted) - own(logits, y)
        (slope,) = torch.autograd.grad(lead.sum(), leaf)
        checks.finite(slope)
        lead = lead.detach().to(x.dtype)
        near = _to_plane(images, slope, -lead)
        far = _to_plane(x, slope, -lead - (slope * (x - images)).flatten(1).sum(1))
        own_length, clean_length = _length(near), _length(far)
        share = (own_length / (own_length + clean_length).clamp_min(TINY)).clamp_max(BIAS).view(-1, 1, 1, 1)
        images = ((1 - share) * (images + OVERSHOOT * near) + share * (x + OVERSHOOT * far)).clamp_(0, 1)
        watched.step(images)
        with torch.no_grad():
            fooled = check_logits(model(images), len(images)).argmax(1) != y
        distance = _length(images - x)
        closer = fooled & (distance < nearest)
        best[closer], nearest[closer] = images[closer], distance[closer]
        images = torch.where(fooled.view(-1, 1, 1, 1), x + BACK * (images - x), images)
    return best, nearest


def _length(step: Tensor) -> Tensor:
    """In l∞, [batch]."""
    return step.flatten(1).abs().amax(1)


def _to_plane(images: Tensor, slope: Tensor, rise: Tensor) -> Tensor:
    """The shortest step in l∞ along which a linear function rises by so much, and all values stay in [0, 1]; as far as there is room, where that is not enough.

    Each value moves by the same length or to its end of the range; that length solves a piecewise linear equation, whose pieces end where a
    value has no room left.

    Args:
        images: where the step begins, [batch, channels, height, width].
        slope: of the function, the same shape.
        rise: wanted, [batch]; below 0 it falls.
    """
    push = (slope * rise.sign().view(-1, 1, 1, 1)).flatten(1)
    room = torch.where(push > 0, 1 - images.flatten(1), images.flatten(1))
    ends, order = room.sort(1)
    weights = push.abs().gather(1, order)
    moving = weights.flip(1).cumsum(1).flip(1)
    stopped = (weights * ends).cumsum(1)
    risen = stopped + ends * (moving - weights)  # where the length is each end
    wanted = rise.abs()[:, None]
    piece = torch.searchsorted(risen, wanted).clamp_max(risen.shape[1] - 1)
    before = (stopped - weights * ends).gather(1, piece)
    length = (wanted - before) / moving.gather(1, piece).clamp_min(TINY)
    return (push.sign() * torch.minimum(length, room)).view_as(images)
