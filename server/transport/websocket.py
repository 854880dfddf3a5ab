"""A WebSocket, with bounds on its frames, its pings and its first message."""

import codecs
import logging
from typing import Any, Final

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import ProtocolError
from websockets.frames import DATA_OPCODES, CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from server.limits.edge import FIRST_FRAME_BYTES
from server.limits.rates import RateLimit
from server.transport.places import Bounds

__all__ = ["ABORT", "SocketProtocol"]

ABORT: Final = "tilewire.abort"
"""The ASGI extension that ends a connection at once: its close would wait for the client to read."""

_VERSION: Final = "13"
_Utf8Decoder: Final = codecs.getincrementaldecoder("utf-8")
_LAST_WORDS: Final = 5.0
_SLICE: Final = 16 * 2**10
_FRAGMENTS: Final = 2**14
_PINGS_PER_SECOND: Final = 10
_PINGS_AT_ONCE: Final = 100


class SocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket. The application can end one at once whose client does not read, through `ABORT`."""

    def __init__(self, bounds: Bounds, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._bounds = bounds
        self.conn = _Frames(bounds.settings.max_frame_bytes)
        self._unparsed = bytearray()
        self._failed = False
        self._pings = RateLimit(_PINGS_PER_SECOND, _PINGS_AT_ONCE)

    def connection_lost(self, exc: Exception | None) -> None:
        self._bounds.places.give_back(self.client[0] if self.client else "")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._failed:
            return
        self._unparsed += data
        self._parse()
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self._refuse_request()

    async def receive(self) -> ASGIReceiveEvent:
        message = await super().receive()
        self._parse()
        return message

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True  # by a refusal; the base would log that there was no answer

    def handle_parser_exception(self) -> None:
        """Fail the connection, and let the client read why.

        Closed at once, with bytes of the client's unread, TCP would take the close frame back (RFC 6455
        section 7.1.1): what still comes is dropped for a moment.
        """
        if self._failed:
            return
        self._failed = True
        closing = self.conn.close_sent
        assert closing is not None
        self.queue.put_nowait(
            {"type": "websocket.disconnect", "code": closing.code, "reason": closing.reason}
        )
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self.close_timer = self.loop.call_later(_LAST_WORDS, self.transport.abort)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):  # the handshake was valid; the application has not seen it yet
            self.scope["extensions"][ABORT] = {"abort": self.transport.abort}

    def handle_ping(self) -> None:
        pong = self.conn.data_to_send()
        # A client that does not read gets none: they would only pile up.
        if self.writable.is_set() and not self._failed:
            self.transport.write(b"".join(pong))
        self._count_ping()

    def handle_pong(self, event: Frame) -> None:
        super().handle_pong(event)
        self._count_ping()

    def _parse(self) -> None:
        """A slice at a time, until there is a message for the application: frames may be tiny, and many."""
        while self._unparsed and not (self.read_paused or self._failed or self.transport.is_closing()):
            part = bytes(self._unparsed[:_SLICE])
            del self._unparsed[:_SLICE]
            super().data_received(part)

    def _refuse_request(self) -> None:
        """Answer what is no request to `websockets`, such as one with a body; the base says nothing."""
        answer = (
            b"".join(self.conn.data_to_send())
            or self.conn.reject(400, "not a WebSocket handshake\n").serialize()
        )
        self.transport.write(answer)
        self.transport.close()

    def _count_ping(self) -> None:
        if self._pings.take(None, self.loop.time()) and not self.close_sent:
            self.conn.fail(CloseCode.POLICY_VIOLATION, "too many pings")
            self.handle_parser_exception()


class _Frames(ServerProtocol):
    """The frames of a connection. The first message, which authenticates, may only be small."""

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size=min(max_size, FIRST_FRAME_BYTES), logger=logging.getLogger("uvicorn.error"))
        self.debug = False  # it would log what is in the frames: keys, images
        self._max_size = max_size
        self._fragments = 0
        self._text: codecs.IncrementalDecoder | None = None

    def accept(self, request: Request) -> Response:
        """Answer the handshake; other versions of the protocol as RFC 6455 section 4.2.2 demands."""
        response = super().accept(request)
        versions = request.headers.get_all("Sec-WebSocket-Version")
        if response.status_code == 400 and versions and versions != [_VERSION]:
            response = self.reject(426, f"only version {_VERSION} of the WebSocket protocol is spoken\n")
            response.headers["Upgrade"] = "websocket"
            response.headers["Sec-WebSocket-Version"] = _VERSION
        return response

    def recv_frame(self, frame: Frame) -> None:
        super().recv_frame(frame)
        if frame.opcode not in DATA_OPCODES:
            return
        if frame.opcode is not Opcode.CONT:
            self._text = _Utf8Decoder() if frame.opcode is Opcode.TEXT else None
        if self._text is not None:
            # Fails at the first wrong byte, which ends the connection with 1007 (RFC 6455 section 8.1).
            self._text.decode(frame.data, frame.fin)
        self._fragments += 1
        if frame.fin:
            self._fragments = 0
            self.max_message_size = self._max_size
        elif self._fragments > _FRAGMENTS:  # each costs far more memory than the byte that it may hold
            raise ProtocolError(f"a message has more than {_FRAGMENTS} fragments")
