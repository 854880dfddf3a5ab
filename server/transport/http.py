"""An HTTP connection, with bounds on its time, its heads and its answers."""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.transport.places import Bounds

__all__ = ["HttpProtocol"]

_HEAD_BYTES: Final = 64 * 2**10
_PIPELINED: Final = 64
_LINGER: Final = 10.0
_SLOWEST_READER: Final = 1024  # bytes per second


class HttpProtocol(HttpToolsProtocol):
    """A connection, until it becomes a WebSocket."""

    def __init__(self, bounds: Bounds, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._bounds = bounds
        self._deadline: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._has_place = False
        self._refused_with: int | None = None
        self._overhead = 0
        self._message_complete = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._refused_with = self._bounds.places.take(self._peer)
        self._has_place = self._refused_with is None
        self._set_deadline(self._bounds.settings.auth_timeout if self._has_place else 1)

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        self._stop_watching()
        if self._has_place:
            self._bounds.places.give_back(self._peer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused_with is not None:
            self._refuse(self._refused_with)
            return
        self._overhead += len(data)
        super().data_received(data)
        if self._overhead > _HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431)

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _PIPELINED:
            raise ValueError("too many requests are sent ahead")  # answered with 400 by the base
        super().on_message_begin()
        self._message_complete = False
        self._set_deadline(self._bounds.settings.auth_timeout)

    def on_headers_complete(self) -> None:
        self._clear_deadline()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._overhead -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._message_complete = True
        self._overhead = 0
        self._clear_deadline()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The rest of a body that was refused is read, but not for ever.
        if not self._message_complete and self._deadline is None:
            self._set_deadline(_LINGER)

    def handle_websocket_upgrade(self) -> None:
        self._has_place = False  # it goes over to the WebSocket
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader(None)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_watching()

    @property
    def _peer(self) -> str:
        return self.client[0] if self.client else ""

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

    def _watch_reader(self, unread_before: int | None) -> None:
        """See to it that a client takes its answer, however slowly."""
        patience = self._bounds.settings.send_timeout
        unread = self.transport.get_write_buffer_size()
        if unread_before is not None and unread_before - unread < patience * _SLOWEST_READER:
            self.transport.abort()
        else:
            self._reading = self.loop.call_later(patience, self._watch_reader, unread)

    def _stop_watching(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
