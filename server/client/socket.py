"""Opening the socket, and how long to wait before the next try."""

import os
import random
from collections.abc import Iterator
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidURI
from websockets.typing import Subprotocol

from server.client.errors import UnreachableError
from server.protocol.codec import SUBPROTOCOL

__all__ = ["backoff", "open_socket"]

# Seconds.
_CLOSED_WITHIN: Final = 2
_PING_EVERY: Final = 20
_PING_TIMEOUT: Final = 90  # on a slow line a ping waits for long behind an image


async def open_socket(url: str) -> ClientConnection:
    """A connection that speaks MessagePack.

    Raises:
        UnreachableError: if there is none to be had.
    """
    try:
        socket = await connect(
            url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,  # images do not compress
            max_size=None,
            ping_interval=_PING_EVERY,
            ping_timeout=_PING_TIMEOUT,
            close_timeout=_CLOSED_WITHIN,
        )
    except InvalidURI as error:
        raise UnreachableError(f"{url} is not an address of the form ws://host:port/v1") from error
    except (OSError, InvalidHandshake, TimeoutError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise UnreachableError(f"{url} cannot be reached: {reason}") from error
    if socket.subprotocol != SUBPROTOCOL:
        await socket.close()
        raise UnreachableError(f"{url} is not Tilewire: it does not speak {SUBPROTOCOL}")
    return socket


def backoff(first: float = 0.1, longest: float = 5.0) -> Iterator[float]:
    """Seconds between one try and the next, without end.

    They double up to the longest. Each is by chance up to half shorter, so that the clients of a server that
    was restarted do not all come at once.
    """
    delay = first
    while True:
        yield delay * random.uniform(0.5, 1)  # noqa: S311 - nothing secret
        delay = min(2 * delay, longest)
