"""What can go wrong with pixels and models.

EngineError
├── ImageError                 the bytes are not an image that can be used
│   ├── NotAnImageError        no allow-listed decoder recognises them
│   ├── UnsupportedImageError  an image, but stored in a way that is not read here
│   ├── BrokenImageError       truncated or corrupt
│   └── ImageTooLargeError     more pixels than the limit; found before any pixel is decoded
└── ModelError                 the model cannot be built, loaded or run
    ├── SpoiltResultError      what it computed is no picture: not numbers, or all black
    ├── DeviceOutOfMemoryError the device has too little memory for so much at once
    └── DeviceLostError        the device does not work any longer; nothing more can run there
"""

__all__ = [
    "BrokenImageError",
    "DeviceLostError",
    "DeviceOutOfMemoryError",
    "EngineError",
    "ImageError",
    "ImageTooLargeError",
    "ModelError",
    "NotAnImageError",
    "SpoiltResultError",
    "UnsupportedImageError",
]


class EngineError(Exception):
    """Base of everything that `engines` raises; the message is fit to be shown to a user."""


class ImageError(EngineError):
    """The bytes are not an image that can be used."""


class NotAnImageError(ImageError):
    """No allow-listed decoder recognises the bytes."""


class UnsupportedImageError(ImageError):
    """The bytes are an image, but it is stored in a way that is not read here."""


class BrokenImageError(ImageError):
    """The image is truncated or corrupt."""


class ImageTooLargeError(ImageError):
    """The image has more pixels than the limit allows."""


class ModelError(EngineError):
    """The model cannot be built, loaded or run."""


class SpoiltResultError(ModelError):
    """What the model computed is no picture: values that are not numbers, or all black."""


class DeviceOutOfMemoryError(ModelError):
    """The device has too little memory for so much at once; less of it may fit."""


class DeviceLostError(ModelError):
    """The device does not work any longer, whatever is run on it."""
