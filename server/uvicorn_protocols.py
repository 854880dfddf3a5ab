"""uvicorn's protocols, with bounds on what a client may leave undone.

uvicorn bounds neither how long nor how large the head of a request may be, nor how long an answer may lie
unread; it parses all that has come before it lets others have their turn, and takes messages of the same size
from whoever connects.
"""

import asyncio
import codecs
import ipaddress
import logging
from collections.abc import Iterable
from typing import Any, Final

import uvicorn
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import ProtocolError
from websockets.frames import DATA_OPCODES, CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from server.connection import ABORT
from server.edge import FIRST_FRAME_BYTES
from server.open_files import room_for
from server.rates import Places, RateLimit, network_of
from server.settings import Settings

__all__ = ["Config", "HttpProtocol", "SocketProtocol"]

_ALL: Final = "all"
_HEAD_BYTES: Final = 64 * 2**10
_PIPELINED: Final = 64
_LINGER: Final = 10.0
_SLOWEST_READER: Final = 1024  # bytes per second

_VERSION: Final = "13"
_Utf8Decoder: Final = codecs.getincrementaldecoder("utf-8")

_LAST_WORDS: Final = 5.0

_SLICE: Final = 16 * 2**10
_FRAGMENTS: Final = 2**14
_PINGS_PER_SECOND: Final = 10
_PINGS_AT_ONCE: Final = 100


class Config(uvicorn.Config):
    """uvicorn's configuration for these protocols, and the connections that are open."""

    def __init__(self, app: Any, settings: Settings, **options: Any) -> None:
        super().__init__(
            app,
            http=HttpProtocol,
            ws=SocketProtocol,
            ws_max_size=settings.max_frame_bytes,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            **options,
        )
        self.settings = settings
        self._all = Places(room_for(settings.max_connections))
        self._of_peers = Places(settings.max_connections_per_address)

    def take_place(self, peer: str) -> int | None:
        """Count a connection; over a limit the status that its request is to be answered with.

        A proxy has as many as it needs: the addresses behind it are counted by `Gate`.
        """
        if not self._all.take(_ALL):
            return 503
        if not self._is_proxy(peer) and not self._of_peers.take(network_of(peer)):
            self._all.give_back(_ALL)
            return 429
        return None

    def give_place_back(self, peer: str) -> None:
        """A connection that was counted is gone."""
        self._all.give_back(_ALL)
        if not self._is_proxy(peer):
            self._of_peers.give_back(network_of(peer))

    def _is_proxy(self, peer: str) -> bool:
        return _is_among(peer, self.settings.trusted_proxies)


class HttpProtocol(HttpToolsProtocol):
    """A connection, until it becomes a WebSocket."""

    config: Config

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._has_place = False
        self._refused_with: int | None = None
        self._overhead = 0
        self._message_complete = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._refused_with = self.config.take_place(_peer(self))
        self._has_place = self._refused_with is None
        self._set_deadline(self.config.settings.auth_timeout if self._has_place else 1)

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        self._stop_watching()
        if self._has_place:
            self.config.give_place_back(_peer(self))
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
        self._set_deadline(self.config.settings.auth_timeout)

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
        patience = self.config.settings.send_timeout
        unread = self.transport.get_write_buffer_size()
        if unread_before is not None and unread_before - unread < patience * _SLOWEST_READER:
            self.transport.abort()
        else:
            self._reading = self.loop.call_later(patience, self._watch_reader, unread)

    def _stop_watching(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None


class SocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket. The application can end one at once whose client does not read, through `ABORT`."""

    config: Config

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn = _Frames(self.config.settings.max_frame_bytes)
        self._unparsed = bytearray()
        self._failed = False
        self._pings = RateLimit(_PINGS_PER_SECOND, _PINGS_AT_ONCE)

    def connection_lost(self, exc: Exception | None) -> None:
        self.config.give_place_back(_peer(self))
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


def _peer(protocol: HttpToolsProtocol | WebSocketsSansIOProtocol) -> str:
    return protocol.client[0] if protocol.client else ""


def _is_among(host: str, networks: Iterable[str]) -> bool:
    """Whether an address is in one of the networks; `*` is all."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "*" in networks
    return any(network == "*" or address in ipaddress.ip_network(network) for network in networks)
