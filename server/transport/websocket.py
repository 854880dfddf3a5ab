"""A WebSocket: `websockets`' Sans-I/O protocol on one side, an ASGI application on the other.

It takes the place of uvicorn's own class. That one does not say what a client has got. It sends a message in
one frame, so that on a slow line no ping or pong gets through until all of it has. And it takes clients for
dead that are not.

1. A handshake becomes an ASGI scope; its extension `LINE` holds the connection itself.
2. Messages come by ASGI's `receive`, and go by `SocketProtocol.send`, as bytes both: ASGI's way would
   decode and encode every text once more.
3. While the application does not take messages nothing is read, and nobody is held to be dead.

Of uvicorn, whose version is bounded for that, it needs what a protocol is made with and the sets in
`ServerState`, by which uvicorn waits for connections and tasks at the end. Of `websockets` it needs the
documented Sans-I/O interface, and `debug`, which would log keys.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable
from http import HTTPStatus
from typing import Any, Final

import uvicorn
from uvicorn.protocols.utils import get_local_addr, is_ssl
from uvicorn.server import ServerState
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from server.limits.edge import FIRST_FRAME_BYTES
from server.limits.rates import RateLimit
from server.transport.handshake import add_headers, denial, respond, scope_of
from server.transport.liveness import ReaderWatch, untaken
from server.transport.messages import Messages
from server.transport.peers import peer_of
from server.transport.pings import Pings
from server.transport.places import Bounds

__all__ = ["HOLDING", "IS_TEXT", "LINE", "SocketProtocol"]

LINE: Final = "tilewire.line"
"""The ASGI extension in which the application finds the `SocketProtocol`."""

IS_TEXT: Final = "tilewire.is_text"
"""Says of a message whether its bytes are text: ASGI's way would decode and copy it."""

HOLDING: Final = "tilewire.holding"
"""Where a message has the bytes that it takes of the budget: to be released when it is done with."""

log = logging.getLogger(__name__)

_KEEP_ALIVE: Final = 20.0
"""Seconds between two pings, and until a client must have shown that it lives."""

_LAST_WORDS: Final = 5.0
_CLOSE_WITHIN: Final = 10.0
_SLICE: Final = 16 * 2**10
_FIRST_WITH_HEADERS: Final = FIRST_FRAME_BYTES + 16 * 2**10
_FRAGMENT: Final = 64 * 2**10
_MOST_FRAGMENTS: Final = 12
"""A large message is sent in frames of this many bytes, and no more of them than this: a ping or pong gets
through between them, and a `websockets` client, which keeps 16 frames, goes on reading."""

_PINGS_PER_SECOND: Final = 10
_PINGS_AT_ONCE: Final = 100


class SocketProtocol(asyncio.Protocol):
    """One WebSocket."""

    def __init__(
        self,
        bounds: Bounds,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Wait for a connection.

        Args:
            bounds: of what a client may do.
            config: uvicorn's, with the application.
            server_state: uvicorn's, which waits at the end for the connections and tasks in it.
            app_state: goes into the scope.
            _loop: uvicorn's name for the event loop.
        """
        self._loop = _loop or asyncio.get_running_loop()
        self._bounds = bounds
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._frames = ServerProtocol(max_size=bounds.settings.max_frame_bytes, logger=log)
        self._frames.debug = False  # it would log what is in the frames: keys, images
        self._transport: asyncio.Transport
        self._peer: tuple[str, int] | None = None
        self._response: Response | None = None
        self._denial: dict[str, Any] | None = None
        self._denial_body = b""
        self._finished = False

        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._messages = Messages(FIRST_FRAME_BYTES)
        self._unparsed = bytearray()
        self._reading_paused = False
        self._waits_for_room = False
        self._pings_of_client = RateLimit(_PINGS_PER_SECOND, _PINGS_AT_ONCE)
        self.arrived = 0
        """Bytes that have come since the handshake."""

        self._writable = asyncio.Event()
        self._writable.set()
        self._turn = asyncio.Lock()
        self._sending: set[asyncio.Task[None]] = set()
        self._owed_pong = b""
        self._reader_watch = ReaderWatch(bounds.settings.send_timeout)
        self._pings = Pings(self._send_ping)
        self._timer: asyncio.TimerHandle | None = None
        self._life_sign = 0.0
        self._written = self._taken = 0

    # What the application does with it

    @property
    def buffered(self) -> int:
        """Bytes that wait to be sent, beside the message that is being sent."""
        return self._transport.get_write_buffer_size()

    async def send(self, message: bytes, *, text: bool) -> None:
        """Send a message, after those that are being sent.

        Returns when all of it is written, not when the client has it: see `confirm`.

        Raises:
            ConnectionError: if the connection has ended.
        """
        await self._turn.acquire()
        opcode = Opcode.TEXT if text else Opcode.BINARY
        if len(message) > _FRAGMENT:
            # Whoever waits may be cancelled; the message must come to its end nevertheless.
            sending = self._loop.create_task(self._send_in_fragments(opcode, message))
            self._sending.add(sending)
            sending.add_done_callback(self._sending_ended)
            await asyncio.shield(sending)
            return
        try:
            await self._send_frame(opcode, message)
        finally:
            self._turn.release()

    def confirm(self) -> asyncio.Future[bool]:
        """Becomes True when the client has all that was sent before, False if the connection ends first."""
        if self._is_open:
            return self._pings.ask()
        answer = self._loop.create_future()
        answer.set_result(False)
        return answer

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; harmless if it has begun."""
        if self._is_open:
            self._frames.send_close(code, reason)
            self._finish(code, reason)
            self._flush()
            self._resume_reading()
            self._arm(_CLOSE_WITHIN, self._transport.abort)
            self._parse()  # the client's close frame may be there

    def belongs_to(self, account: Hashable) -> None:
        """Count what comes in as this account's."""
        self._incoming.give_to(account)

    def abort(self) -> None:
        """End the connection at once: its close would wait for the client to read."""
        self._transport.abort()

    # What the transport, and uvicorn, do with it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve this connection, whose handshake uvicorn has read."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's are transports by their methods
        self._peer = peer_of(self._transport)
        self._incoming = self._bounds.memory.incoming.holding(
            self._bounds.memory.owner_of(self._peer[0] if self._peer else ""),
            self._refuse_more,
            self._take_more,
        )
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # it only calls `shutdown`

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's interface
        """Tell the application, and whoever waits."""
        self._server_state.connections.discard(self)
        self._bounds.places.give_back(self._peer[0] if self._peer else "")
        self._incoming.release()
        self._reader_watch.stop()
        self._arm(None)
        self._finish(CloseCode.NO_STATUS_RCVD, "")
        self._writable.set()  # asyncio does not, for a transport that is lost while it is full

    def data_received(self, data: bytes) -> None:
        """Take what a client sent."""
        self.arrived += len(data)
        self._life_sign = self._loop.time()
        self._unparsed += data
        if not self._finished and not self._incoming.add(len(data)):
            self._waits_for_room = True
            self._transport.pause_reading()
        self._parse()

    def pause_writing(self) -> None:
        """Send no more until the client has taken some."""
        self._writable.clear()
        self._reader_watch.start(self._transport)

    def resume_writing(self) -> None:
        """Send on."""
        self._reader_watch.stop()
        self._writable.set()
        if self._owed_pong and self._is_open:
            self._transport.write(self._owed_pong)
        self._owed_pong = b""

    def shutdown(self) -> None:
        """Close the connection, as the server stops."""
        if self._frames.state is State.CONNECTING and not self._finished:
            self._refuse(self._frames.reject(HTTPStatus.SERVICE_UNAVAILABLE, "the server is stopping\n"))
            return
        self.close(CloseCode.SERVICE_RESTART, "")
        self._transport.close()

    @property
    def _is_open(self) -> bool:
        return self._frames.state is State.OPEN and not self._finished and not self._transport.is_closing()

    # From bytes to messages

    def _parse(self) -> None:
        """A slice at a time, until there is a message for the application: frames may be tiny, and many."""
        while self._unparsed and not (self._reading_paused or self._transport.is_closing()):
            part = bytes(self._unparsed[:_SLICE])
            del self._unparsed[:_SLICE]
            self._frames.receive_data(part)
            for event in self._frames.events_received():
                if isinstance(event, Request):
                    self._begin(event)
                elif isinstance(event, Frame):
                    self._take(event)
            if self._frames.handshake_exc is not None:
                self._refuse_what_is_no_request()
            elif self._frames.parser_exc is not None:
                self._fail()
            elif self._writable.is_set():
                self._flush()
            elif pongs := self._frames.data_to_send():
                self._owed_pong = pongs[-1]  # which answers the pings before as well (section 5.5.3)
            if not self._messages.authenticated and self.arrived > _FIRST_WITH_HEADERS:
                self._fail(CloseCode.MESSAGE_TOO_BIG, "the first message is too large")

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            close = self._frames.close_rcvd
            assert close is not None
            self._finish(close.code, close.reason)
            self._flush()
            self._transport.close()
        elif self._finished:
            return
        elif frame.opcode is Opcode.PING:
            self._count_ping()
        elif frame.opcode is Opcode.PONG:
            if not self._pings.note_pong(bytes(frame.data)):
                self._count_ping()
        else:
            self._take_data(frame)

    def _take_data(self, frame: Frame) -> None:
        try:
            message = self._messages.take(frame)
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_DATA, "the text is not UTF-8")
        except PayloadTooBig as error:
            self._fail(CloseCode.MESSAGE_TOO_BIG, str(error))
        except ProtocolError as error:
            self._fail(CloseCode.PROTOCOL_ERROR, str(error))
        else:
            if message is not None:
                holding = self._incoming.split(self._incoming.size - len(self._unparsed))
                event = {"type": "websocket.receive", "bytes": message.data, IS_TEXT: message.is_text}
                self._events.put_nowait(event | {HOLDING: holding})
                self._pause_reading()

    def _count_ping(self) -> None:
        if self._pings_of_client.take(None, self._loop.time()):
            self._fail(CloseCode.POLICY_VIOLATION, "too many pings")

    def _fail(self, code: int | None = None, reason: str = "") -> None:
        """Fail the connection, and let the client read why.

        Closed at once, with bytes of the client's unread, TCP would take the close frame back (RFC 6455
        section 7.1.1): what still comes is dropped for a moment.

        Args:
            code: of the close frame; None if `websockets` has sent it.
            reason: in it.
        """
        if self._finished:
            return
        if code is not None:
            self._frames.fail(code, reason)
        sent = self._frames.close_sent
        self._finish(sent.code if sent else CloseCode.ABNORMAL_CLOSURE, sent.reason if sent else "")
        self._flush()
        self._resume_reading()
        self._arm(_LAST_WORDS, self._transport.abort)

    def _finish(self, code: int, reason: str) -> None:
        """Have the application see the end, once."""
        if not self._finished:
            self._finished = True
            self._pings.end()
            self._events.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

    # The handshake, and the application

    def _begin(self, request: Request) -> None:
        """Show a valid handshake to the application, which answers it."""
        self.arrived = 0
        self._response = respond(self._frames, request)
        if self._response.status_code != 101:
            self._refuse(self._response)
            return
        scope = scope_of(
            request,
            self._config.root_path,
            asgi={"version": self._config.asgi_version, "spec_version": "2.4"},
            scheme="wss" if is_ssl(self._transport) else "ws",
            server=get_local_addr(self._transport),
            client=self._peer,
            state=self._app_state.copy(),
            extensions={"websocket.http.response": {}, LINE: self},
        )
        self._events.put_nowait({"type": "websocket.connect"})
        task = self._loop.create_task(self._run(scope))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    def _refuse(self, response: Response) -> None:
        self._frames.send_response(response)
        self._finish(CloseCode.ABNORMAL_CLOSURE, "")
        self._flush()
        self._transport.close()

    def _refuse_what_is_no_request(self) -> None:
        """Answer what `websockets` cannot read, such as a handshake with a body."""
        if self._finished:
            return  # it could be read, and was refused
        answer = b"".join(self._frames.data_to_send())
        self._transport.write(answer or self._frames.reject(400, "not a WebSocket handshake\n").serialize())
        self._transport.close()

    async def _run(self, scope: dict[str, Any]) -> None:
        try:
            await self._config.loaded_app(scope, self._receive, self._send)
        except ConnectionError:
            pass  # the client is gone
        except Exception:
            log.exception("the application of a WebSocket failed")
            self.close(CloseCode.INTERNAL_ERROR, "")
        if self._frames.state is State.CONNECTING and not self._finished:
            self._refuse(self._frames.reject(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed\n"))
        if not self._finished:
            self._transport.close()
        while not self._events.empty():  # what the application has not taken is of no use any more
            if (holding := self._events.get_nowait().get(HOLDING)) is not None:
                holding.release()

    async def _receive(self) -> dict[str, Any]:
        """ASGI's `receive`."""
        event = await self._events.get()
        if self._events.empty():
            self._resume_reading()
            self._parse()
        return event

    async def _send(self, message: dict[str, Any]) -> None:
        """ASGI's `send`, for handshakes."""
        if self._finished:
            raise ConnectionAbortedError
        match message["type"]:
            case "websocket.accept":
                self._accept(message)
            case "websocket.close":
                self._refuse(self._frames.reject(HTTPStatus.FORBIDDEN, ""))
            case "websocket.http.response.start":
                self._denial, self._denial_body = message, b""
            case "websocket.http.response.body" if self._denial is not None:
                self._denial_body += message.get("body", b"")
                if not message.get("more_body", False):
                    self._refuse(denial(self._frames, self._denial, self._denial_body))
            case other:
                raise RuntimeError(f"{other}: messages are sent through the extension {LINE}")

    def _accept(self, message: dict[str, Any]) -> None:
        assert self._response is not None
        add_headers(self._response, [*self._server_state.default_headers, *message.get("headers", [])])
        if subprotocol := message.get("subprotocol"):
            self._response.headers["Sec-WebSocket-Protocol"] = subprotocol
        self._frames.send_response(self._response)
        self._flush()
        self._arm(_KEEP_ALIVE, self._keep_alive)

    # From messages to bytes

    async def _send_in_fragments(self, opcode: Opcode, message: bytes) -> None:
        try:
            size = max(_FRAGMENT, -(-len(message) // _MOST_FRAGMENTS))
            for start in range(0, len(message), size):
                end = start + size
                await self._send_frame(opcode, message[start:end], fin=end >= len(message))
                opcode = Opcode.CONT
        finally:
            self._turn.release()

    async def _send_frame(self, opcode: Opcode, data: bytes, *, fin: bool = True) -> None:
        await self._writable.wait()
        if not self._is_open:
            raise ConnectionAbortedError
        if opcode is Opcode.CONT:
            self._frames.send_continuation(data, fin)
        elif opcode is Opcode.TEXT:
            self._frames.send_text(data, fin)
        else:
            self._frames.send_binary(data, fin)
        self._flush()

    def _sending_ended(self, sending: asyncio.Task[None]) -> None:
        self._sending.discard(sending)
        if not sending.cancelled():
            sending.exception()  # nobody may wait for it any more

    def _send_ping(self, payload: bytes) -> None:
        if self._is_open:  # the pong that asks for the next may have come with a close frame behind it
            self._frames.send_ping(payload)
            self._flush()

    def _flush(self) -> None:
        data = self._frames.data_to_send()
        if self._transport.is_closing():
            return
        if joined := b"".join(data):
            self._written += len(joined)
            self._transport.write(joined)
        if b"" in data and self._transport.can_write_eof():  # that is the end of the stream
            self._transport.write_eof()

    def _pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self._life_sign = self._loop.time()
            if not self._waits_for_room and not self._transport.is_closing():
                self._transport.resume_reading()

    def _take_more(self) -> None:
        """There is room for what comes again."""
        self._waits_for_room = False
        self._life_sign = self._loop.time()
        if not self._reading_paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def _refuse_more(self) -> None:
        """There is none, and no connection holds more."""
        self._fail(CloseCode.TRY_AGAIN_LATER, "the server holds too much of what is being sent")
        self._incoming.release()
        self._take_more()

    # Whether the client lives

    def _keep_alive(self, ping: asyncio.Future[bool] | None = None) -> None:
        """Send a ping, and end the connection if it is not answered though the client had time to.

        A pong cannot overtake a message of the client's, nor a ping one of ours. So a client lives while
        bytes come, and while those that were sent are taken; and while the server itself does not read there
        is no verdict.
        """
        if not self._is_open:
            return
        now = self._loop.time()
        if ping is None or ping.done():
            self._life_sign = now
            self._arm(_KEEP_ALIVE, self._keep_alive, self._pings.send())
            return
        taken = self._written - untaken(self._transport)
        if self._reading_paused or self._waits_for_room or taken > self._taken:
            self._life_sign = now
        self._taken = taken
        left = self._life_sign + _KEEP_ALIVE - now
        if left > 0:
            self._arm(left, self._keep_alive, ping)
        else:
            self._fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")

    def _arm(self, seconds: float | None, call: Callable[..., None] = lambda: None, *arguments: Any) -> None:
        """Have something done in so many seconds, in place of what was to be done before."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, call, *arguments)
