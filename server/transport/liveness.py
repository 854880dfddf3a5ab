"""Whether the other end of a connection still takes what is sent to it."""

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Final

if sys.platform == "linux":
    import fcntl
    import termios

__all__ = ["ReaderWatch", "untaken"]

log = logging.getLogger(__name__)

_SLOWEST_READER: Final = 1024  # bytes per second


def untaken(transport: asyncio.WriteTransport) -> int:
    """Bytes that were written and that the peer's system has not acknowledged yet.

    Those in the buffer of the transport, and on Linux those in the kernel's (tcp(7), SIOCOUTQ): that holds
    megabytes, and a slow line is seen to move long before there is room for more in it.
    """
    return transport.get_write_buffer_size() + _in_kernel(transport)


class ReaderWatch:
    """Ends a connection whose client takes next to nothing of what is sent to it.

    It is started when the buffer of the transport is full, and stopped when there is room in it again.
    """

    def __init__(self, patience: float) -> None:
        """Watch nothing yet.

        Args:
            patience: seconds after which some of it must have been taken, again and again: a KiB for each.
        """
        self._patience = patience
        self._timer: asyncio.TimerHandle | None = None

    def start(self, transport: asyncio.WriteTransport, on_end: Callable[[], None] = lambda: None) -> None:
        """Watch a connection.

        Args:
            transport: which is aborted if need be.
            on_end: called just before that.
        """
        self.stop()
        self._look(transport, on_end, None)

    def stop(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(
        self, transport: asyncio.WriteTransport, on_end: Callable[[], None], before: int | None
    ) -> None:
        left = untaken(transport)
        if before is not None and before - left < self._patience * _SLOWEST_READER:
            log.info("a connection that does not read is dropped")
            on_end()
            transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._patience, self._look, transport, on_end, left)


def _in_kernel(transport: asyncio.WriteTransport) -> int:
    if sys.platform != "linux":
        return 0
    socket = transport.get_extra_info("socket")
    try:
        answer = fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError, AttributeError):  # it is closed
        return 0
    return int.from_bytes(answer, sys.byteorder)
