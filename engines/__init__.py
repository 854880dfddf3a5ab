"""The upscalers: array in, array out. Knows nothing of sockets, accounts or JSON.

1. `inspect` and `decode` turn bytes from anyone into a `Picture`, or say why not.
   `Decoders` do the same in processes of their own, which hostile bytes may crash.
2. `Upscaler` makes it larger, on the devices that `find_devices` finds; each `Region` may be had when it
   is finished. `Controls` are what a person may turn of a creative upscaler.
3. `encode` turns the result into bytes of an `OutputFormat`.

Whatever goes wrong is an `EngineError`, whose message is fit to be shown to a user.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from engines.activity import Activity, DeviceActivity, Memory, RunKind, Waiting
from engines.codecs.crop import crop
from engines.codecs.encode import OutputFormat, encode
from engines.codecs.image import ImageInfo, decode, inspect, read
from engines.codecs.picture import Metadata, Picture, Text, resize
from engines.codecs.raw import Channels, picture_of, pixels_of
from engines.devices.heap import bound_heaps, trim_heap
from engines.errors import (
    BrokenImageError,
    DeviceLostError,
    DeviceOutOfMemoryError,
    EngineError,
    ImageError,
    ImageTooLargeError,
    ModelError,
    NotAnImageError,
    SpoiltResultError,
    UnsupportedImageError,
)
from engines.metering import DeviceTime, device_time
from engines.passes import sizes_of_passes
from engines.progress import Progress, within
from engines.tiling.regions import OnRegion, Region, report_whole

if TYPE_CHECKING:
    from engines.codecs.decoder_pool import Decoders
    from engines.creative.controls import KNOBS, PRESETS, STYLES, Controls, Preset, Style
    from engines.creative.passes import looks_drawn
    from engines.devices.cores import usable_cores
    from engines.devices.device import Device
    from engines.devices.fastest import fastest_runtime
    from engines.devices.find import DeviceChoice, PrecisionChoice, RuntimeChoice, find_devices, stand_in_for
    from engines.devices.memory import memory_size
    from engines.devices.ort import open_on_cpu
    from engines.ensemble import TURNS, Blend, Seamless, wraps_of
    from engines.faces.blending import RestoredFace
    from engines.faces.detection import Face
    from engines.latent.colour_fix import ColourFix
    from engines.latent.diffusion import Creative, Diffusion
    from engines.latent.samplers import Scheduler
    from engines.ray.cluster import ClusterOptions, RayCluster
    from engines.upscaler import Upscaler
else:

    def __getattr__(name: str) -> object:
        """The rest is loaded on first use: the decoders' processes start fast, and without ONNX Runtime."""
        if name not in _LATER:
            raise AttributeError(f"module 'engines' has no attribute {name!r}")
        return getattr(import_module(_LATER[name]), name)

    _LATER = {
        "KNOBS": "engines.creative.controls",
        "PRESETS": "engines.creative.controls",
        "STYLES": "engines.creative.controls",
        "TURNS": "engines.ensemble",
        "Blend": "engines.ensemble",
        "ClusterOptions": "engines.ray.cluster",
        "ColourFix": "engines.latent.colour_fix",
        "Controls": "engines.creative.controls",
        "Creative": "engines.latent.diffusion",
        "Decoders": "engines.codecs.decoder_pool",
        "Device": "engines.devices.device",
        "DeviceChoice": "engines.devices.find",
        "Diffusion": "engines.latent.diffusion",
        "Face": "engines.faces.detection",
        "PrecisionChoice": "engines.devices.find",
        "Preset": "engines.creative.controls",
        "RayCluster": "engines.ray.cluster",
        "RestoredFace": "engines.faces.blending",
        "RuntimeChoice": "engines.devices.find",
        "Seamless": "engines.ensemble",
        "Scheduler": "engines.latent.samplers",
        "Style": "engines.creative.controls",
        "Upscaler": "engines.upscaler",
        "fastest_runtime": "engines.devices.fastest",
        "find_devices": "engines.devices.find",
        "looks_drawn": "engines.creative.passes",
        "memory_size": "engines.devices.memory",
        "open_on_cpu": "engines.devices.ort",
        "stand_in_for": "engines.devices.find",
        "usable_cores": "engines.devices.cores",
        "wraps_of": "engines.ensemble",
    }


__all__ = [
    "KNOBS",
    "PRESETS",
    "STYLES",
    "TURNS",
    "Activity",
    "Blend",
    "BrokenImageError",
    "Channels",
    "ClusterOptions",
    "ColourFix",
    "Controls",
    "Creative",
    "Decoders",
    "Device",
    "DeviceActivity",
    "DeviceChoice",
    "DeviceLostError",
    "DeviceOutOfMemoryError",
    "DeviceTime",
    "Diffusion",
    "EngineError",
    "Face",
    "ImageError",
    "ImageInfo",
    "ImageTooLargeError",
    "Memory",
    "Metadata",
    "ModelError",
    "NotAnImageError",
    "OnRegion",
    "OutputFormat",
    "Picture",
    "PrecisionChoice",
    "Preset",
    "Progress",
    "RayCluster",
    "Region",
    "RestoredFace",
    "RunKind",
    "RuntimeChoice",
    "Scheduler",
    "Seamless",
    "SpoiltResultError",
    "Style",
    "Text",
    "UnsupportedImageError",
    "Upscaler",
    "Waiting",
    "bound_heaps",
    "crop",
    "decode",
    "device_time",
    "encode",
    "fastest_runtime",
    "find_devices",
    "inspect",
    "looks_drawn",
    "memory_size",
    "open_on_cpu",
    "picture_of",
    "pixels_of",
    "read",
    "report_whole",
    "resize",
    "sizes_of_passes",
    "stand_in_for",
    "trim_heap",
    "usable_cores",
    "within",
    "wraps_of",
]
