"""uvicorn's configuration, with protocols of this package's own."""

from functools import partial
from typing import Any

import uvicorn

from server.limits.memory import Memory
from server.settings import Settings
from server.transport.http import HttpProtocol
from server.transport.places import Bounds, ConnectionPlaces
from server.transport.websocket import SocketProtocol

__all__ = ["Config"]


class Config(uvicorn.Config):
    """The configuration of a server whose connections have bounds."""

    def __init__(self, app: Any, settings: Settings, memory: Memory, **options: Any) -> None:
        bounds = Bounds(settings, ConnectionPlaces(settings), memory)
        super().__init__(
            app,
            # uvicorn only calls them, as it would the classes
            http=partial(HttpProtocol, bounds),  # type: ignore[arg-type]
            ws=partial(SocketProtocol, bounds),  # type: ignore[arg-type]
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            **options,
        )
