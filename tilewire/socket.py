"""Opening the socket, telling whether it is alive, and how long to wait before the next try."""

import asyncio
import ipaddress
import os
import random
import re
import ssl
from collections.abc import Iterator
from socket import gaierror
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from tilewire.errors import UnreachableError
from tilewire.wire import SUBPROTOCOL

__all__ = ["Socket", "backoff", "open_socket", "socket_url", "unix_path"]

# Seconds.
_CLOSED_WITHIN: Final = 2
_PING_AFTER: Final = 20.0
_DEAD_AFTER: Final = 60.0

_OVER_UNIX_SOCKET: Final = "ws://localhost/v1"


class Socket(ClientConnection):
    """A connection that is alive as long as bytes come or go.

    A pong cannot overtake the image that is on its way before it, in either direction: on a slow line it
    comes late, and is no measure.

    Attributes:
        ping_after, dead_after: seconds without a byte until the server is pinged, and given up.
    """

    ping_after = _PING_AFTER
    dead_after = _DEAD_AFTER

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._moved_at = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Note that the server is alive; called by the transport."""
        self._moved_at = self.loop.time()
        super().data_received(data)

    async def watch(self) -> None:
        """Ping where it is silent, and break the connection off when it is dead."""
        unsent = 0
        pinged = False
        while True:
            await asyncio.sleep(self.ping_after / 4)
            before, unsent = unsent, self.transport.get_write_buffer_size()
            if unsent < before:
                self._moved_at = self.loop.time()
            silent = self.loop.time() - self._moved_at
            if silent >= self.dead_after:
                self.transport.abort()
                return
            if silent < self.ping_after:
                pinged = False
            elif not pinged and not unsent:
                pinged = True
                await self.ping()


async def open_socket(url: str) -> Socket:
    """Give a connection that speaks MessagePack.

    Args:
        url: see `socket_url` and `unix_path`.

    Raises:
        UnreachableError: if there is none to be had.
    """
    path = unix_path(url)
    address = _OVER_UNIX_SOCKET if path else socket_url(url)
    where: dict[str, Any] = {"unix": True, "path": path} if path else {}
    try:
        socket = await connect(
            address,
            **where,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,  # images do not compress
            max_size=None,
            ping_interval=None,  # `Socket.watch` does it
            close_timeout=_CLOSED_WITHIN,
            proxy=None if path or _is_loopback(address) else True,
            create_connection=Socket,
        )
    except InvalidURI as error:
        forms = "ws://host:port/v1 or unix:///path"
        raise UnreachableError(f"{url} is not an address of the form {forms}") from error
    except (OSError, InvalidHandshake, InvalidProxy, ImportError, TimeoutError) as error:
        raise UnreachableError(f"{url} cannot be reached: {_reason(error)}") from error
    if socket.subprotocol != SUBPROTOCOL:
        await socket.close()
        raise UnreachableError(f"{url} is not Tilewire: it does not speak {SUBPROTOCOL}")
    assert isinstance(socket, Socket)
    return socket


def unix_path(url: str) -> str | None:
    """Give the path of the Unix socket that an address names, `unix:///run/tilewire.sock`; None of others."""
    path = url.removeprefix("unix://")
    return path if path.startswith("/") and path != url else None


def socket_url(url: str) -> str:
    """Give the address of the server's socket.

    Args:
        url: that address, or that of the server's page: http://… for ws://…, https://… for wss://…. The path
            `/v1` may be left out, or end with a slash.
    """
    scheme, separator, rest = url.partition("://")
    scheme = {"http": "ws", "https": "wss"}.get(scheme.lower(), scheme)
    host, _, path = rest.partition("/")
    if "?" in rest or "#" in rest or not host:
        return url
    return f"{scheme}{separator}{host}/{path.rstrip('/') or 'v1'}"


def backoff(first: float = 0.1, longest: float = 5.0) -> Iterator[float]:
    """Give the seconds between one try and the next, without end.

    They double up to the longest. Each is by chance up to half shorter, so that the clients of a server that
    was restarted do not all come at once.
    """
    delay = first
    while True:
        yield delay * random.uniform(0.5, 1)  # noqa: S311 - nothing secret
        delay = min(2 * delay, longest)


def _is_loopback(url: str) -> bool:
    """Whether the server is on this machine, so that no proxy can reach it."""
    host = ""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761 section 6.3
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def _reason(error: Exception) -> str:
    """Why there is no connection, in words."""
    match error:
        case gaierror():
            return "the name of the host is not known"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message}"
        case ssl.SSLError():
            return "there is no TLS at that port; try ws:// in place of wss://"
        case InvalidStatus():
            return f"it answers with HTTP {error.response.status_code}; the path of the socket is /v1"
    # Where a name has several addresses asyncio lists the errors of all in one text.
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    number = re.search(r"\[Errno (\d+)\]", str(error))
    return os.strerror(int(number[1])) if number else str(error) or "it does not answer"
