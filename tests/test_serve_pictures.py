"""Whatever bytes are sent as a picture, the answer is a 200 or one sentence, and memory stays bounded."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from luring.errors import InputError
from luring.picture import fitting_picture
from luring.serve import pictures

GREY, COLOUR = (1, 8, 8), (3, 8, 8)
KINDS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


def saved(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def picture(mode="L", size=(8, 8), seed=0):
    rng = np.random.default_rng(seed)
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = rng.integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    return Image.fromarray(values[:, :, 0], "L") if bands == 1 else Image.frombytes(mode, size, values.tobytes())


def sentence(said):
    assert "\n" not in said
    assert said.startswith("image 0 ")
    return said


def taken(data, shape=GREY):
    """The image, or the one sentence that it is refused with."""
    try:
        found = pictures.from_files([data], shape)
    except InputError as error:
        return sentence(str(error))
    assert found.shape == (1, *shape)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    return found


@settings(deadline=None, max_examples=150, derandomize=True)
@given(data=st.binary(max_size=300))
def test_bytes(data):
    taken(data)


WHOLE = {kind: saved(picture("L" if kind != "WEBP" else "RGB"), kind) for kind in KINDS}


@settings(deadline=None, max_examples=250, derandomize=True)
@given(kind=st.sampled_from(KINDS), data=st.data())
def test_damaged_pictures(kind, data):
    """Cut off somewhere, and bytes changed anywhere."""
    whole = bytearray(WHOLE[kind])
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    taken(bytes(whole[: data.draw(st.integers(0, len(whole)))]), data.draw(st.sampled_from([GREY, COLOUR])))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read(kind):
    assert not isinstance(taken(WHOLE[kind], COLOUR), str)


def png_that_claims(width, height):
    """A whole, small PNG file whose header says any size."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(50_000, 50_000), (20_000, 9_000), (2**31 - 1, 1), (9, 8)])
def test_the_size_is_looked_at_before_anything_is_decoded(size):
    data = png_that_claims(*size)
    tracemalloc.start()
    said = taken(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "8 by 8" in said
    assert peak < 2_000_000


def test_a_gif_of_other_frames_is_not_unrolled():
    frames = [picture(seed=i) for i in range(3)]
    for kind in ("GIF", "TIFF", "PNG", "WEBP"):
        moving = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        assert taken(moving, COLOUR) == "image 0 has several pictures in it; give one that does not move."


def test_what_grey_and_colour_take():
    colour = picture("RGB")
    assert "in colour" in taken(saved(colour))
    assert taken(saved(colour), COLOUR).shape == (1, 3, 8, 8)
    grey = taken(saved(picture()), COLOUR)
    assert np.array_equal(grey[:, 0], grey[:, 2])
    assert "in colour" in taken(saved(picture("CMYK"), "JPEG"))
    assert not isinstance(taken(saved(picture("CMYK"), "JPEG"), COLOUR), str)
    assert not isinstance(taken(saved(picture("RGBA")), COLOUR), str)
    deep = saved(Image.fromarray(np.full((8, 8), 40_000, np.uint16)))
    assert "more than 8 bits" in taken(deep)


def test_a_turned_picture_is_turned_back():
    wide = picture(size=(8, 6))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned = saved(wide, exif=exif.tobytes())
    found = fitting_picture(turned, "it", (1, 8, 6))
    assert np.array_equal(found[0], np.rot90(np.asarray(wide), -1))
    with pytest.raises(InputError, match="it is 6 by 8 pixels, the classifier takes 8 by 6; scale it"):
        fitting_picture(turned, "it", (1, 6, 8))


def test_kinds_that_are_handed_to_other_programs_are_not_tried():
    drawing = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    assert "no picture of a kind that is read here" in taken(drawing)
