"""The upscalers: array in, array out. Knows nothing of sockets, accounts or JSON."""

from engines.errors import (
    BrokenImageError,
    EngineError,
    ImageError,
    ImageTooLargeError,
    ModelError,
    NotAnImageError,
)
from engines.image import ImageInfo, Picture, decode, inspect, resize
from engines.image_encode import OutputFormat, encode
from engines.sessions import Device, DeviceChoice, find_device
from engines.upscaler import Upscaler

__all__ = [
    "BrokenImageError",
    "Device",
    "DeviceChoice",
    "EngineError",
    "ImageError",
    "ImageInfo",
    "ImageTooLargeError",
    "ModelError",
    "NotAnImageError",
    "OutputFormat",
    "Picture",
    "Upscaler",
    "decode",
    "encode",
    "find_device",
    "inspect",
    "resize",
]
