"""Pictures from people: drawn, or a file of any size, made into an image that the classifier takes."""

import base64
import binascii
import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from luring.errors import InputError
from luring.picture import PICTURES
from luring.types import Shape

PIXELS = 50_000_000
"""Of a picture file at most: a small file may claim to be a large picture."""

TOO_LARGE = "has more than 50 million pixels: give a smaller picture."

DRAWN = "data:image/png;base64,"


def from_canvas(url: str | None, shape: Shape) -> Tensor:
    """What was drawn, scaled by area.

    Args:
        url: PNG as a data URL, as the page's canvas gives it.
        shape: of the classifier's images.

    Returns:
        [channels, height, width], in [0, 1].

    Raises:
        InputError: nothing was drawn.
    """
    if not url or not url.startswith(DRAWN):
        raise InputError("nothing is drawn yet: draw something on the black square.")
    try:
        data = base64.b64decode(url.removeprefix(DRAWN), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("the drawing did not arrive whole: draw again.") from error
    image = from_bytes(data, shape, "the drawing")
    if not bool(image.any()):
        raise InputError("nothing is drawn yet: draw something on the black square.")
    return image


def from_file(path: Path, shape: Shape) -> Tensor:
    """A picture file, as `from_bytes`."""
    return from_bytes(path.read_bytes(), shape, path.name)


def from_bytes(data: bytes, shape: Shape, name: str) -> Tensor:
    """A picture of any size: turned as its EXIF orientation says, its middle cut to the image's proportions, scaled by area.

    Args:
        data: PNG, JPEG, and so on; of a moving picture the first frame.
        shape: of the classifier's images; grey is made of colours where it takes grey.
        name: what messages call it.

    Returns:
        [channels, height, width], in [0, 1].

    Raises:
        InputError: it cannot be decoded, or is larger than 50 million pixels.
    """
    channels, height, width = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures: they are refused here
            with Image.open(io.BytesIO(data), formats=PICTURES) as opened:
                picture = (
                    None if opened.width * opened.height > PIXELS else _eight_bits(ImageOps.exif_transpose(opened))
                )
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} {TOO_LARGE}") from error
    except Exception as error:  # whatever a decoder makes of damaged bytes
        raise InputError(f"{name} is no picture that can be read: give a PNG or JPEG file.") from error
    if picture is None:
        raise InputError(f"{name} {TOO_LARGE}")
    fitted = ImageOps.fit(picture, (width, height), method=Image.Resampling.BOX)
    values = np.asarray(fitted.convert("L" if channels == 1 else "RGB"), dtype=np.float32) / np.float32(255)
    return torch.from_numpy(values.reshape(height, width, channels)).permute(2, 0, 1).contiguous()


def _eight_bits(picture: Image.Image) -> Image.Image:
    """In RGB on black, or grey; 16-bit grey scaled to 8."""
    if picture.mode[0] in "IF":
        values = np.asarray(picture, dtype=np.float64)
        return Image.fromarray((values / max(float(values.max()), 1.0) * 255).astype(np.uint8))
    if picture.mode in ("L", "1"):
        return picture.convert("L")
    coloured = picture.convert("RGBA")
    black = Image.new("RGBA", coloured.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, coloured).convert("RGB")
