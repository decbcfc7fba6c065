"""One picture: decoded, turned, brought to a size, or refused."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from luring.errors import InputError, first_line
from luring.scaling import Scaling, scale_picture


class DamagedError(InputError):
    """A picture that cannot be decoded."""


def decoded_picture(
    source: bytes | Path, name: str, scaling: Scaling | None = None, kinds: tuple[str, ...] | None = None
) -> np.ndarray:
    """One picture as uint8, [height, width, 1 or 3], turned as its EXIF orientation says.

    Args:
        source: a file, or what is in it.
        name: what messages call it.
        scaling: to another size.
        kinds: that Pillow may take it for; all that it knows where none are given.

    Raises:
        DamagedError: it cannot be decoded.
        InputError: it has more than 8 bits a value.
    """
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
        with Image.open(io.BytesIO(data), formats=kinds) as picture:
            # Pillow cuts 16-bit colours to 8 without a word; only the layout of the file's data tells.
            layouts = [
                part.args if isinstance(part.args, str) else str((part.args or [""])[0]) for part in picture.tile
            ]
            deep = picture.mode[0] in "IF" or any(";16" in layout for layout in layouts)
            values = None if deep else _values(picture, scaling)
    except Exception as error:  # whatever a decoder makes of damaged bytes
        raise DamagedError(f"{name} cannot be decoded ({first_line(error)}); replace or remove it.") from error
    if values is None:
        raise InputError(f"{name} has more than 8 bits a value; convert it to 8-bit grey or RGB.")
    return values


PICTURES = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Kinds of picture that are taken from people nobody knows: Pillow hands some others to programs outside of it."""


LARGEST = 50_000_000
"""Pixels of a picture that is scaled, at most: a small file may claim to be a large picture."""

SCANS = 50
"""Of a progressive JPEG, which has about ten, at most: each of a hundred bytes goes over the whole picture anew."""


def fitting_picture(
    source: bytes | Path,
    name: str,
    shape: tuple[int, int, int],
    scaling: Scaling | None = None,
    largest: int = LARGEST,
) -> np.ndarray:
    """One picture of a classifier's own size, uint8, [channels, height, width]; grey is repeated where the classifier takes colour.

    The size is looked at before anything is decoded: a small file may claim to be a large picture.

    Args:
        source: a file, or what is in it.
        name: what messages call it.
        shape: of the classifier's images.
        scaling: that pictures of other sizes are brought to this one by; without, they are refused.
        largest: pixels that a picture which is scaled may have.

    Raises:
        InputError: it cannot be decoded, is of another size or too large, moves, or is in colour where the classifier takes grey.
    """
    channels, height, width = shape
    data = source.read_bytes() if isinstance(source, Path) else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, which are refused here
            with Image.open(io.BytesIO(data), formats=PICTURES) as picture:
                size = picture.size
                fits = size in ((width, height), (height, width)) or (
                    scaling is not None and size[0] * size[1] <= largest
                )
                endless = bool(picture.info.get("progressive")) and data.count(b"\xff\xda") > SCANS
                several = fits and not endless and _has_another(picture)
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{name} claims to be far larger than the {width} by {height} pixels that the classifier takes; scale it."
        ) from error
    except Exception as error:  # whatever a decoder makes of damaged bytes
        raise InputError(
            f"{name} is no picture of a kind that is read here ({', '.join(PICTURES)}), or damaged; replace or remove it."
        ) from error
    if several:
        raise InputError(f"{name} has several pictures in it; give one that does not move.")
    if endless:
        raise InputError(f"{name} is a JPEG of more than {SCANS} scans; save it anew.")
    if fits:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which is not used
            found = decoded_picture(data, name, scaling, PICTURES).transpose(2, 0, 1)
        size = found.shape[2], found.shape[1]
        if size == (width, height):
            if len(found) > channels:
                raise InputError(f"{name} is in colour, the classifier takes grey; convert it.")
            return np.broadcast_to(found, shape)
    limit = f"the classifier takes {width} by {height}"
    if scaling is not None:
        limit = f"at most {largest:,} pixels are brought to the classifier's {width} by {height} here"
    raise InputError(f"{name} is {size[0]} by {size[1]} pixels, {limit}; scale it.")


def _has_another(picture: Image.Image) -> bool:
    """Whether there is a second frame; counting all of them may take long."""
    try:
        picture.seek(1)
    except EOFError:
        return False
    return True


def _values(picture: Image.Image, scaling: Scaling | None) -> np.ndarray:
    ImageOps.exif_transpose(picture, in_place=True)
    if scaling is not None:
        picture = scale_picture(picture, scaling)
    if picture.mode in ("L", "1"):
        return np.asarray(picture.convert("L"))[:, :, None]
    if picture.mode == "P":
        picture = picture.convert("RGBA")  # straight to RGB, Pillow warns where the palette has transparency
    return np.asarray(picture.convert("RGB"))
