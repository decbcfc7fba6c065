"""The gap between a label's logit and its runner-up's, and where it closes fastest."""

import torch
from torch import Tensor

from luring.types import Classifier, Images, Labels


def slope(model: Classifier, images: Images, label: Labels, runner_up: Labels, *, again: bool = False) -> Images:
    """The gradient, with respect to images, of the runner-up's logit less the label's.

    Of the logits, not of the cross-entropy, whose gradient is lost where the model is sure.

    Args:
        model: images to logits.
        images: [batch, channels, height, width].
        label: classes, [batch].
        runner_up: other classes, [batch].
        again: whether the gradient can be differentiated again, with respect to the model's weights; otherwise it has no gradient.

    Returns:
        Gradients of the images' shape, float32.
    """
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        logits = model(leaf).float()
        closing = picked(logits, runner_up) - picked(logits, label)
        (found,) = torch.autograd.grad(closing.sum(), leaf, create_graph=again)
    return found.float()


def picked(logits: Tensor, classes: Tensor) -> Tensor:
    """[batch]: of each row of logits, the one of its class."""
    return logits.gather(1, classes[:, None]).squeeze(1)
