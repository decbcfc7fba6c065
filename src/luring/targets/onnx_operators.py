"""ONNX's operators for classifiers of images, as PyTorch's: each takes the node's attributes and its inputs."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from luring.targets import windows
from luring.targets.windows import Attributes

Operator: TypeAlias = Callable[[Attributes, list[Any]], Any]

TYPES = MappingProxyType(
    {
        1: torch.float32,
        2: torch.uint8,
        3: torch.int8,
        6: torch.int32,
        7: torch.int64,
        9: torch.bool,
        10: torch.float16,
        11: torch.float64,
    }
)
"""ONNX's numbers of types."""


def ints(value: Any) -> list[int]:
    """An input that says sizes or axes: a list already, or a tensor."""
    return [int(v) for v in (value.reshape(-1).tolist() if isinstance(value, Tensor) else value)]


def tensor(value: Any) -> Tensor:
    """An input as a tensor."""
    return value if isinstance(value, Tensor) else torch.tensor(value)


def _batch_norm(a: Attributes, i: list[Any]) -> Tensor:
    x, scale, bias, mean, var = i[:5]
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, a.get("epsilon", 1e-5))


def _layer_norm(a: Attributes, i: list[Any]) -> Tensor:
    axis = a.get("axis", -1) % i[0].ndim
    return F.layer_norm(i[0], i[0].shape[axis:], i[1], i[2] if len(i) > 2 else None, a.get("epsilon", 1e-5))


def _group_norm(a: Attributes, i: list[Any]) -> Tensor:
    groups, channels = a["num_groups"], i[0].shape[1]
    scale, bias = (v if len(v) == channels else v.repeat_interleave(channels // groups) for v in i[1:3])
    return F.group_norm(i[0], groups, scale, bias, a.get("epsilon", 1e-5))


def _gemm(a: Attributes, i: list[Any]) -> Tensor:
    x, y = i[0].T if a.get("transA") else i[0], i[1].T if a.get("transB") else i[1]
    found = a.get("alpha", 1.0) * (x @ y)
    return found + a.get("beta", 1.0) * i[2] if len(i) > 2 and i[2] is not None else found


def _axes(a: Attributes, i: list[Any]) -> list[int] | None:
    if len(i) > 1 and i[1] is not None:
        return ints(i[1])
    return list(a["axes"]) if "axes" in a else None


def _reduce(how: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def reduce(a: Attributes, i: list[Any]) -> Tensor:
        axes = _axes(a, i)
        if not axes and a.get("noop_with_empty_axes"):
            return i[0]
        return how(i[0], axes or list(range(i[0].ndim)), bool(a.get("keepdims", 1)))

    return reduce


def _reshape(a: Attributes, i: list[Any]) -> Tensor:
    x, shape = tensor(i[0]), ints(i[1])
    if not a.get("allowzero"):
        shape = [x.shape[at] if size == 0 else size for at, size in enumerate(shape)]
    return x.reshape(shape)


def _flatten(a: Attributes, i: list[Any]) -> Tensor:
    axis = a.get("axis", 1)
    axis = axis % i[0].ndim if axis < 0 else axis
    return i[0].flatten(1) if axis == 1 else i[0].reshape(math.prod(i[0].shape[:axis]), -1)


def _squeeze(a: Attributes, i: list[Any]) -> Tensor:
    x, axes = tensor(i[0]), _axes(a, i)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _transpose(a: Attributes, i: list[Any]) -> Tensor:
    x = tensor(i[0])
    return x.permute(a.get("perm", list(range(x.ndim))[::-1]))


def _unsqueeze(a: Attributes, i: list[Any]) -> Tensor:
    x, axes = tensor(i[0]), _axes(a, i) or []
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(a: Attributes, i: list[Any]) -> Tensor:
    x = tensor(i[0])
    given = [None if v is None else ints(v) for v in i[1:]]
    starts, ends = (a["starts"], a["ends"]) if "starts" in a else given[:2]
    axes = a.get("axes") if "starts" in a else (given[2] if len(given) > 2 else None)
    steps = given[3] if len(given) > 3 else None
    assert starts is not None
    assert ends is not None
    axes, steps = axes or list(range(len(starts))), steps or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        if step < 0:
            x, step, start, end = x.flip(axis), -step, _mirrored(start, size), _mirrored(end, size)
        index: list[slice] = [slice(None)] * x.ndim
        index[axis] = slice(start, end, step)
        x = x[tuple(index)]
    return x


def _mirrored(at: int, size: int) -> int:
    at = at + size if at < 0 else at
    return size - 1 - min(max(at, -1), size - 1)


def _gather(a: Attributes, i: list[Any]) -> Tensor:
    x, index = tensor(i[0]), tensor(i[1]).long()
    axis = a.get("axis", 0) % x.ndim
    index = torch.where(index < 0, index + x.shape[axis], index)
    found = x.index_select(axis, index.reshape(-1).to(x.device))
    return found.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _split(a: Attributes, i: list[Any]) -> list[Tensor]:
    axis, x = a.get("axis", 0), i[0]
    sizes = ints(i[1]) if len(i) > 1 and i[1] is not None else a.get("split")
    if sizes is None:
        sizes = -(-x.shape[axis] // a.get("num_outputs", a["outputs"]))
    return list(x.split(sizes, axis))


def _pad(a: Attributes, i: list[Any]) -> Tensor:
    x, mode = i[0], a.get("mode", b"constant")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    pads = ints(i[1]) if len(i) > 1 else a["pads"]
    value = float(i[2]) if len(i) > 2 and i[2] is not None else a.get("value", 0.0)
    axes = [axis % x.ndim for axis in ints(i[3])] if len(i) > 3 and i[3] is not None else list(range(x.ndim))
    order = [0] * (2 * x.ndim)
    for at, axis in enumerate(axes):
        order[2 * (x.ndim - 1 - axis)], order[2 * (x.ndim - 1 - axis) + 1] = pads[at], pads[at + len(axes)]
    if mode == "constant":
        return F.pad(x, order, value=value)
    while order[-2:] == [0, 0]:
        order = order[:-2]
    return F.pad(x, order, mode={"edge": "replicate", "reflect": "reflect"}[mode])


def _resize(a: Attributes, i: list[Any]) -> Tensor:
    said = {k: v.decode() if isinstance(v, bytes) else v for k, v in a.items()}
    x, how = i[0], said.get("mode", "nearest")
    sizes = ints(i[3])[2:] if len(i) > 3 and i[3] is not None else None
    scales: Any = i[2] if len(i) > 2 and i[2] is not None else (i[1] if len(i) == 2 else None)
    if sizes is None and scales is None:
        raise NotImplementedError("a Resize without sizes or scales")
    if sizes is None and scales is not None:
        sizes = [math.floor(size * factor) for size, factor in zip(x.shape, scales.tolist(), strict=True)][2:]
    place = said.get("coordinate_transformation_mode", "asymmetric" if len(i) == 2 else "half_pixel")
    if how == "nearest" and place == "asymmetric" and said.get("nearest_mode", "floor") == "floor":
        return F.interpolate(x, sizes, mode="nearest")
    if how == "nearest" and place == "half_pixel":
        return F.interpolate(x, sizes, mode="nearest-exact")
    smooth, aligned = bool(said.get("antialias", 0)), place == "align_corners"
    if how not in ("linear", "cubic") or place not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise NotImplementedError(f"a Resize by {how}, {place}")
    return F.interpolate(
        x, sizes, mode="bilinear" if how == "linear" else "bicubic", align_corners=aligned, antialias=smooth
    )


def _clip(a: Attributes, i: list[Any]) -> Tensor:
    low = i[1] if len(i) > 1 else a.get("min")
    high = i[2] if len(i) > 2 else a.get("max")
    x = i[0] if low is None else i[0].clamp_min(low)
    return x if high is None else x.clamp_max(high)


def _softmax(how: Callable[..., Tensor]) -> Operator:
    def softmax(a: Attributes, i: list[Any]) -> Tensor:
        x = i[0]
        if a["opset"] >= 13:
            return how(x, a.get("axis", -1))
        axis = a.get("axis", 1) % x.ndim  # older: over all that follows
        return how(x.reshape(math.prod(x.shape[:axis]), -1), 1).reshape(x.shape)

    return softmax


def _constant(a: Attributes, _: list[Any]) -> Tensor:
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        if name in a:
            return tensor(a[name])
    raise NotImplementedError("a Constant that holds no numbers")


def _depth_to_space(a: Attributes, i: list[Any]) -> Tensor:
    x, size = i[0], a["blocksize"]
    if a.get("mode", b"DCR") in (b"CRD", "CRD"):
        return F.pixel_shuffle(x, size)
    n, c, h, w = x.shape
    return x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, -1, h * size, w * size)


def _space_to_depth(a: Attributes, i: list[Any]) -> Tensor:
    x, size = i[0], a["blocksize"]
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // size, size, w // size, size)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(n, -1, h // size, w // size)


def _div(_: Attributes, i: list[Any]) -> Tensor:
    x, y = tensor(i[0]), tensor(i[1])
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _each(how: Callable[..., Tensor]) -> Operator:
    return lambda _, i: how(*map(tensor, i))


def _all(how: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def fold(_: Attributes, i: list[Any]) -> Tensor:
        found = tensor(i[0])
        for other in i[1:]:
            found = how(found, tensor(other))
        return found

    return fold


def _gelu(a: Attributes, i: list[Any]) -> Tensor:
    return F.gelu(i[0], approximate="tanh" if a.get("approximate") in (b"tanh", "tanh") else "none")


OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        "Abs": _each(torch.abs),
        "Add": _each(torch.add),
        "And": _each(torch.logical_and),
        "AveragePool": windows.average_pool,
        "BatchNormalization": _batch_norm,
        "Cast": lambda a, i: tensor(i[0]).to(TYPES[a["to"]]),
        "Ceil": _each(torch.ceil),
        "Celu": lambda a, i: F.celu(i[0], a.get("alpha", 1.0)),
        "Clip": _clip,
        "Concat": lambda a, i: torch.cat([tensor(v) for v in i], a["axis"]),
        "Constant": _constant,
        "ConstantOfShape": lambda a, i: (
            tensor(a.get("value", torch.zeros(1))).reshape(-1)[0].expand(ints(i[0])).clone()
        ),
        "Conv": windows.conv,
        "ConvTranspose": windows.conv_transpose,
        "Cos": _each(torch.cos),
        "DepthToSpace": _depth_to_space,
        "Div": _div,
        "Dropout": lambda _, i: i[0],
        "Einsum": lambda a, i: torch.einsum(a["equation"].decode(), *i),
        "Elu": lambda a, i: F.elu(i[0], a.get("alpha", 1.0)),
        "Equal": _each(torch.eq),
        "Erf": _each(torch.erf),
        "Exp": _each(torch.exp),
        "Expand": lambda _, i: i[0] * torch.ones(ints(i[1]), dtype=i[0].dtype, device=i[0].device),
        "Flatten": _flatten,
        "Floor": _each(torch.floor),
        "Gather": _gather,
        "Gelu": _gelu,
        "Gemm": _gemm,
        "GlobalAveragePool": lambda _, i: i[0].mean(tuple(range(2, i[0].ndim)), keepdim=True),
        "GlobalMaxPool": lambda _, i: i[0].amax(tuple(range(2, i[0].ndim)), keepdim=True),
        "Greater": _each(torch.gt),
        "GroupNormalization": _group_norm,
        "HardSigmoid": lambda a, i: (a.get("alpha", 0.2) * i[0] + a.get("beta", 0.5)).clamp(0, 1),
        "HardSwish": _each(F.hardswish),
        "Identity": lambda _, i: i[0],
        "InstanceNormalization": lambda a, i: F.instance_norm(i[0], weight=i[1], bias=i[2], eps=a.get("epsilon", 1e-5)),
        "LRN": lambda a, i: F.local_response_norm(
            i[0], a["size"], a.get("alpha", 1e-4), a.get("beta", 0.75), a.get("bias", 1.0)
        ),
        "LayerNormalization": _layer_norm,
        "LeakyRelu": lambda a, i: F.leaky_relu(i[0], a.get("alpha", 0.01)),
        "Less": _each(torch.lt),
        "Log": _each(torch.log),
        "LogSoftmax": _softmax(torch.log_softmax),
        "MatMul": _each(torch.matmul),
        "Max": _all(torch.maximum),
        "MaxPool": windows.max_pool,
        "Min": _all(torch.minimum),
        "Mish": _each(F.mish),
        "Mul": _each(torch.mul),
        "Neg": _each(torch.neg),
        "Not": _each(torch.logical_not),
        "Or": _each(torch.logical_or),
        "PRelu": lambda _, i: torch.where(i[0] >= 0, i[0], i[0] * i[1]),
        "Pad": _pad,
        "Pow": _each(torch.pow),
        "Range": lambda _, i: torch.arange(*(v.item() if isinstance(v, Tensor) else v for v in i)),
        "Reciprocal": _each(torch.reciprocal),
        "ReduceL2": _reduce(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
        "ReduceMax": _reduce(lambda x, axes, keep: x.amax(axes, keep)),
        "ReduceMean": _reduce(lambda x, axes, keep: x.mean(axes, keep)),
        "ReduceMin": _reduce(lambda x, axes, keep: x.amin(axes, keep)),
        "ReduceSum": _reduce(lambda x, axes, keep: x.sum(axes, keep)),
        "Relu": _each(torch.relu),
        "Reshape": _reshape,
        "Resize": _resize,
        "Selu": lambda a, i: a.get("gamma", 1.0507009873554805) * F.elu(i[0], a.get("alpha", 1.6732632423543772)),
        "Shape": lambda a, i: torch.tensor(list(i[0].shape)[a.get("start", 0) : a.get("end")]),
        "Sigmoid": _each(torch.sigmoid),
        "Sin": _each(torch.sin),
        "Slice": _slice,
        "Softmax": _softmax(torch.softmax),
        "Softplus": _each(F.softplus),
        "Softsign": _each(F.softsign),
        "SpaceToDepth": _space_to_depth,
        "Split": _split,
        "Sqrt": _each(torch.sqrt),
        "Squeeze": _squeeze,
        "Sub": _each(torch.sub),
        "Sum": _all(torch.add),
        "Swish": lambda a, i: i[0] * torch.sigmoid(a.get("alpha", 1.0) * i[0]),
        "Tanh": _each(torch.tanh),
        "ThresholdedRelu": lambda a, i: torch.where(i[0] > a.get("alpha", 1.0), i[0], 0.0),
        "Tile": lambda _, i: i[0].repeat(ints(i[1])),
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
        "Upsample": _resize,
        "Where": _each(torch.where),
    }
)
"""What an ONNX file may hold to become a target. Quantised, sequence, control-flow and detection operators are not among them."""
