"""Five kinds of trained classifiers, protected and attacked as an operator would do it: `python benchmarks/classifiers.py WORK OUT [NAME …]`.

A small ResNet and a vision transformer of timm, a vision transformer of transformers, a program of torch.export and an ONNX file, each trained from labels
for a while in WORK as somebody else's would be. Their images are pictures in class folders in WORK, from CIFAR10, MNIST and Fashion-MNIST (in
LURING_DATA) and the digits. Then `luring fit`, `luring calibrate` and `luring evaluate`; rows go to OUT/NAME/rows.jsonl. It goes on where it stopped.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision_operators import name_operators

from luring import cli, data, networks, training
from luring.training import Schedule
from luring.weights import write_tensors

HALF = (0.5, 0.5, 0.5)
FIT = ("--lure", "plain-16-2", "--lam", "0.1", "--gap-max", "15", "--lr", "3e-3", "--precision", "bfloat16")
"""The classifiers are so small that a quarter of their cost would leave next to nothing for a lure: it is named."""
ATTACK = ("--attacks", "mim,dim-ti", "--steps", "20", "--n", "200")
PICTURES = 6000
"""Of each data set, all kinds together."""


class Normalised(nn.Module):
    """A classifier of normalised images, for images in [0, 1]."""

    def __init__(self, classifier: nn.Module, *, colour: bool) -> None:
        """Of a classifier; one of colour images is given grey ones three times."""
        super().__init__()
        self.classifier, self.channels = classifier, 3 if colour else -1

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        found = self.classifier((images.expand(-1, self.channels, -1, -1) - 0.5) / 0.5)
        return found if isinstance(found, Tensor) else found.logits


def timm(name: str, **arguments: object) -> Callable[[], nn.Module]:
    """A network of timm, untrained."""

    def make() -> nn.Module:
        from timm import create_model

        return create_model(name, pretrained=False, **arguments)

    return make


def transformers_vit() -> nn.Module:
    """A small vision transformer of transformers for 28 by 28."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=96, num_hidden_layers=4, num_attention_heads=4, intermediate_size=192, image_size=28, patch_size=4,
        num_labels=10, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return ViTForImageClassification(config)


def as_weights(model: nn.Module, work: Path, _: Tensor) -> tuple[str, ...]:
    """Of a network of timm: its weights alone."""
    write_tensors(work / "weights.safetensors", model.state_dict())
    return ("--weights", str(work / "weights.safetensors"))


def as_folder(model: nn.Module, work: Path, images: Tensor) -> tuple[str, ...]:
    """Of a network of transformers: its folder, with the preprocessing."""
    model.save_pretrained(work / "model")  # pyright: ignore[reportCallIssue]
    size = {"height": images.shape[2], "width": images.shape[3]}
    said = {"do_resize": True, "size": size, "do_normalize": True, "image_mean": HALF, "image_std": HALF}
    (work / "model/preprocessor_config.json").write_text(json.dumps(said))
    return ("--target", str(work / "model"))


def as_program(model: nn.Module, work: Path, images: Tensor) -> tuple[str, ...]:
    """A program of torch.export."""
    free = ({0: torch.export.Dim("batch", min=1)},)
    torch.export.save(torch.export.export(model, (images[:2],), dynamic_shapes=free), work / "model.pt2")
    return ("--target", str(work / "model.pt2"), "--mean", "0.5", "--std", "0.5")


def as_onnx(model: nn.Module, work: Path, images: Tensor) -> tuple[str, ...]:
    """An ONNX file."""
    named = {"input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}, "opset_version": 17}
    torch.onnx.export(model, (images[:2],), work / "model.onnx", dynamo=False, **named)  # type: ignore[arg-type]
    return ("--target", str(work / "model.onnx"), "--mean", "0.5", "--std", "0.5")


@dataclass(frozen=True)
class Case:
    """A classifier, how it is kept, its images, and the radius of the attack.

    Attributes:
        make: the untrained classifier.
        keep: leaves it in a folder when it is trained, and says what `luring fit` is told of it.
        data: its pictures come from.
        eps: radius.
        more: what `luring fit` is told besides.
        kinds: classes taken; all, where there are none.
        size: pixels a side that pictures are brought to; none: as they are.
        steps: that the classifier is trained for.
        fitted: steps of the lure.
    """

    make: Callable[[], nn.Module]
    keep: Callable[[nn.Module, Path, Tensor], tuple[str, ...]]
    data: str
    eps: float
    more: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    size: int | None = None
    steps: int = 1500
    fitted: int = 1500


CASES: Mapping[str, Case] = {
    "timm-resnet": Case(
        timm("test_resnet", num_classes=10), as_weights, "cifar10", 0.03,
        ("--target", "timm:test_resnet", "--input-size", "32"), fitted=4000,
    ),
    "timm-vit": Case(
        timm("test_vit", num_classes=10, img_size=32), as_weights, "mnist", 0.3, ("--target", "timm:test_vit"), size=32
    ),
    "transformers-vit": Case(transformers_vit, as_folder, "fashion_mnist", 0.1, steps=500, fitted=700),
    "program": Case(lambda: networks.make_target("plain", (1, 8, 8), 10), as_program, "digits", 0.1),
    "onnx-resnet": Case(
        timm("test_resnet", num_classes=2), as_onnx, "cifar10", 0.03, kinds=("automobile", "horse"), steps=500
    ),
}  # fmt: skip


def pictures(case: Case, folder: Path) -> None:
    """Training images of a data set as pictures, a folder a class; folders that are there already are kept."""
    from PIL import Image

    if folder.exists():
        return
    found = data.load(case.data)
    begun = folder.with_suffix(".begun")
    shutil.rmtree(begun, ignore_errors=True)
    kinds = case.kinds or found.classes
    for kind in kinds:
        own = begun / kind.replace("/", " or ")
        own.mkdir(parents=True)
        chosen = found.train.images[found.train.labels == found.classes.index(kind)][: PICTURES // len(kinds)]
        if chosen.is_floating_point():
            chosen = (chosen * 255).round().to(torch.uint8)
        for number, image in enumerate(chosen):
            picture = Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy())
            if case.size is not None:
                picture = picture.resize((case.size, case.size), Image.Resampling.BICUBIC)
            picture.save(own / f"{number:05}.png")
    begun.rename(folder)


def luring(*arguments: str) -> None:
    """One command, in this process."""
    print("$ luring", " ".join(arguments), flush=True)
    sys.argv = ["luring", *arguments]
    try:
        cli.main()
    except SystemExit as stop:
        if stop.code:
            raise


def protect(name: str, case: Case, out: Path) -> None:
    """Train, fit, calibrate and attack one, in the current folder; what is there already is kept."""
    where, bundle, kept = "./pictures", Path("bundle"), Path("kept.json")
    pictures(case, Path("pictures"))
    if not kept.exists():
        found = data.load(where)
        torch.manual_seed(0)
        model = case.make()
        network = Normalised(model, colour=case.keep is not as_program)
        schedule = Schedule(case.steps, lr=2e-3, precision="bfloat16", validations=6)
        training.classifier(network, found.train, found.validation, schedule=schedule, state=Path("state"), name=name)
        model.eval().to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        some = found.test.images[:2].float() / 255
        kept.write_text(json.dumps([*case.keep(model, Path(), some), *case.more]))
    target, eps = tuple(json.loads(kept.read_text())), ("--eps", str(case.eps))
    if not (bundle / "config.json").exists():
        luring("fit", "--data", where, *target, "--out", str(bundle), "--steps", str(case.fitted), *FIT)
    given = ("--data", where, *(() if _held(bundle) else _named(target)))
    if not (bundle / "guard.json").exists():
        luring("calibrate", str(bundle), *given, *ATTACK, *eps)
    luring("evaluate", str(bundle), *given, *ATTACK, *eps, "--out", str(out / name))


def _held(bundle: Path) -> bool:
    return (bundle / "target.safetensors").exists()


def _named(target: tuple[str, ...]) -> tuple[str, ...]:
    """Of the options of `fit`, those that say where the target lies."""
    pairs = zip(target[::2], target[1::2], strict=True)
    return tuple(part for name, value in pairs if name in ("--target", "--weights") for part in (name, value))


def main() -> None:
    """All of them, or the ones named."""
    work, out = (Path(name).resolve() for name in sys.argv[1:3])
    names = sys.argv[3:] or list(CASES)
    name_operators()
    for name in names:
        (work / name).mkdir(parents=True, exist_ok=True)
        os.chdir(work / name)
        protect(name, CASES[name], out)


if __name__ == "__main__":
    main()
