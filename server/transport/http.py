"""An HTTP connection, with bounds on its time, its heads and its answers.

`HttpToolsProtocol` is no public class of uvicorn's, nor are its attributes: hence the upper bound of its
version. They are needed as uvicorn bounds neither how long nor how large a head may be, nor how many requests
may be sent ahead, nor how long an answer may lie unread.
"""

import asyncio
import contextlib
import socket
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.limits.memory import Holding
from server.transport.liveness import ReaderWatch
from server.transport.peers import peer_of
from server.transport.places import Bounds

__all__ = ["OWNER", "HttpProtocol"]

OWNER: Final = "tilewire_owner"
"""Where the state of a request has the account that it is of, once that is known."""

_HEAD_BYTES: Final = 64 * 2**10
_CHUNK_FRAMING: Final = 32
"""Bytes that a piece of a chunked body may have beside it; what is more counts as head."""
_PIPELINED: Final = 64
_LINGER: Final = 10.0
_UNSENT_IN_KERNEL: Final = 128 * 2**10


class HttpProtocol(HttpToolsProtocol):
    """A connection, until it becomes a WebSocket."""

    def __init__(self, bounds: Bounds, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._bounds = bounds
        self._deadline: asyncio.TimerHandle | None = None
        self._reader_watch = ReaderWatch(bounds.settings.send_timeout)
        self._has_place = False
        self._refused_with: int | None = None
        self._overhead = 0
        self._head = 0
        self._message_complete = True
        self._unread: Holding | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, and wait for the first head."""
        super().connection_made(transport)
        self.client = peer_of(transport)
        _keep_little_in_kernel(transport)
        self._refused_with = self._bounds.places.take(self._peer)
        self._has_place = self._refused_with is None
        self._set_deadline(self._bounds.settings.auth_timeout if self._has_place else 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give its place back."""
        self._stop_counting()
        self._clear_deadline()
        self._reader_watch.stop()
        if self._has_place:
            self._bounds.places.give_back(self._peer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, if the connection has a place and its heads are not too large."""
        if self._refused_with is not None:
            self._refuse(self._refused_with)
            return
        self._overhead += len(data)
        super().data_received(data)
        if self._overhead > _HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431)

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be parsed, or what a callback of the parser has refused."""
        if self._refused_with is None:
            super().send_400_response(msg)
        else:
            self._refuse(self._refused_with)

    def on_message_begin(self) -> None:
        """See to it that the head of a request comes in time."""
        if len(self.pipeline) >= _PIPELINED:
            raise ValueError("too many requests are sent ahead")  # answered with 400 by the base
        super().on_message_begin()
        self._message_complete = False
        self._head = 0
        self._set_deadline(self._bounds.settings.auth_timeout)

    def on_url(self, url: bytes) -> None:
        """Count a part of the head."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a part of the head."""
        self._count_head(len(name) + len(value) + len(b": \r\n"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the request, which must say once whom it is for (RFC 9112 section 3.2)."""
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise ValueError("a request must have one Host")
        self._clear_deadline()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._overhead = max(0, self._overhead - len(body) - _CHUNK_FRAMING)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Be ready for the next head."""
        self._message_complete = True
        self._overhead = 0
        self._clear_deadline()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Read the rest of a body whose request was refused, but not for ever."""
        super().on_response_complete()
        answered = self.cycle.response_complete  # else the answer was to an earlier request
        if answered and not self._message_complete and self._deadline is None:
            self._set_deadline(_LINGER)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to the WebSocket, and its place."""
        self._has_place = False
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        """Send no more until the client has taken some. What waits meanwhile counts as the account's."""
        super().pause_writing()
        state = (self.scope or {}).get("state", {})
        memory = self._bounds.memory
        owner = state.get(OWNER) or memory.owner_of(self._peer)
        self._unread = memory.outgoing.holding(owner, self.transport.abort)
        # One answer may be as large as it is.
        self._unread.add(min(self.transport.get_write_buffer_size(), memory.outgoing.share // 2))
        self._reader_watch.start(self.transport)

    def resume_writing(self) -> None:
        """Send on."""
        super().resume_writing()
        self._stop_counting()
        self._reader_watch.stop()

    def _stop_counting(self) -> None:
        if self._unread is not None:
            self._unread.release()
            self._unread = None

    @property
    def _peer(self) -> str:
        return self.client[0] if self.client else ""

    def _count_head(self, size: int) -> None:
        self._head += size
        if self._head > _HEAD_BYTES:
            self._refused_with = 431
            raise ValueError("the head is too large")

    def _refuse(self, status: int) -> None:
        self.transport.write(
            STATUS_LINE[status] + b"content-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n"
        )
        self.transport.close()

    def _set_deadline(self, seconds: float) -> None:
        """End the connection then, if what is waited for has not come."""
        self._clear_deadline()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _keep_little_in_kernel(transport: asyncio.Transport) -> None:
    """Bound what the system takes before it can send it: megabytes, that a pong would have to wait behind."""
    if not hasattr(socket, "TCP_NOTSENT_LOWAT"):
        return
    connection = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_IN_KERNEL)
