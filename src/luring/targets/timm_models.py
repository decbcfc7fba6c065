"""Targets from timm: `timm:NAME`, with pretrained weights from the hub or with a file of one's own."""

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from luring.errors import InputError, first_line
from luring.scaling import Method, Scaling
from luring.targets.libraries import library
from luring.targets.preprocessing import Preprocessed, Preprocessing
from luring.targets.target import Target

log = logging.getLogger("luring")


def load(name: str, weights: Mapping[str, Tensor] | None) -> Target:
    """A timm model.

    Args:
        name: `timm:NAME`, with the tag of pretrained weights where there are several.
        weights: its state_dict, from which classes, channels and, for vision transformers, the size of the images are read; without, the
            pretrained ones are downloaded.

    Raises:
        InputError: no such model, no hub, or weights of another one.
    """
    timm, model = library("timm"), name.removeprefix("timm:")
    _known(timm, model)
    if weights is None:
        try:
            network: Any = timm.create_model(model, pretrained=True)
        except Exception as error:  # each layer between here and the hub has its own
            raise InputError(
                f"the pretrained weights of {name} cannot be had ({first_line(error)}): give a safetensors file of its state_dict with --weights."
            ) from error
        arguments = {"num_classes": int(network.num_classes), "in_chans": _channels(network)}
    else:
        arguments = _arguments(timm, model, weights)
        network = _made(timm, model, arguments)
    return _target(network, name, model, arguments)


def rebuilt(name: str, config: Mapping[str, Any]) -> Target:
    """The model that a bundle's config describes, with fresh weights.

    Raises:
        InputError: no such model here.
        ValueError, KeyError, TypeError: the config is damaged.
    """
    timm, model = library("timm"), str(config["model"])
    _known(timm, model)
    said = config["arguments"]
    arguments = {key: int(said[key]) for key in ("num_classes", "in_chans", "img_size") if key in said}
    return _target(_made(timm, model, arguments), name, model, arguments)


def _known(timm: Any, model: str) -> None:
    """Names in timm's own table, nothing else: other names of timm's (`hf-hub:`, `local-dir:`) go out and read files."""
    plain = re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?", model) is not None
    if not plain or not timm.is_model(model.partition(".")[0]):
        near: list[str] = timm.list_models(f"*{model[:6]}*")[:3] if plain else []
        raise InputError(
            f"timm {timm.__version__} has no model {model!r}: give one of timm.list_models()"
            + (f", such as {', '.join(near)}." if near else ".")
        )


def _made(timm: Any, model: str, arguments: Mapping[str, int]) -> nn.Module:
    try:
        made: nn.Module = timm.create_model(model, pretrained=False, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InputError(f"timm cannot make {model} with {dict(arguments)} ({first_line(error)}).") from error
    return made


def _arguments(timm: Any, model: str, weights: Mapping[str, Tensor]) -> dict[str, int]:
    """What the shapes of the weights say of a model."""
    known: Any = timm.get_pretrained_cfg(model)
    arguments: dict[str, int] = {}
    head = known.classifier if isinstance(known.classifier, str) else next(iter(known.classifier or ()), "")
    if (last := weights.get(f"{head}.weight")) is not None:
        arguments["num_classes"] = last.shape[0]
    first = known.first_conv if isinstance(known.first_conv, str) else next(iter(known.first_conv or ()), "")
    if (conv := weights.get(f"{first}.weight")) is not None and conv.ndim == 4:
        arguments["in_chans"] = conv.shape[1]
        position = weights.get("pos_embed")
        if position is not None and position.ndim == 3:
            prefix = sum(name in weights for name in ("cls_token", "dist_token"))
            prefix += weights["reg_token"].shape[1] if "reg_token" in weights else 0
            for extra in (prefix, 0):  # some models give the class token no place
                side = math.isqrt(max(0, position.shape[1] - extra))
                if side and side**2 == position.shape[1] - extra:
                    arguments["img_size"] = side * conv.shape[2]
                    break
    return arguments


def _target(network: nn.Module, name: str, model: str, arguments: Mapping[str, int]) -> Target:
    from timm.data.config import resolve_data_config

    said: dict[str, Any] = resolve_data_config(model=network)
    height, width = (arguments["img_size"],) * 2 if "img_size" in arguments else said["input_size"][1:]
    method: Method = said["interpolation"] if said["interpolation"] in ("nearest", "bilinear") else "bicubic"
    channels = _channels(network)
    preprocessing = Preprocessing(
        Scaling(height, width, float(said["crop_pct"]), said["crop_mode"] == "squash", method),
        channels,
        *(_for(channels, said[part]) for part in ("mean", "std")),
    )
    config = {"model": model, "arguments": dict(arguments)}
    return Target(Preprocessed(network, preprocessing).eval(), "timm", name, config=config)


def _channels(network: nn.Module) -> int:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return 3


def _for(channels: int, values: tuple[float, ...]) -> tuple[float, ...]:
    """Of three channels, for as many as there are: timm sums the first layer's weights for grey, and grey is seen through the mean."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),)
