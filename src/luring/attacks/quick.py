"""A faster model of the same meaning: what an attack differentiates hundreds of times is made cheaper once."""

import logging
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from luring.attacks.sources import Ensemble, ensemble
from luring.types import Classifier

log = logging.getLogger("luring")

CLOSE = 1e-3
"""How far the gradient of the faster model may be from the model's own, relative to its norm."""

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
AFTER: dict[type[nn.Module], Callable[[Any, Any], nn.Module]] = {
    nn.Conv2d: fuse_conv_bn_eval,
    nn.Linear: fuse_linear_bn_eval,
}


def quick(model: Classifier, x: Tensor) -> Classifier:
    """A callable that answers as a model in evaluation mode does, and is faster to differentiate with respect to images.

    Batch normalisation is folded into the layer before it, a rectifier comes after the pooling that follows it, and images go
    channels-last, as do the weights of convolutions where the images are grey. Of an ensemble, so with each of its models. It is compared with the model, logits and gradient, on the first image of `x`. The model itself is not changed,
    and its weights are shared where nothing is folded into them: later changes of the model are not seen.

    What is not understood stays as it is, and one line of the log says so: a module in training mode or with hooks, a scripted or
    quantised one, one whose `forward` decides by values or by Python's own randomness.

    Args:
        model: images to logits; anything but a module is given back.
        x: images that it is going to be attacked on, [batch, channels, height, width].
    """
    if not isinstance(model, nn.Module) or not len(x):
        return model
    reason = _strange(model)
    if reason is None and isinstance(model, Ensemble):
        return ensemble(*(quick(part, x) for part in model.models))
    if reason is None:
        try:
            graph, folded, moved = _simplified(model)
            turned = _turned(graph) if x.shape[1] == 1 else 0
            faster = _channels_last(graph if folded + moved + turned else model)
            # Where layers of PyTorch's only change places or layout, nothing but the last bit can change.
            sure = not folded and (not (moved or turned) or _plain(model))
            reason = None if sure or _agree(model, faster, x[:1]) else "its gradient changed"
        except Exception as error:
            faster, reason = model, f"it cannot be traced: {error}"
        if reason is None:
            return faster
    _say(f"{type(model).__name__} is attacked as it is: {reason.splitlines()[0]}")
    return model


@cache
def _say(line: str) -> None:
    """Once."""
    log.info(line)


def _strange(model: nn.Module) -> str | None:
    """Why a module is left alone."""
    for name, part in model.named_modules():
        where = f" in {name}" if name else ""
        if part.training:
            return f"training mode{where}"
        if isinstance(part, torch.jit.ScriptModule | fx.GraphModule):
            return f"scripted or traced already{where}"
        if "quant" in type(part).__module__:
            return f"quantised{where}"
        if any(getattr(part, hooks) for hooks in HOOKS):
            return f"hooks{where}"
        if any(weight.requires_grad for weight in part.parameters(recurse=False)):
            return f"weights that are not frozen{where}"
    return None


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _traced(model: nn.Module) -> fx.GraphModule:
    """The model as a graph. Code that is not PyTorch's is traced twice: what it draws at random in Python would be frozen into the graph."""
    graph = fx.symbolic_trace(model)
    if not _plain(model) and graph.code != fx.symbolic_trace(model).code:
        raise ValueError("two traces of it differ")
    return graph


def _plain(model: nn.Module) -> bool:
    """Whether it is made of PyTorch's own layers alone."""
    return all(type(part).__module__.startswith("torch.nn.") for part in model.modules())


def _simplified(model: nn.Module) -> tuple[fx.GraphModule, int, int]:
    """The model as a graph, how many normalisations were folded in it, and how many rectifiers moved behind their pooling."""
    graph = _traced(model)
    folded = moved = 0
    parts: dict[str, nn.Module] = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        before = node.args[0] if node.op == "call_module" and len(node.args) == 1 else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        part, earlier = parts[str(node.target)], parts[str(before.target)]
        fuse = AFTER.get(type(earlier))
        if isinstance(part, NORMS) and fuse and part.running_mean is not None and _once(graph, before):
            fused = fuse(earlier, part).requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            parts[str(before.target)] = fused
            graph.set_submodule(str(before.target), fused)
            node.replace_all_uses_with(before)
            graph.graph.erase_node(node)
            folded += 1
        elif type(part) is nn.MaxPool2d and not part.return_indices and type(earlier) is nn.ReLU:
            # max(relu(x)) = relu(max(x)), and a smaller image is rectified.
            before.target, node.target = node.target, before.target
            moved += 1
    graph.recompile()
    return graph, folded, moved


def _turned(graph: fx.GraphModule) -> int:
    """Give convolutions copies of their weights in the images' layout, and say how many; a grey image's own does not tell PyTorch which it is."""
    found = [(name, part) for name, part in graph.named_modules() if type(part) is nn.Conv2d]
    for name, part in found:
        graph.set_submodule(name, deepcopy(part).to(memory_format=torch.channels_last))  # pyright: ignore[reportCallIssue]
    return len(found)


def _once(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the module of a node is called there alone."""
    return sum(other.op == "call_module" and other.target == node.target for other in graph.graph.nodes) == 1


def _channels_last(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda images: model(images.contiguous(memory_format=torch.channels_last))


def _agree(model: nn.Module, faster: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    # A GPU's short mantissas would hide what is compared.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        own, other = (_slope(one, x) for one in (model, faster))
    return all(
        bool((b - a).norm() <= CLOSE * a.norm()) or bool(torch.equal(a, b)) for a, b in zip(own, other, strict=True)
    )


def _slope(model: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.detach().clone().requires_grad_()
    logits: Any = model(leaf)
    (gradient,) = torch.autograd.grad(logits.amax(1).sum(), leaf)
    return logits.detach().double(), gradient.double()
