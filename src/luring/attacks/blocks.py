"""What an attack's model sees of an image cut into blocks: the blocks shuffled and turned (BSR), or each changed in its own way (SIA)."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from luring.attacks import checks
from luring.attacks.transforms import See, cosines
from luring.errors import InputError

Change = Callable[[Tensor, Generator | None], Tensor]
"""From one block of some images, and a source of randomness, to the same block changed."""


def shuffled(samples: int = 20, blocks: int = 2, angle: float = 24.0) -> tuple[See, ...]:
    """Block shuffle and rotation (BSR, Wang et al. 2024): cut at random places, put in another order, each block turned.

    Every image has draws of its own. It is cut into strips, which change places; each strip is cut into blocks, which change
    places within it. A turned block's pixels are taken by nearest neighbour, and what would come from outside it is 0.

    Args:
        samples: looks a step.
        blocks: strips, and blocks a strip.
        angle: most that a block is turned to either side, in degrees; 0 where a turn would change what an image means.

    Raises:
        InputError: a setting out of range, or more blocks than pixels.
    """
    checks.count("samples", samples)
    checks.count("blocks", blocks)
    checks.number("angle", angle, most=180.0)

    def see(images: Tensor, generator: Generator | None) -> Tensor:
        batch, channels, height, width = images.shape
        _enough(blocks, height, width)
        y, strip, top, bottom = _reordered(height, blocks, (batch,), generator, images.device)
        across = _reordered(width, blocks, (batch, blocks), generator, images.device)
        x, block, left, right = (found.gather(1, strip[:, :, None].expand(-1, -1, width)) for found in across)
        y, strip, top, bottom = (found[:, :, None] for found in (y, strip, top, bottom))
        drawn = torch.rand(batch, blocks * blocks, generator=generator, device=images.device)
        turns = (drawn * 2 - 1).mul_(math.radians(angle))
        turn = turns.gather(1, (strip * blocks + block).flatten(1)).view_as(block)
        middle, centre = (top + bottom - 1) / 2, (left + right - 1) / 2
        down, along = y - middle, x - centre
        y = (turn.cos() * down - turn.sin() * along + middle).round().long()
        x = (turn.sin() * down + turn.cos() * along + centre).round().long()
        inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
        place = torch.where(inside, y * width + x, 0).flatten(1)[:, None].expand(-1, channels, -1)
        return images.flatten(2).gather(2, place).view_as(images) * inside[:, None].to(images.dtype)

    return (see,) * samples


def _reordered(
    size: int, parts: int, lead: tuple[int, ...], generator: Generator | None, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A line cut at random and its parts put in random order: for each place, whence it comes, of which part, and that part's range."""
    cuts = 1 + torch.rand(*lead, size - 1, generator=generator, device=device).argsort(-1)[..., : parts - 1]
    ends = torch.zeros(*lead, 1, dtype=torch.int64, device=device)
    low = torch.cat([ends, cuts.sort(-1).values], -1)
    high = torch.cat([low[..., 1:], ends + size], -1)
    order = torch.rand(*lead, parts, generator=generator, device=device).argsort(-1)
    lengths = (high - low).gather(-1, order)
    stop = lengths.cumsum(-1)
    place = torch.arange(size, device=device)
    slot = (place[:, None] >= stop[..., None, :]).sum(-1)
    part = order.gather(-1, slot)
    source = low.gather(-1, part) + place - (stop - lengths).gather(-1, slot)
    return source, part, low.gather(-1, part), high.gather(-1, part)


def structures(samples: int = 20, blocks: int = 3, turns: bool = True) -> tuple[See, ...]:
    """Structure invariance (SIA, Wang, Zhang and Zhang 2023): each block of each image changed by one of ten ways.

    Shifted down or across (around the border), mirrored in either direction, turned by 180°, darkened, made smaller and larger again,
    with noise, without its high frequencies, or with pixels left out. The cuts and the amounts are drawn once a look; which way,
    for each image and block.

    Args:
        samples: looks a step.
        blocks: of an image, down and across.
        turns: use the three that mirror and turn; off where that would change what an image means.

    Raises:
        InputError: a setting out of range, or more blocks than pixels.
    """
    checks.count("samples", samples)
    checks.count("blocks", blocks)
    changes = CHANGES + (TURNS if turns else ())

    def see(images: Tensor, generator: Generator | None) -> Tensor:
        _enough(blocks, *images.shape[-2:])
        strips = [
            torch.cat([_each(block, changes, generator) for block in _cut(strip, 3, blocks, generator)], 3)
            for strip in _cut(images, 2, blocks, generator)
        ]
        return torch.cat(strips, 2)

    return (see,) * samples


def _cut(images: Tensor, dim: int, parts: int, generator: Generator | None) -> tuple[Tensor, ...]:
    cuts = torch.randperm(images.shape[dim] - 1, generator=generator, device=images.device)[: parts - 1] + 1
    places = [0, *sorted(cuts.tolist()), images.shape[dim]]
    return images.split([stop - start for start, stop in pairwise(places)], dim)


def _each(block: Tensor, changes: Sequence[Change], generator: Generator | None) -> Tensor:
    """One of the changes for each image's block."""
    way = torch.randint(0, len(changes), (len(block),), generator=generator, device=block.device)
    members = [(way == place).nonzero().squeeze(1) for place in range(len(changes))]
    changed = [change(block[which], generator) for change, which in zip(changes, members, strict=True) if len(which)]
    return torch.cat(changed)[torch.cat(members).argsort()]


def _uniform(low: float, high: float, like: Tensor, generator: Generator | None, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device).uniform_(low, high, generator=generator)


def _rolled(dim: int) -> Change:
    def change(block: Tensor, generator: Generator | None) -> Tensor:
        by = int(torch.randint(0, block.shape[dim], (), generator=generator, device=block.device))
        return block.roll(by, dim)

    return change


def _darker(block: Tensor, generator: Generator | None) -> Tensor:
    return block * _uniform(0.0, 1.0, block, generator)


def _coarser(block: Tensor, generator: Generator | None) -> Tensor:  # noqa: ARG001
    size = block.shape[-2:]
    small = F.interpolate(block, size=[int(0.8 * side) + 1 for side in size], mode="bilinear", align_corners=False)
    return F.interpolate(small, size=size, mode="bilinear", align_corners=False)


def _noisy(block: Tensor, generator: Generator | None) -> Tensor:
    return (block + _uniform(-16 / 255, 16 / 255, block, generator, *block.shape)).clamp(0, 1)


def _smooth(block: Tensor, generator: Generator | None) -> Tensor:  # noqa: ARG001
    rows, columns = (cosines(size).to(block)[: max(1, round(0.6 * size))] for size in block.shape[-2:])
    return rows.mT @ (rows @ block @ columns.mT) @ columns


def _sparse(block: Tensor, generator: Generator | None) -> Tensor:
    kept = _uniform(0.0, 1.0, block, generator, *block.shape) >= 0.1
    return block * kept / 0.9


CHANGES: tuple[Change, ...] = (_rolled(2), _rolled(3), _darker, _coarser, _noisy, _smooth, _sparse)
TURNS: tuple[Change, ...] = (
    lambda block, generator: block.flip(2),  # noqa: ARG005
    lambda block, generator: block.flip(3),  # noqa: ARG005
    lambda block, generator: block.flip(2, 3),  # noqa: ARG005
)


def _enough(blocks: int, height: int, width: int) -> None:
    if blocks > min(height, width):
        raise InputError(f"{blocks} blocks do not go into images of {height} by {width}: give fewer.")
