"""uvicorn's protocols, with bounds on what a client may leave undone.

uvicorn bounds neither how long nor how large the head of a request may be, nor how long an answer may lie
unread; it parses all that has come before it lets others have their turn, and takes messages of the same size
from whoever connects.
"""

from functools import partial
from typing import Any

import uvicorn

from server.settings import Settings
from server.transport.http import HttpProtocol
from server.transport.places import Bounds, ConnectionPlaces
from server.transport.websocket import SocketProtocol

__all__ = ["Config"]


class Config(uvicorn.Config):
    """uvicorn's configuration for these protocols."""

    def __init__(self, app: Any, settings: Settings, **options: Any) -> None:
        bounds = Bounds(settings, ConnectionPlaces(settings))
        super().__init__(
            app,
            # uvicorn only calls them, as it would the classes
            http=partial(HttpProtocol, bounds),  # type: ignore[arg-type]
            ws=partial(SocketProtocol, bounds),  # type: ignore[arg-type]
            ws_max_size=settings.max_frame_bytes,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            **options,
        )
