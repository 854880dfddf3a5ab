"""LoRAs: small changes to the weights of a pipeline (Hu et al., LoRA, 2021), added to them before the export.

A layer of a LoRA is two matrices, whose product is added to the weight of a layer of the UNet or a text
encoder, times `alpha` / rank and what the user says. Two layouts are in use: kohya's, which writes
underscores for dots and, for XL, names the UNet's layers as Stability's own program does; and those of
diffusers and peft. Others (LoHa, LoKr, DoRA, ...) are refused by name. (https://github.com/kohya-ss/sd-scripts;
diffusers' `loaders/lora_conversion_utils.py`.)
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from onnx_models.diffusers.tensors import Header, read_header
from onnx_models.errors import UnsuitableModelError

__all__ = ["Layer", "Lora", "merge", "original_name", "parse_lora", "read_layers"]

_SUFFIXES = (
    (re.compile(r"\.lora_(?P<part>down|up)\.weight$"), ""),
    (re.compile(r"\.lora_(?P<part>A|B)(\.[\w-]+)?\.weight$"), ""),
    (re.compile(r"\.lora(_linear_layer)?\.(?P<part>down|up)\.weight$"), ""),
    (re.compile(r"\.processor\.to_out_lora\.(?P<part>down|up)\.weight$"), ".to_out.0"),
    (re.compile(r"\.processor\.(?P<of>to_[qkv])_lora\.(?P<part>down|up)\.weight$"), ".{of}"),
    (re.compile(r"\.(?P<part>alpha)$"), ""),
)
"""How keys end, and what stands there in the name of the layer."""

_PARTS = {"down": "down", "A": "down", "up": "up", "B": "up", "alpha": "alpha"}
_TARGETS = (
    ("lora_unet_", "unet"),
    ("lora_te_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder.", "text_encoder"),
    ("unet.", "unet"),
)
_OTHERS = {
    "hada_": "a LoHa",
    "lokr_": "a LoKr",
    "dora_scale": "a DoRA",
    "lora_magnitude_vector": "a DoRA",
    "lora_mid": "a LoRA with three matrices a layer",
    "oft_": "an OFT",
    ".diff": "one of whole differences",
}


class Lora(Struct, frozen=True):
    """A file, and how much of it is to be added."""

    file: Path
    weight: float = 1.0


class Layer(Struct):
    """The keys of what is added to one layer."""

    target: str
    """The component."""
    name: str
    """The layer's, with underscores for dots."""
    down: str = ""
    up: str = ""
    alpha: str = ""


def parse_lora(text: str) -> Lora:
    """Read what a user gives: FILE, or FILE:weight.

    Raises:
        UnsuitableModelError: There is no such file, it is of another kind, or the weight is no number.
    """
    name, colon, weight = text.rpartition(":")
    if not colon or Path(text).exists():
        name, weight = text, "1"
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not -10 <= number <= 10:
        raise UnsuitableModelError(f"the weight of a LoRA is a number from -10 to 10, not {weight!r}")
    file = Path(name)
    if not file.is_file():
        raise UnsuitableModelError(f"there is no LoRA {name}")
    if file.suffix != ".safetensors":
        raise UnsuitableModelError(f"the LoRA {file.name} is no .safetensors, and others may hold code")
    return Lora(file, number)


def read_layers(lora: Lora) -> tuple[dict[tuple[str, str], Layer], Header]:
    """Read what layers a LoRA changes, by component and name.

    Raises:
        UnsuitableModelError: It is none, is broken, or has a layout that is not offered.
    """
    header = read_header(lora.file)
    layers: dict[tuple[str, str], Layer] = {}
    for key in header.shapes:
        target, name, part = _parsed(key, lora)
        layer = layers.setdefault((target, name), Layer(target, name))
        setattr(layer, part, key)
    if not layers:
        raise UnsuitableModelError(f"the LoRA {lora.file.name} is empty")
    for layer in layers.values():
        if not layer.down or not layer.up:
            raise UnsuitableModelError(f"the LoRA {lora.file.name} lacks a matrix of {layer.name}")
    return layers, header


def _parsed(key: str, lora: Lora) -> tuple[str, str, str]:
    """The component, the layer's name and which of its numbers a key stands for."""
    for pattern, tail in _SUFFIXES:
        if (found := pattern.search(key)) is not None:
            groups = found.groupdict()
            name = key[: found.start()] + tail.format(**groups)
            prefix, target = next((each for each in _TARGETS if name.startswith(each[0])), ("", "unet"))
            return target, _flat(name.removeprefix(prefix)), _PARTS[groups["part"]]
    for part, what in _OTHERS.items():
        if part in key:
            raise UnsuitableModelError(f"the LoRA {lora.file.name} is {what}, which is not offered ({key})")
    raise UnsuitableModelError(f"the LoRA {lora.file.name} has a layout that is not known: {key}")


def _flat(name: str) -> str:
    """A layer's name with underscores for dots; of text encoders without what not all put in front."""
    return name.replace(".", "_").removeprefix("text_model_")


def merge(lora: Lora, components: Mapping[str, Any]) -> None:
    """Add a LoRA to the weights of a pipeline's components.

    Args:
        lora: What is to be added.
        components: Networks of PyTorch, by name; they are changed.

    Raises:
        UnsuitableModelError: It does not fit, is broken, or has a layout that is not offered.
    """
    import torch  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    layers, header = read_layers(lora)
    known = {
        (target, name): layer
        for target, network in components.items()
        for name, layer in _names(network, target)
    }
    strange = [layer for place, layer in layers.items() if place not in known]
    if strange:
        raise UnsuitableModelError(
            f"the LoRA {lora.file.name} is for another model: {len(strange)} of its {len(layers)} layers fit "
            f"nothing, such as {strange[0].down}"
        )
    numbers = load_file(lora.file)
    noted = _noted_alphas(lora, header)
    with torch.no_grad():
        for place, layer in layers.items():
            weight, (down, up) = known[place].weight, (numbers[key].float() for key in (layer.down, layer.up))
            up, down, whole = (each.flatten(1) for each in (up, down, weight))
            if (len(up), len(down), down.shape[1]) != (len(whole), up.shape[1], whole.shape[1]):
                raise UnsuitableModelError(
                    f"the LoRA {lora.file.name} is for another model: {layer.name} is {[*up.shape]} times "
                    f"{[*down.shape]}, not {[*whole.shape]}"
                )
            change, rank = up @ down, len(down)
            alpha = float(numbers[layer.alpha]) if layer.alpha else noted.get(layer.target, rank)
            weight += change.reshape(weight.shape) * (lora.weight * alpha / rank)


def _noted_alphas(lora: Lora, header: Header) -> dict[str, float]:
    """Alphas by component, which diffusers writes into the file's notes where peft has no keys for them."""
    try:
        notes = json.loads(header.notes.get("lora_adapter_metadata", "{}"))
        alphas = {
            key.removesuffix(".lora_alpha"): float(value)
            for key, value in notes.items()
            if key.endswith(".lora_alpha")
        }
        unknown = [
            key
            for key, value in notes.items()
            if value and key.endswith((".alpha_pattern", ".use_rslora", ".use_dora"))
        ]
    except (ValueError, TypeError, AttributeError) as error:
        raise UnsuitableModelError(f"the notes in the LoRA {lora.file.name} are broken") from error
    if unknown:
        raise UnsuitableModelError(f"the LoRA {lora.file.name} has {unknown[0]}, which is not offered")
    return alphas


def _names(network: Any, target: str) -> Iterator[tuple[str, Any]]:
    """The layers that a LoRA can change, by each name that they go by."""
    for name, layer in network.named_modules():
        if getattr(layer, "weight", None) is None or layer.weight.ndim not in (2, 4):
            continue
        yield _flat(name), layer
        if target == "unet" and isinstance(network.config.layers_per_block, int):
            yield original_name(name, network.config.layers_per_block).replace(".", "_"), layer


_OF_BLOCK = re.compile(
    r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)"
)
_ORIGINAL = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_ORIGINAL_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def original_name(name: str, layers: int) -> str:
    """What Stability's program calls a layer of XL's UNet, by its name in diffusers.

    Args:
        name: Such as `down_blocks.1.attentions.0.proj_in`.
        layers: How many layers a block has.
    """
    found = _OF_BLOCK.fullmatch(name)
    if found is None:
        return _ORIGINAL.get(name, name)
    side, block, kind, index, rest = found[1], int(found[2] or 0), found[3], int(found[4]), found[5]
    place = block * (layers + 1) + index
    if kind == "downsamplers":
        return f"input_blocks.{place + layers + 1}.0.op"
    if kind == "upsamplers":  # behind a resnet and an attention
        return f"output_blocks.{place + layers}.2.{rest}"
    if kind == "resnets":
        rest = _ORIGINAL_RESNET.get(rest, rest)
    attention = int(kind == "attentions")
    if side == "mid":
        return f"middle_block.{attention or 2 * index}.{rest}"
    if side == "down":
        return f"input_blocks.{place + 1}.{attention}.{rest}"
    return f"output_blocks.{place}.{attention}.{rest}"
