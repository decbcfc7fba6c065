"""The decoy and the decision as files of their own for other runtimes: ONNX, or a `torch.export` program (`.pt2`).

They are two files because they belong on two machines: whoever can query the decoy must not reach the decision.
"""

import importlib
import io
import logging
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from luring import answers, guard
from luring.atomic import replacing
from luring.errors import InputError
from luring.guard import Detector
from luring.types import Shape

OPSET = 18
"""Of the ONNX files: runtimes have known it since 2023."""

TOLERANCE = 1e-4
"""Of a file's logits against the network's."""
_SIZES = ({0: torch.export.Dim("batch", min=1)},)


class Decision(nn.Module):
    """A detector as one network: images to M's label, the score, and whether the image is flagged."""

    def __init__(self, detector: Detector) -> None:
        """The same networks, not copies of them.

        Raises:
            InputError: the detector has no threshold yet, or its networks are plain functions.
        """
        super().__init__()
        if not isinstance(detector.target, nn.Module) or not isinstance(detector.decoy, nn.Module):
            raise InputError("only a detector of two torch modules can be exported: this one has a plain function.")
        if detector.threshold is None:
            raise InputError("the detector has no threshold yet: run 'luring calibrate' on the bundle first.")
        self.target, self.decoy, self.policy, self.threshold = (
            detector.target,
            detector.decoy,
            detector.policy,
            detector.threshold,
        )
        self.known = detector.reference

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """M's label, int64; the score, float64; whether it is above the threshold, bool; [batch] each."""
        m, mop = self.target(images), self.decoy(images)
        scores = guard.scored(self.policy, m, mop, self.known)
        return m.argmax(1), scores, scores > self.threshold


@dataclass(frozen=True)
class Parity:
    """What a written file answers, beside the network it was written from.

    Attributes:
        n: images compared.
        largest: difference of logits, or of scores as a share of the score or of the threshold, whichever is higher.
        labels: whether all labels are the same, and all flags but where the score lies on the threshold.
    """

    n: int
    largest: float
    labels: bool


def decoy(path: Path, network: nn.Module, shape: Shape, images: Tensor) -> Parity:
    """Write M∘P: `images` to `logits`, [batch, classes] float32.

    Args:
        path: ends in `.onnx` or `.pt2`.
        network: M∘P, in evaluation mode.
        shape: of an image.
        images: that the file is compared on before it takes its place, bytes or floats in [0, 1].

    Raises:
        InputError: another ending, a library is missing, the network cannot be exported, or the file answers otherwise.
    """
    return _written(path, network, shape, ("logits",), images, 1.0)


def decision(path: Path, detector: Detector, shape: Shape, images: Tensor) -> Parity:
    """Write the decision: `images` to `label` (int64), `score` (float64) and `flagged` (bool), [batch] each; arguments as for `decoy`."""
    network = Decision(detector).eval()
    return _written(path, network, shape, ("label", "score", "flagged"), images, max(network.threshold, 1e-12))


def _written(
    path: Path, network: nn.Module, shape: Shape, outputs: tuple[str, ...], images: Tensor, unit: float
) -> Parity:
    if path.suffix not in (".onnx", ".pt2"):
        raise InputError(f"{path} ends neither in .onnx nor in .pt2: name the file so.")
    try:
        with _quiet():
            held = (_onnx if path.suffix == ".onnx" else _pt2)(network, shape, outputs)
            run = (_run_onnx if path.suffix == ".onnx" else _run_pt2)(held)
    except ImportError as error:
        raise InputError(f"{error.name} is missing: pip install 'luring[onnx]'.") from error
    except Exception as error:  # whatever an exporter makes of a network it does not understand
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"the network cannot be exported ({reason}): look for control flow that depends on values."
        ) from error
    found = _compared(network, run, images, unit)
    if not found.labels or not found.largest <= TOLERANCE:
        raise InputError(
            f"{path.name} does not answer as the network does (labels {'the same' if found.labels else 'differ'}, difference {found.largest:.2g} on "
            f"{found.n} images): nothing was written; export it in the other form."
        )
    with replacing(path) as file:
        file.write(held)
    return found


def _compared(network: nn.Module, run: Callable[[Tensor], list[Tensor]], images: Tensor, unit: float) -> Parity:
    largest, same = 0.0, True
    with torch.no_grad():
        for part in images.split(500):
            x = answers.prepare(part, network)
            wanted = network(x)
            wanted = list(wanted) if isinstance(wanted, tuple) else [wanted]
            for a, b in zip(wanted, run(x.contiguous()), strict=True):
                if a.is_floating_point():
                    # Logits in logits; a score far above the threshold in shares of itself.
                    size = a.abs().clamp_min(unit) if a.ndim == 1 else torch.ones(())
                    largest = max(largest, float(((a - b).abs() / size).max()))
                    same = same and (a.ndim < 2 or bool((a.argmax(1) == b.argmax(1)).all()))
                elif a.dtype == torch.bool:
                    # A score that lies on the threshold may fall on either side.
                    sure = (wanted[1] - unit).abs() > TOLERANCE * unit
                    same = same and torch.equal(a[sure], b[sure])
                else:
                    same = same and torch.equal(a, b)
    return Parity(len(images), largest, same)


def _pt2(network: nn.Module, shape: Shape, _outputs: tuple[str, ...]) -> bytes:
    held = io.BytesIO()
    torch.export.save(torch.export.export(network, (torch.rand(2, *shape),), dynamic_shapes=_SIZES), held)
    return held.getvalue()


def _onnx(network: nn.Module, shape: Shape, outputs: tuple[str, ...]) -> bytes:
    for library in ("onnx", "onnxscript", "onnxruntime"):
        importlib.import_module(library)  # missed before the export, not after it
    made = torch.onnx.export(
        network,
        (torch.rand(2, *shape),),
        dynamo=True,
        dynamic_shapes=_SIZES,
        input_names=["images"],
        output_names=list(outputs),
        opset_version=OPSET,
        verbose=False,
    )
    assert made is not None
    written = made.model_proto
    # Where on this machine each step was written is nobody's business elsewhere.
    for part in (written, written.graph, *written.graph.node, *written.graph.value_info):
        del part.metadata_props[:]
    return written.SerializeToString()


def _run_pt2(held: bytes) -> Callable[[Tensor], list[Tensor]]:
    network = torch.export.load(io.BytesIO(held)).module()

    def run(x: Tensor) -> list[Tensor]:
        found = network(x)
        return list(found) if isinstance(found, tuple) else [found]

    return run


def _run_onnx(held: bytes) -> Callable[[Tensor], list[Tensor]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(held, providers=["CPUExecutionProvider"])
    return lambda x: [torch.from_numpy(found) for found in session.run(None, {"images": x.numpy()})]


def triton(folder: Path, name: str, shape: Shape, classes: int) -> Path:
    """Write a model's `config.pbtxt` into a Triton model repository, which KServe's Triton runtime reads as well.

    Args:
        folder: the repository.
        name: `decoy` or `decision`.
        shape: of an image.
        classes: their number.

    Returns:
        Where the model's ONNX file belongs.
    """
    one = "dims: [ 1 ] reshape: { shape: [ ] }"  # Triton wants a dimension where ours is [batch]
    outputs = {
        "decoy": (("logits", "FP32", f"dims: [ {classes} ]"),),
        "decision": (("label", "INT64", one), ("score", "FP64", one), ("flagged", "BOOL", one)),
    }[name]
    listed = ",\n".join(f'  {{ name: "{output}" data_type: TYPE_{kind} {dims} }}' for output, kind, dims in outputs)
    text = f"""\
name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: 128
input [
  {{ name: "images" data_type: TYPE_FP32 dims: [ {", ".join(map(str, shape))} ] }}
]
output [
{listed}
]
dynamic_batching {{
  default_queue_policy {{ max_queue_size: 1024 default_timeout_microseconds: 5000000 }}
}}
"""
    with replacing(folder / name / "config.pbtxt") as file:
        file.write(text.encode())
    return folder / name / "1" / "model.onnx"


@contextmanager
def _quiet() -> Generator[None]:
    """What the exporters say of their own insides is nothing to the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
