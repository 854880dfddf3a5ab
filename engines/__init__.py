"""The upscalers: array in, array out. Knows nothing of sockets, accounts or JSON.

1. `inspect` and `decode` turn bytes from anyone into a `Picture`, or say why not.
2. `Upscaler` makes it larger, on the devices that `find_devices` finds; each `Region` may be had when it
   is finished.
3. `encode` turns the result into bytes of an `OutputFormat`.

Whatever goes wrong is an `EngineError`, whose message is fit to be shown to a user.
"""

from engines.activity import Activity, DeviceActivity, Memory, RunKind, Waiting
from engines.devices import Device, DeviceChoice, PrecisionChoice, RuntimeChoice, find_devices
from engines.errors import (
    BrokenImageError,
    DeviceLostError,
    DeviceOutOfMemoryError,
    EngineError,
    ImageError,
    ImageTooLargeError,
    ModelError,
    NotAnImageError,
)
from engines.image import ImageInfo, Picture, decode, inspect, resize
from engines.image_encode import OutputFormat, encode
from engines.regions import OnRegion, Region
from engines.upscaler import Upscaler

__all__ = [
    "Activity",
    "BrokenImageError",
    "Device",
    "DeviceActivity",
    "DeviceChoice",
    "DeviceLostError",
    "DeviceOutOfMemoryError",
    "EngineError",
    "ImageError",
    "ImageInfo",
    "ImageTooLargeError",
    "Memory",
    "ModelError",
    "NotAnImageError",
    "OnRegion",
    "OutputFormat",
    "Picture",
    "PrecisionChoice",
    "Region",
    "RunKind",
    "RuntimeChoice",
    "Upscaler",
    "Waiting",
    "decode",
    "encode",
    "find_devices",
    "inspect",
    "resize",
]
