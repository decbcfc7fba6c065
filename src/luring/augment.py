"""Images moved at random while a classifier or a lure is trained on them: turned, shifted, mirrored."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F

from luring.errors import InputError
from luring.types import Images, Labels


@dataclass(frozen=True)
class Moves:
    """How far images are moved; each image draws its own move.

    Attributes:
        angle: turned by up to this many degrees either way.
        shift: moved by up to this share of each side either way, in whole pixels.
        mirror: mirrored left to right, half of the time.
    """

    angle: float = 0.0
    shift: float = 0.0
    mirror: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no move.

        Raises:
            InputError: an angle outside 0 to 180 degrees, or a share outside 0 to 1.
        """
        if not 0 <= self.angle <= 180:
            raise InputError(f"images cannot be turned by up to {self.angle:g} degrees: give an angle from 0 to 180.")
        if not 0 <= self.shift <= 1:
            raise InputError(
                f"images cannot be shifted by up to {self.shift:g} of their sides: give a share from 0 to 1, 0.1 say."
            )

    def __call__(self, images: Images, _labels: Labels) -> Images:
        """`moved`, as `luring.training.classifier` calls it."""
        return moved(images, self)


def described(moves: Moves | None) -> dict[str, dict[str, float]]:
    """How images are moved, as settings hold it: nothing of images that are not."""
    return {} if moves is None else {"moves": asdict(moves)}


def stored(settings: Mapping[str, Any]) -> Moves | None:
    """How the images were moved that the lure of a bundle was fitted on."""
    found = settings.get("moves")
    return None if found is None else Moves(**found)


def moved(images: Images, moves: Moves) -> Images:
    """Each image moved; what comes in from outside repeats the border. The draws are PyTorch's own, on the CPU.

    The luring paper's for CIFAR10 is `Moves(angle=10, shift=5 / 32)` (Supplementary A).

    Args:
        images: [batch, channels, height, width], values in [0, 1].
        moves: how far.

    Returns:
        Images like `images`, in [0, 1]: bilinear where they are turned, else pixels of the image as they are.
    """
    count, _, height, width = images.shape
    turns = torch.deg2rad((2 * torch.rand(count) - 1) * moves.angle)
    rows, columns = ((side * moves.shift * (2 * torch.rand(count) - 1)).round() for side in (height, width))
    sign = torch.where(torch.rand(count) < 0.5, -1.0, 1.0) if moves.mirror else torch.ones(count)
    cos, sin = turns.cos(), turns.sin()
    # From a pixel of the result to its source, sides from −1 to 1: an image that is not square turns all the same.
    across, down = width / height, height / width
    first = torch.stack([sign * cos, -sin * down, 2 * columns / width], 1)
    second = torch.stack([sign * sin * across, cos, 2 * rows / height], 1)
    grid = F.affine_grid(
        torch.stack([first, second], 1).to(images.device, non_blocking=True), list(images.shape), align_corners=False
    )
    mode = "bilinear" if moves.angle else "nearest"
    return F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)
