"""Targets from ONNX files: the graph becomes a PyTorch network, through which gradients flow; onnxruntime must say the same."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from luring.errors import InputError, first_line
from luring.scaling import Scaling
from luring.targets.exported import Fixed
from luring.targets.libraries import library
from luring.targets.onnx_operators import OPERATORS
from luring.targets.preprocessing import Preprocessed, Preprocessing
from luring.targets.target import Target

TOLERANCE = 1e-4
"""Of the logits against onnxruntime's, in units of the largest of them where that is above 1."""
DOMAINS = ("", "ai.onnx")
SIZED = ("Expand", "Pad", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Tile", "Unsqueeze")
"""Operators whose further inputs say sizes or axes; so do those of the operators that reduce."""
FREE = 32
"""Pixels a side that parity is checked on where the file does not say."""


class Graph(nn.Module):
    """An ONNX graph of one input and one output, run node by node."""

    def __init__(self, graph: Any, opset: int) -> None:
        """Take over weights and nodes; `graph` is an `onnx.GraphProto`.

        Raises:
            InputError: a node that has no counterpart here.
        """
        super().__init__()
        from onnx import helper, numpy_helper

        def plain(value: Any) -> Any:
            return torch.from_numpy(numpy_helper.to_array(value).copy()) if hasattr(value, "raw_data") else value

        self.lists: dict[str, list[int]] = {}
        self.small: dict[str, Tensor] = {}
        self.kept: dict[str, str] = {}
        for index, initial in enumerate(graph.initializer):
            self._keep(initial.name, plain(initial), index)
        names = {initial.name for initial in graph.initializer}
        self.input = next(entry.name for entry in graph.input if entry.name not in names)
        self.output = graph.output[0].name
        self.nodes: list[tuple[str, str, dict[str, Any], list[str], list[str]]] = []
        for at, node in enumerate(graph.node):
            if node.op_type not in OPERATORS or node.domain not in DOMAINS:
                where = f"node {node.name or at} is a {node.op_type}" + (f" of {node.domain}" if node.domain else "")
                raise InputError(
                    f"the ONNX file cannot become a PyTorch network: its {where}, which is not known here."
                )
            said = {a.name: plain(helper.get_attribute_value(a)) for a in node.attribute}
            if node.op_type == "Constant":
                self._keep(node.output[0], OPERATORS["Constant"](said, []), len(names) + at)
                continue
            said |= {"opset": opset, "outputs": len(node.output)}
            self.nodes.append((node.op_type, node.name or str(at), said, list(node.input), list(node.output)))
        last = {name: at for at, (*_, inputs, _) in enumerate(self.nodes) for name in inputs}
        self.done = [
            [name for name, when in last.items() if when == at and name != self.output] for at in range(len(self.nodes))
        ]

    def _keep(self, name: str, value: Tensor, index: int) -> None:
        if value.is_floating_point() and value.numel() > 1:
            self.kept[name] = f"weight_{index}"
            self.register_parameter(self.kept[name], nn.Parameter(value, requires_grad=False))
        elif value.is_floating_point():
            self.kept[name] = f"number_{index}"
            self.register_buffer(self.kept[name], value)
        else:
            self.small[name] = value
            if value.ndim <= 1 and value.dtype in (torch.int64, torch.int32):
                self.lists[name] = value.reshape(-1).tolist()

    def forward(self, images: Tensor) -> Tensor:
        """The graph's input to its output."""
        values: dict[str, Any] = {self.input: images, **self.small}
        values |= {name: getattr(self, kept) for name, kept in self.kept.items()}
        for (kind, name, said, inputs, outputs), done in zip(self.nodes, self.done, strict=True):
            given = [self._given(kind, at, values, one) for at, one in enumerate(inputs)]
            try:
                found = OPERATORS[kind](said, given)
            except NotImplementedError as error:
                raise InputError(
                    f"the ONNX file cannot become a PyTorch network: its node {name} is {error}, which is not known here."
                ) from error
            parts = found if isinstance(found, list) else [found]
            values |= dict(zip(outputs, parts, strict=False))
            for one in done:
                values.pop(one, None)
        return values[self.output]

    def _given(self, kind: str, at: int, values: dict[str, Any], name: str) -> Any:
        if not name:
            return None
        # Sizes and axes as Python's numbers, so that the network can be exported again.
        if at and name in self.lists and (kind in SIZED or kind.startswith("Reduce")):
            return self.lists[name]
        return values[name]


def load(path: Path) -> Target:
    """The classifier in a file.

    Raises:
        InputError: no such file, no ONNX, a node that is not known here, other inputs than images, or other logits than onnxruntime's.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}: check the path.")
    onnx: Any = library("onnx")
    onnxruntime: Any = library("onnxruntime")
    try:
        model = onnx.load(path, load_external_data=False)
        outside = [one.name for one in model.graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL]
    except Exception as error:  # whatever damaged protobuf brings about
        raise InputError(f"{path} is no ONNX file that can be read ({first_line(error)}): export it again.") from error
    if outside:
        raise InputError(
            f"{path} keeps its weights in other files ({outside[0]}, …): save it as one file (onnx.save_model with save_as_external_data=False)."
        )
    opset = next((one.version for one in model.opset_import if one.domain in DOMAINS), 0)
    sides = _sides(model.graph, path)
    graph = Graph(model.graph, opset)
    batch, channels, height, width = sides
    scaling = Scaling(height, width) if height and width else None
    network = Fixed(graph, batch)
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path, session_options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own, a class for each reason
        raise InputError(f"onnxruntime cannot run {path} ({first_line(error)}): export it again.") from error
    _compare(network, session, path, [batch or 2, channels or 3, height or FREE, width or FREE])
    preprocessing = Preprocessing(scaling, channels if channels in (1, 3) else None)
    return Target(Preprocessed(network, preprocessing).eval(), "onnx", path.name, file=path)


def _sides(graph: Any, path: Path) -> list[int | None]:
    names = {initial.name for initial in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in names]
    shape = inputs[0].type.tensor_type.shape.dim if len(inputs) == 1 else []
    sides = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in shape]
    if len(sides) != 4 or inputs[0].type.tensor_type.elem_type != 1 or not graph.output:
        raise InputError(
            f"{path} does not take one float32 tensor [batch, channels, height, width]: export the classifier alone."
        )
    if sides[1] not in (None, 1, 3) and sides[3] in (1, 3):
        raise InputError(f"{path} takes images with channels last: export it with [batch, channels, height, width].")
    return sides


def _compare(network: nn.Module, session: Any, path: Path, shape: Sequence[int]) -> None:
    """Noise through both, in and beyond the range that normalised images have."""
    images = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    name = session.get_inputs()[0].name
    try:
        theirs = torch.from_numpy(session.run(None, {name: images.numpy()})[0])
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours = network(images)
    except InputError:
        raise
    except Exception as error:  # either side's
        raise InputError(
            f"{path} could not be compared on images {list(shape)} ({type(error).__name__}: {first_line(error)}): export it with fixed sides."
        ) from error
    if ours.shape != theirs.shape:
        raise InputError(
            f"{path} gave {list(ours.shape)} here and {list(theirs.shape)} in onnxruntime: it cannot be used."
        )
    largest = float((ours - theirs).abs().max())
    if not largest <= TOLERANCE * max(1.0, float(theirs.abs().max())):
        raise InputError(
            f"{path} answers otherwise here than in onnxruntime (largest difference {largest:.1e}, allowed {TOLERANCE:g}): it cannot be used."
        )
