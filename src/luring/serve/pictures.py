"""Images out of a request: lists of numbers, base64 of a picture, a picture's bytes, or a V2 tensor."""

import base64
import binascii
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from luring.errors import InputError
from luring.picture import LARGEST, fitting_picture
from luring.scaling import Scaling

Shape = tuple[int, int, int]


def parsed(body: bytes) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        InputError: it is none.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InputError(f"the body is not JSON ({error}): send one JSON object.") from error
    if not isinstance(found, dict):
        raise InputError("the body is not a JSON object: send one, as /openapi.json says.")
    return found  # pyright: ignore[reportUnknownVariableType]


def from_json(body: bytes, shape: Shape, most: int) -> np.ndarray | list[bytes]:
    """`{"images": [...]}`: each a nested list of numbers in [0, 1], [channels, height, width], or the base64 of a picture file.

    Returns:
        [n, channels, height, width], float32; or the files, for `from_files`.

    Raises:
        InputError: anything else.
    """
    images = parsed(body).get("images")
    if not isinstance(images, list) or not images:
        raise InputError("'images' is no list of images: send at least one.")
    counted(len(images), most)  # pyright: ignore[reportUnknownArgumentType]
    if all(isinstance(image, str) for image in images):  # pyright: ignore[reportUnknownVariableType]
        return [_unpacked(image, place) for place, image in enumerate(images)]  # pyright: ignore
    array = _numbers(images)
    if array is None:
        raise InputError(
            f"'images' is neither all lists of numbers {list(shape)} nor all base64 of pictures: send one or the other."
        )
    return _checked(array, shape)


def _numbers(nested: Any) -> np.ndarray | None:
    """Nested lists of numbers as an array; none where they are ragged or hold anything else."""
    try:
        array = np.array(nested)
    except (ValueError, OverflowError):
        return None
    return array.astype(np.float64) if array.dtype.kind in "iuf" else None


def _unpacked(text: str, place: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"image {place} is not base64 ({error}): send the file's bytes in base64.") from error


def from_files(files: Sequence[bytes], shape: Shape, scaling: Scaling | None = None) -> np.ndarray:
    """Picture files as [n, channels, height, width] float32 in [0, 1].

    Args:
        files: what is in them.
        shape: of an image.
        scaling: that pictures of other sizes are brought to it by; `LARGEST` pixels are shared out evenly to them.

    Raises:
        InputError: one is no picture, too large, or of another size where there is no scaling.
    """
    largest = LARGEST // len(files)
    found = [fitting_picture(data, f"image {place}", shape, scaling, largest) for place, data in enumerate(files)]
    return np.stack(found).astype(np.float32) / np.float32(255)


def from_v2(body: bytes, header: str | None, shape: Shape, most: int) -> tuple[np.ndarray, dict[str, Any]]:
    """An inference request of the Open Inference Protocol (V2): one input `images`, FP32, in JSON or, with its binary extension, after it.

    Args:
        body: of the request.
        header: `Inference-Header-Content-Length`, the bytes of JSON before the binary part; `None` where all is JSON.
        shape: of an image.
        most: images allowed.

    Returns:
        The images, and the request's JSON without them.

    Raises:
        InputError: anything else.
    """
    length = len(body) if header is None else _length(header, len(body))
    request = parsed(body[:length])
    inputs: Any = request.pop("inputs", None)
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):  # pyright: ignore[reportUnknownArgumentType]
        raise InputError("'inputs' is not a list of one tensor: send the one input 'images'.")
    if not isinstance(request.get("id", ""), str):
        raise InputError("'id' is not a string: make it one, or leave it out.")
    tensor: dict[str, Any] = inputs[0]
    if tensor.get("name") != "images" or tensor.get("datatype") != "FP32":
        raise InputError("the input is not 'images' of datatype FP32: name it so.")
    wanted: Any = tensor.get("shape")
    if (
        not isinstance(wanted, list)
        or len(wanted) != 4  # pyright: ignore[reportUnknownArgumentType]
        or not all(type(size) is int for size in wanted)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        or tuple(wanted[1:]) != shape  # pyright: ignore[reportUnknownArgumentType]
        or wanted[0] < 1
    ):
        raise InputError(f"the input's shape is not [batch, {', '.join(map(str, shape))}]: send images of that size.")
    counted(wanted[0], most)  # pyright: ignore[reportUnknownArgumentType]
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None  # pyright: ignore
    if size is None:
        values = _numbers(tensor.get("data"))
        if values is None:
            raise InputError("the input's data are not numbers: send a list of them.")
    else:
        values = _binary(body[length:], size)
    if values.size != math.prod(wanted):  # pyright: ignore[reportUnknownArgumentType]
        raise InputError(f"the input has {values.size} numbers and the shape {wanted}: make them agree.")
    return _checked(values.reshape(wanted), shape), request  # pyright: ignore[reportUnknownArgumentType]


def _length(header: str, total: int) -> int:
    if not header.isascii() or not header.isdecimal() or len(header) > 18 or int(header) > total:
        raise InputError("Inference-Header-Content-Length is not the length of the JSON before the tensor: correct it.")
    return int(header)


def _binary(data: bytes, size: object) -> np.ndarray:
    if type(size) is not int or size != len(data) or len(data) % 4:
        raise InputError(
            f"binary_data_size is not the {len(data)} bytes that follow the JSON: send four bytes a number and say how many."
        )
    return np.frombuffer(data, dtype="<f4")


def counted(n: int, most: int) -> None:
    """Refuse more images than a batch holds."""
    if n > most:
        raise InputError(f"{n} images are more than the {most} that one request may hold: send fewer at a time.")


def _checked(array: np.ndarray, shape: Shape) -> np.ndarray:
    if array.ndim != 4 or array.shape[1:] != shape:
        raise InputError(
            f"the images are {list(array.shape)}, not [batch, {', '.join(map(str, shape))}]: send images of that size."
        )
    if not (array.min() >= 0 and array.max() <= 1):  # NaN is neither
        raise InputError("the images hold values outside [0, 1]: divide bytes by 255.")
    return array.astype(np.float32)
