"""Rung 4: an adversary who has M∘P as one network and suspects that there is something in front.

He cuts it at every boundary between two layers. What follows a cut whose tensors have the image's shape can be taken for a classifier of images, and is
attacked as one: one of these cuts is the one behind P, and what follows is M. From the others he pushes the features away from the clean image's. He also
puts something else in P's place: a blur, an autoencoder of his own.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from luring import answers
from luring.attacks import apgd_by
from luring.audit.tries import Crafted, Setting, Try, named
from luring.frozen import frozen
from luring.networks import compose
from luring.types import Shape
from luring.weights import digest

log = logging.getLogger("luring")


@dataclass(frozen=True, eq=False)
class Cut:
    """A network in two.

    Attributes:
        place: its number, from 1 at the image to the last before the logits.
        of: how many there are.
        before: from images to what passes the cut.
        after: from that to logits.
        shape: of what passes, for one image.
    """

    place: int
    of: int
    before: nn.Module
    after: nn.Module
    shape: tuple[int, ...]


def cuts(network: nn.Module, shape: Shape) -> list[Cut]:
    """Every boundary that a single tensor passes, in order.

    A network that cannot be traced is cut between its children alone, where it is a `Sequential`.

    Args:
        network: images to logits, in evaluation mode.
        shape: of the images.
    """
    image = answers.prepare(torch.zeros(1, *shape), network)
    try:
        halves = _traced(network)
    except Exception as error:
        log.info(
            f"{type(network).__name__} is cut between its parts alone, it cannot be traced: {str(error).splitlines()[0]}"
        )
        parts = list(network.children()) if isinstance(network, nn.Sequential) else []
        halves = [(nn.Sequential(*parts[:place]), nn.Sequential(*parts[place:])) for place in range(1, len(parts))]
    with frozen(network), torch.no_grad():
        passing = [before.eval()(image) for before, _ in halves]
    return [
        Cut(place, len(halves), before.eval(), after.eval(), tuple(found.shape[1:]))
        for place, ((before, after), found) in enumerate(zip(halves, passing, strict=True), start=1)
        if isinstance(found, Tensor)
    ]


def _traced(network: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """The network's two halves at each of its cuts."""
    graph = fx.symbolic_trace(network)
    nodes = [node for node in graph.graph.nodes if node.op != "get_attr"]
    (first,) = [node for node in nodes if node.op == "placeholder"]
    (last,) = nodes[-1].all_input_nodes
    halves: list[tuple[nn.Module, nn.Module]] = []
    for place, node in enumerate(nodes[1:-2], start=1):
        earlier = set(nodes[:place])
        # A cut: nothing behind it uses what lies before it.
        if not any(earlier.intersection(later.all_input_nodes) for later in nodes[place + 1 :]):
            halves.append((_half(graph, first, node), _half(graph, node, last)))
    return halves


def _half(graph: fx.GraphModule, begin: fx.Node, end: fx.Node) -> nn.Module:
    """What lies between two nodes of a graph, as a network from the value of the first to that of the last."""
    part = fx.Graph()
    known = {begin: part.placeholder("given")}
    inside = False
    for node in graph.graph.nodes:
        if node.op == "get_attr" or inside:
            known[node] = part.node_copy(node, known.__getitem__)
        inside = inside or node is begin
        if node is end:
            break
    part.output(known[end])
    return fx.GraphModule(graph, part)


class Flat(nn.Module):
    """Features as [batch, values]."""

    def __init__(self, before: nn.Module) -> None:
        super().__init__()
        self.before = before

    def forward(self, images: Tensor) -> Tensor:
        """Features of images."""
        return self.before(images).flatten(1)


class Blurred(nn.Module):
    """A 3×3 binomial blur, in the place of P."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", (row[:, None] * row).expand(channels, 1, 3, 3).clone())

    def forward(self, images: Tensor) -> Tensor:
        """Blurred images."""
        kernel = self.get_buffer("kernel")
        return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel.to(images), groups=len(kernel))


def attempts(decoy: nn.Module, target: nn.Module, other_lure: nn.Module | None, setting: Setting) -> Iterator[Try]:
    """Every cut, and what can be put in P's place.

    Args:
        decoy: M∘P, as one network.
        target: M.
        other_lure: an autoencoder that the adversary trained himself; none where he has none.
        setting: of the audit.
    """
    shape: Shape = tuple(setting.clean.images.shape[1:])  # type: ignore[assignment]
    found = cuts(decoy, shape)
    for cut in found:
        if cut.shape == shape:
            yield named(4, "apgd", f"behind cut {cut.place} of {cut.of}", cut.after, setting)
    classes = answers.logits(decoy, setting.clean.images[:1]).shape[1]
    inner = [cut for cut in found if torch.Size(cut.shape).numel() >= classes]
    spread = min(len(inner), setting.budget.cuts)
    for turn in range(spread):
        yield features(inner[round(turn * (len(inner) - 1) / max(1, spread - 1))], decoy, setting)
    device = next(decoy.parameters()).device
    replaced: dict[str, nn.Module] = {"blur for P": Blurred(shape[0]).to(device)}
    if other_lure is not None:
        replaced["another P"] = other_lure
    for on, front in replaced.items():
        yield named(4, "apgd", on, compose(front, target).eval(), setting)


def features(cut: Cut, decoy: nn.Module, setting: Setting) -> Try:
    """Auto-PGD on the distance of the features at a cut to the clean image's."""
    clean, steps = setting.clean, setting.budget.steps
    settings = {
        "attack": "features",
        "eps": setting.eps,
        "steps": steps,
        "attack_seed": setting.seed,
        "cut": cut.place,
        "of": cut.of,
        "weights": digest(decoy),
        "choice": clean.digest,
    }

    def distance(found: Tensor, _: Tensor, wanted: Tensor) -> Tensor:
        return (found - wanted).square().mean(1)

    def made() -> Crafted:
        model = Flat(cut.before).eval()
        x = answers.prepare(clean.images, decoy)
        with frozen(model), torch.no_grad():
            own = model(x)
        rounds = [(distance, own)]
        generator = torch.Generator(x.device).manual_seed(setting.seed)
        y = clean.labels.to(x.device)
        images = apgd_by(model, x, y, rounds, eps=setting.eps, steps=steps, reached=distance, generator=generator)
        return Crafted(images.cpu(), clean)

    return Try(4, "features", f"at cut {cut.place} of {cut.of}", settings, made)
