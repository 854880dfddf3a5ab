"""What a user gives beside a pipeline: a ControlNet, an IP-Adapter, LoRAs."""

import re
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from onnx_models.diffusers.folder import Config, read_json
from onnx_models.diffusers.ip_adapter import IpAdapter, find_ip_adapter
from onnx_models.diffusers.lora import Lora, parse_lora, read_layers
from onnx_models.diffusers.part import Kind
from onnx_models.errors import UnsuitableModelError
from onnx_models.model import CreativeWeights

__all__ = ["Additions", "Wanted", "find_additions"]


_NOT_FOR_TILES = re.compile(
    r"canny|depth|openpose|scribble|mlsd|lineart|normal|softedge|shuffle|inpaint|ip2p|qrcode|[-_](pose|seg|hed)\b",
    re.IGNORECASE,
)
"""In the names by which ControlNets for something else are published: what is stored does not say."""


class Wanted(Struct, frozen=True):
    """What a user asks for, in the user's words."""

    controlnet: str | None = None
    """A folder of diffusers, or the id of one on the Hugging Face hub."""
    ip_adapter: Path | None = None
    """Its folder, or its file."""
    loras: Sequence[str] = ()
    """FILE, or FILE:weight."""


class Additions(Struct, frozen=True):
    """What was found of it."""

    controlnet: Path | None = None
    ip_adapter: IpAdapter | None = None
    loras: tuple[Lora, ...] = ()


def find_additions(pipeline: Path, kind: Kind, wanted: Wanted, controlnet: Path | None) -> Additions:
    """Find what belongs to a pipeline beside its own components, and see that it can be read.

    Args:
        pipeline: Its folder; the ControlNet in it is taken if no other is given.
        kind: Its kind.
        wanted: What the user asks for.
        controlnet: The folder of the ControlNet that the user asks for.

    Raises:
        UnsuitableModelError: Something is missing, or of a kind that is not offered.
    """
    if kind.weights is not CreativeWeights:
        given = {"ControlNet": controlnet, "IP-Adapter": wanted.ip_adapter, "LoRA": wanted.loras}
        for name, value in given.items():
            if value:
                raise UnsuitableModelError(
                    f"a {kind.pipelines[0]} takes no {name}: StableDiffusionPipeline and "
                    "StableDiffusionXLPipeline do"
                )
        return Additions()
    if controlnet is None and "ControlNet" in _class_name(pipeline):
        controlnet = pipeline / "controlnet"
    if controlnet is not None:
        _check_controlnet(controlnet)
        name = Path(wanted.controlnet or "").name
        if (other := _NOT_FOR_TILES.search(name)) and "tile" not in name.lower():
            raise UnsuitableModelError(
                f"the ControlNet {name} is for {other[0].strip('-_')} by its name, and sees nothing but the "
                "picture here: take one for tiles (or rename its directory)"
            )
    loras = tuple(map(parse_lora, wanted.loras))
    for lora in loras:
        read_layers(lora)
    adapter = None if wanted.ip_adapter is None else find_ip_adapter(wanted.ip_adapter)
    return Additions(controlnet, adapter, loras)


def _class_name(pipeline: Path) -> str:
    index = read_json(pipeline / "model_index.json", "it is not a directory of diffusers")
    return str(index.get("_class_name"))


def _check_controlnet(folder: Path) -> None:
    """See that a ControlNet takes a picture, as those for tiles do."""
    values = read_json(folder / "config.json", f"there is no ControlNet in {folder}")
    config = Config(
        "controlnet", values, {"conditioning_channels": 3, "controlnet_conditioning_channel_order": "rgb"}
    )
    config.choice("_class_name", ["ControlNetModel"])
    config.choice("conditioning_channels", [3])
    config.choice("controlnet_conditioning_channel_order", ["rgb", "bgr"])
    if values.get("global_pool_conditions"):
        raise config.unsupported("global_pool_conditions")
