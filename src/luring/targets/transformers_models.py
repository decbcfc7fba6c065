"""Targets from 🤗 transformers: image classification models, from the hub or a local folder. Code in a repository is never run."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from luring.errors import InputError, first_line
from luring.scaling import Method, Scaling
from luring.targets.libraries import library, refusal
from luring.targets.preprocessing import Preprocessed, Preprocessing
from luring.targets.target import Target

LOADS = ("timm_wrapper",)
"""Model types whose config names further models to be fetched."""
METHODS: Mapping[int, Method] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, as `preprocessor_config.json` has them."""


class Logits(nn.Module):
    """A transformers model as a function from tensor to tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images to logits."""
        return self.model(pixel_values=images).logits


def load(name: str, *, bare: bool = False) -> Target:
    """An image classification model.

    Args:
        name: `hf:OWNER/NAME` on the hub, or a folder with `config.json`, `model.safetensors` and `preprocessor_config.json`.
        bare: with fresh weights, for others to be put in.

    Raises:
        InputError: no such model, no safetensors, a model that brings code of its own, or no preprocessing.
    """
    transformers, where = _transformers(), name.removeprefix("hf:")
    folder = Path(where).expanduser()
    if not folder.is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+", where):
        raise InputError(f"there is no folder {where}, and it is no hub id (owner/name): check the name.")
    try:
        config: Any = transformers.AutoConfig.from_pretrained(where, trust_remote_code=False)
        _check(transformers, str(config.model_type))
        if bare:
            model = transformers.AutoModelForImageClassification.from_config(config, trust_remote_code=False)
        else:
            model = transformers.AutoModelForImageClassification.from_pretrained(
                where, trust_remote_code=False, use_safetensors=True
            )
    except InputError:
        raise
    except ImportError as error:  # its parts are imported when they are used
        raise refusal("transformers", error) from error
    except Exception as error:  # each layer between here and the hub has its own
        raise InputError(
            f"{where} cannot be loaded as an image classifier ({first_line(error)}): give a hub id or a folder with config.json and model.safetensors."
        ) from error
    preprocessing = _preprocessing(_processor(where, folder), config, where)
    return _target(model, folder.name if folder.is_dir() else name, config, preprocessing)


def rebuilt(name: str, config: Mapping[str, Any]) -> Target:
    """The model that a bundle's config describes, with fresh weights and without its preprocessing.

    Raises:
        InputError: it is no image classifier of transformers' own.
        ValueError, KeyError, TypeError: the config is damaged.
    """
    transformers, said = _transformers(), _plain(config["model"])
    kind = str(said.pop("model_type"))
    _check(transformers, kind)
    try:
        made: Any = transformers.AutoConfig.for_model(kind, **said)
        model = transformers.AutoModelForImageClassification.from_config(made, trust_remote_code=False)
    except ImportError as error:
        raise refusal("transformers", error) from error
    except Exception as error:  # whatever a model makes of numbers that do not fit
        raise InputError(f"the {kind} that the bundle describes cannot be made ({first_line(error)}).") from error
    return _target(model, name, made, Preprocessing())


def _transformers() -> Any:
    transformers: Any = library("transformers")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _check(transformers: Any, kind: str) -> None:
    known = transformers.models.auto.modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    if kind not in known or kind in LOADS:
        raise InputError(
            f"a model of the type {kind!r} is no image classifier of transformers {transformers.__version__}: give one that is."
        )


def _plain(said: Any) -> dict[str, Any]:
    """A config's own numbers: without what names code, kernels or other models to be fetched."""
    names = ("auto_map", "quantization_config", "attn_implementation", "backbone", "backbone_config", "backbone_kwargs")
    return {
        str(key): _plain(value) if isinstance(value, dict) else value
        for key, value in dict(said).items()
        if not str(key).startswith("_") and key not in names
    }


def _target(model: nn.Module, name: str, config: Any, preprocessing: Preprocessing) -> Target:
    labels: dict[int, str] = dict(config.id2label)
    classes = tuple(str(labels[index]) for index in sorted(labels))
    said = {"model": json.loads(json.dumps(_plain(config.to_dict())))}
    return Target(Preprocessed(Logits(model), preprocessing).eval(), "transformers", name, classes, said)


def _processor(where: str, folder: Path) -> dict[str, Any]:
    """The model's `preprocessor_config.json`."""
    try:
        if folder.is_dir():
            path = folder / "preprocessor_config.json"
        else:
            from huggingface_hub import hf_hub_download

            path = Path(hf_hub_download(where, "preprocessor_config.json"))
        said: dict[str, Any] = json.loads(path.read_text())
        return dict(said)
    except Exception as error:  # each version of the hub's client has its own
        raise InputError(
            f"{where} has no preprocessor_config.json that can be read ({first_line(error)}): without it nobody knows what its images look like; write one."
        ) from error


def _preprocessing(said: Mapping[str, Any], config: Any, where: str) -> Preprocessing:
    """What a processor does, in units of images in [0, 1]."""
    channels = int(getattr(config, "num_channels", 3))
    try:
        scaling = None
        method: Method = METHODS.get(int(said.get("resample") or 2), "bicubic")
        size: Any = said.get("size") if said.get("do_resize", True) else None
        size = {"height": size, "width": size} if isinstance(size, int) and "crop_pct" not in said else size
        cut: Any = said.get("crop_size") if said.get("do_center_crop") else None
        cut = {"height": cut, "width": cut} if isinstance(cut, int) else cut
        if isinstance(size, dict) and "shortest_edge" in size:
            edge = int(size["shortest_edge"])
            height, width = (int(cut["height"]), int(cut["width"])) if cut else (edge, edge)
            share = 1.0 if cut is None and "crop_pct" not in said else min(1.0, min(height, width) / edge)
            if cut is None and "crop_pct" in said and edge < 384:  # ConvNeXt's way: above, it squashes
                share = float(said["crop_pct"])
            scaling = Scaling(height, width, share, "crop_pct" in said and edge >= 384, method)
        elif isinstance(size, dict):
            scaling = Scaling(int(size["height"]), int(size["width"]), 1.0, cut is None, method)
            if cut is not None:
                share = min(1.0, int(cut["height"]) / scaling.height)
                scaling = Scaling(int(cut["height"]), int(cut["width"]), share, False, method)
        factor = float(said.get("rescale_factor") or 1 / 255) * 255 if said.get("do_rescale", True) else 255.0
        normalised = said.get("do_normalize", True)
        mean = tuple(float(v) / factor for v in (said["image_mean"] if normalised else (0.0,)))
        std = tuple(float(v) / factor for v in (said["image_std"] if normalised else (1.0,)))
        return Preprocessing(scaling, channels, mean, std)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the preprocessor_config.json of {where} cannot be used ({type(error).__name__}: {first_line(error)}): correct it."
        ) from error
