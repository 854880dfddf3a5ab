"""A client for Tilewire's socket.

    async with Tilewire("ws://127.0.0.1:8080/v1", key) as tilewire:
        result = await tilewire.upscale("photo.jpg", factor=2)
        result.save("photo-2x.jpg")

`tilewire` has the calls, `link` keeps the connection, `sources` reads pictures, `events` is what comes back,
`errors` what goes wrong.
"""

from server.client.errors import (
    AuthenticationFailedError,
    BusyError,
    InsufficientCreditsError,
    NotFoundError,
    TaskCancelledError,
    TaskFailedError,
    TilewireError,
    UnreachableError,
)
from server.client.events import Event, Finished, Progress, Result, TileReady, Upload
from server.client.sources import Source
from server.client.tilewire import Options, Tilewire

__all__ = [
    "AuthenticationFailedError",
    "BusyError",
    "Event",
    "Finished",
    "InsufficientCreditsError",
    "NotFoundError",
    "Options",
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
]
