"""Parsimonious attack: corners of the l∞ ball, searched as sets of blocks; draws nothing."""

import torch
from torch import Tensor

from luring.attacks.asked import AT_ONCE, Asked, Queried, begin
from luring.errors import InputError
from luring.frozen import frozen
from luring.types import Classifier, Images, Labels


def parsimonious(
    model: Classifier, x: Images, y: Labels, *, eps: float, budget: int, block: int = 4, targeted: bool = False
) -> Queried:
    """Parsimonious attack, l∞ (Moon, An and Song 2019, Algorithms 1 to 3): every value at one end of its range, block by block.

    It begins with every value at its lowest. Blocks, of one channel each, are set to their highest by lazy greedy insertion and back
    by lazy greedy deletion, as long as the margin grows; then blocks are halved. It ends, with budget left, where no single value
    would make the margin grow.

    Args:
        model: images to scores (logits or probabilities); any function, an HTTP client too.
        x: clean images, [batch, channels, height, width], values in [0, 1].
        y: true labels, [batch], int64; with `targeted`, the labels wanted.
        eps: radius of the l∞ ball around `x`, in units of `x`.
        budget: most queries an image.
        block: side of the first blocks in pixels, a power of two.
        targeted: until the model answers `y` instead of until it does not.

    Returns:
        Examples in [0, 1] within `eps` of `x`, with the queries that each took.

    Raises:
        InputError: as for `square`, or a `block` that cannot be halved down to 1.
    """
    if block < 1 or block & (block - 1):
        raise InputError(f"block is {block}: give a power of two, 1, 2, 4 and so on.")
    asked, x, low, high = begin(model, x, y, eps, budget, targeted=targeted)
    with torch.no_grad(), frozen(model):
        if not len(x):
            return asked.result()
        asked.try_(low, torch.arange(len(x), device=x.device))
        search = _Search(asked, low, high, asked.reached.clone(), *_cells(x, block))
        while len(search.playing()):
            grew = search.local(1.0) | search.local(-1.0)
            if block > 1:
                block //= 2
                search.split(_cells(x, block)[0])
            else:
                search.ended |= ~grew
    return asked.result()


def _cells(x: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """The number of the block that each value lies in, [channels, height, width], and every block low, [batch, blocks]."""
    channels, height, width = x.shape[1:]
    down, across = (torch.arange(size, device=x.device) // block for size in (height, width))
    rows, columns = int(down[-1]) + 1, int(across[-1]) + 1
    channel = torch.arange(channels, device=x.device)
    cell = channel[:, None, None] * (rows * columns) + down[:, None] * columns + across
    return cell, -x.new_ones(len(x), channels * rows * columns)


class _Search:
    """The corner that each image stands at: `signs` of its blocks, the margin there, and whether its search has ended."""

    def __init__(self, asked: Asked, low: Tensor, high: Tensor, value: Tensor, cell: Tensor, signs: Tensor) -> None:
        self.asked, self.low, self.high, self.value, self.cell, self.signs = asked, low, high, value, cell, signs
        self.ended = torch.zeros_like(value, dtype=torch.bool)

    def playing(self) -> Tensor:
        """The images whose search goes on."""
        return (self.asked.playing(1) & ~self.ended).nonzero().squeeze(1)

    def split(self, cell: Tensor) -> None:
        """Smaller blocks, each as the one that it was part of."""
        blocks = int(cell.max()) + 1
        parent = torch.empty(blocks, dtype=torch.int64, device=cell.device)
        parent[cell.flatten()] = self.cell.flatten()
        self.cell, self.signs = cell, self.signs[:, parent]

    def gain(self, which: Tensor, block: Tensor, sign: float) -> Tensor:
        """How much the margin grows where one block an image is set to `sign`; a query each."""
        signs = self.signs[which].scatter(1, block[:, None], sign)
        up = signs[:, self.cell.flatten()].view(-1, *self.cell.shape) > 0
        images = torch.where(up, self.high[which], self.low[which])
        found = self.asked.margins(images, which)
        self.asked.keep(images, found, which)
        return found - self.value[which]

    def local(self, sign: float) -> Tensor:
        """Lazy greedy: set to `sign` the blocks that make the margin grow, the best first; whose margin grew, [batch]."""
        gains = torch.full_like(self.signs, -torch.inf)
        left = self.asked.budget - self.asked.queries
        candidates = (self.signs != sign) & ~self.ended[:, None]
        turn = candidates.cumsum(1)
        which, block = (candidates & (turn <= left[:, None])).nonzero().unbind(1)
        # Every image's first candidate, then every image's second, and so on: one that is fooled drops out early.
        order = turn[which, block].argsort(stable=True)
        for part in order.split(AT_ONCE):
            part = part[self.asked.playing(1)[which[part]]]
            if len(part):
                gains[which[part], block[part]] = self.gain(which[part], block[part], sign)
        grew = torch.zeros(len(gains), dtype=torch.bool, device=gains.device)
        while len(which := self.playing()):
            most, block = gains[which].max(1)
            which, block = which[most > 0], block[most > 0]
            if not len(which):
                break
            gain = self.gain(which, block, sign)
            gains[which, block] = -torch.inf
            taken = (gain > 0) & (gain >= gains[which].amax(1))
            self.signs[which[taken], block[taken]] = sign
            self.value[which[taken]] += gain[taken]
            grew[which[taken]] = True
            again = ~taken & (gain > 0)
            gains[which[again], block[again]] = gain[again]
        return grew
