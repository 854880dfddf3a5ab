"""The client of Tilewire, and its command.

    async with Tilewire("ws://127.0.0.1:8080/v1", key) as tilewire:
        result = await tilewire.upscale("photo.jpg", factor=2)
        result.save("photo-2x.jpg")

`client` has the calls, `link` keeps the connection, `sources` reads pictures, `events` and `listings` are
what comes back, `frames` is for video, `errors` what goes wrong, `wire` the names that the server uses.
Nothing here imports the server: an application may have a package `server` of its own.
"""

from tilewire.client import Blend, Options, PixelOptions, Tilewire
from tilewire.errors import (
    AuthenticationFailedError,
    BusyError,
    FrameDroppedError,
    InsufficientCreditsError,
    NotFoundError,
    TaskCancelledError,
    TaskFailedError,
    TilewireError,
    UnreachableError,
)
from tilewire.events import Event, Finished, Progress, Result, TileReady, Upload
from tilewire.frames import Frame
from tilewire.listings import Account, ApiKey, Balance, Model, Usage
from tilewire.sources import Source

__all__ = [
    "Account",
    "ApiKey",
    "AuthenticationFailedError",
    "Balance",
    "Blend",
    "BusyError",
    "Event",
    "Finished",
    "Frame",
    "FrameDroppedError",
    "InsufficientCreditsError",
    "Model",
    "NotFoundError",
    "Options",
    "PixelOptions",
    "Progress",
    "Result",
    "Source",
    "TaskCancelledError",
    "TaskFailedError",
    "TileReady",
    "Tilewire",
    "TilewireError",
    "UnreachableError",
    "Upload",
    "Usage",
]
