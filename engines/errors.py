"""What can go wrong with pixels and models.

EngineError
├── ImageError                 the bytes are not an image that can be used
│   ├── NotAnImageError        no allow-listed decoder recognises them
│   ├── BrokenImageError       truncated or corrupt
│   └── ImageTooLargeError     more pixels than the limit; found before any pixel is decoded
└── ModelError                 the model cannot be built, loaded or run
"""

__all__ = [
    "BrokenImageError",
    "EngineError",
    "ImageError",
    "ImageTooLargeError",
    "ModelError",
    "NotAnImageError",
]


class EngineError(Exception):
    """Base of everything that `engines` raises; the message is fit to be shown to a user."""


class ImageError(EngineError):
    """The bytes are not an image that can be used."""


class NotAnImageError(ImageError):
    """No allow-listed decoder recognises the bytes."""


class BrokenImageError(ImageError):
    """The image is truncated or corrupt."""


class ImageTooLargeError(ImageError):
    """The image has more pixels than the limit allows."""


class ModelError(EngineError):
    """The model cannot be built, loaded or run."""
