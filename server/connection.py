"""One WebSocket connection: frames in, each task on its own, replies out.

The first task must be the authentication; a connection that begins with anything else gets an error
and is closed.
Tasks of a frame are begun in order and answered as each is ready.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import chain
from typing import Final
from weakref import WeakValueDictionary

from msgspec import Struct
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.frames import CloseCode

from server.delivery.results import ClientResults
from server.delivery.sessions import Disconnected, Session
from server.handlers import Context, as_item, dispatch
from server.limits.edge import Visit
from server.limits.memory import Holding
from server.limits.rates import RateLimit
from server.protocol.codec import JSON, MESSAGEPACK, SUBPROTOCOL, RawTask, encode_reply
from server.protocol.errors import AuthenticationError, DatabaseUnavailableError, FrameError, TaskError
from server.protocol.replies import PONG, AuthenticationResult
from server.protocol.requests import Authentication
from server.services import Services
from server.transport.websocket import HOLDING, IS_TEXT, LINE, SocketProtocol

__all__ = ["Connection"]

log = logging.getLogger(__name__)


_TASKS_AT_ONCE: Final = 64
_UPSCALES: Final = frozenset({"upscale", "imageUpscale"})
_QUESTIONS: Final = frozenset({"getResponse", "getTaskDetails", "modelSearch", "accountManagement"})
_TURN: Final = 0.01
"""Seconds that the tasks of a frame are begun for before others get their turn."""
_MISSED_FIRST: Final = 5.0
"""Seconds that the client's next messages wait for what its session has missed; a slow line takes longer."""
_MOVES: Final = 1024
"""More bytes than this between two looks are of a message that is on its way: pings have fewer."""
_POLICY_VIOLATION: Final = 1008  # RFC 6455 section 7.4.1


class Connection:
    """Serves one WebSocket. To its session it is the `Link`."""

    def __init__(self, websocket: WebSocket, services: Services, visit: Visit, base_url: str) -> None:
        self._websocket = websocket
        self._line: SocketProtocol = websocket.scope["extensions"][LINE]
        self._visit = visit
        self._services = services
        self._settings = services.settings
        self._loop = asyncio.get_running_loop()
        self._session: Session | None = None
        self._gone = False
        self._room = asyncio.Semaphore(_TASKS_AT_ONCE)
        self._frame_rate = RateLimit(self._settings.requests_per_second, self._settings.request_burst)
        self._results = ClientResults(services.results, base_url, self._room_for)
        self._accepting: WeakValueDictionary[str, asyncio.Task[None]] = WeakValueDictionary()
        self._unsent = 0
        self._running = 0
        outgoing = websocket.app.state.memory.outgoing
        self._outgoing: Holding = outgoing.holding(self._visit.address, self._drop, self._go_on)
        self._largest_counted = outgoing.share // 2
        self._may_go_on = asyncio.Event()
        self._may_go_on.set()
        self._heard_at = self._loop.time()
        self._arrived = 0
        self._check_every = min(self._settings.auth_timeout, self._settings.idle_timeout)
        self._watch = self._loop.call_later(self._check_every, self._check_time)
        self.base_url = base_url
        self.codec = MESSAGEPACK if SUBPROTOCOL in websocket.scope["subprotocols"] else JSON

    @property
    def unsent(self) -> int:
        """Bytes of frames that wait until the client reads."""
        return self._unsent + self._line.buffered

    async def serve(self) -> None:
        """Accept the connection and serve it until it ends."""
        self._services.sessions.links.add(self)
        try:
            await self._websocket.accept(SUBPROTOCOL if self.codec.binary else None)
            async with asyncio.TaskGroup() as tasks:
                await self._receive_all(tasks)
        finally:
            self._services.sessions.links.discard(self)
            self._watch.cancel()
            if self._session is not None:
                self._services.sessions.detach(self._session)

    async def send(self, frame: bytes) -> None:
        """Send one frame.

        Raises:
            Disconnected: if the client is gone, or leaves too much unread; it is dropped then.
        """
        if self._gone:
            raise Disconnected
        if self._unsent and self._unsent + len(frame) > self._settings.max_unsent_bytes:
            self._drop()
            raise Disconnected
        self._unsent += len(frame)
        counted = min(len(frame), self._largest_counted)  # one reply may be as large as it is
        self._outgoing.add(counted)
        try:
            await self._line.send(frame, text=not self.codec.binary)
        except ConnectionError as error:
            raise Disconnected from error
        finally:
            self._unsent -= len(frame)
            self._outgoing.add(-counted)

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        """Wait until a reply with so many bytes of images may be prepared, and count them until it is.

        From then on its frame is counted, if `send` is called at once.

        Raises:
            Disconnected: if the client is gone.
        """
        if size:
            await self._until_room()
        if self._gone:
            raise Disconnected
        with self._counted(size):
            yield

    @asynccontextmanager
    async def _room_for(self, size: int) -> AsyncIterator[None]:
        """`room`, also for what will be kept if the client is gone."""
        while size and not self._outgoing.has_room():
            await self._until_called()
        with self._counted(size):
            yield

    async def _until_room(self) -> None:
        """Wait until there is room, or the client is gone."""
        while not self._gone and not self._outgoing.has_room():
            await self._until_called()

    async def _until_called(self) -> None:
        """Wait until there may be room, or the client is gone."""
        self._may_go_on.clear()
        await self._may_go_on.wait()

    @contextmanager
    def _counted(self, size: int) -> Iterator[None]:
        """Count the images of a reply that is being prepared: as base64, unless frames are binary."""
        counted = min(size if self.codec.binary else size * 4 // 3, self._largest_counted)
        self._outgoing.add(counted)
        try:
            yield
        finally:
            self._outgoing.add(-counted)

    def confirm(self, kept: int = 0) -> asyncio.Future[bool]:
        """Becomes True when the client has all frames that were sent before, False if it is gone first.

        Args:
            kept: bytes that are kept until then, and count as unsent.
        """
        answer = self._line.confirm()
        if kept and not answer.done():
            counted = min(kept, self._largest_counted)
            self._outgoing.add(counted)
            answer.add_done_callback(lambda _: self._outgoing.add(-counted))
        return answer

    async def close(self, code: int, reason: str) -> None:
        """Close the connection; harmless if it is closed."""
        if self._gone:
            return
        self._gone = True
        self._go_on()
        if self._unsent:  # the client would have to read all that first
            self._line.abort()
        else:
            self._line.close(code, reason)

    def _drop(self) -> None:
        log.info("a connection that does not read its replies is dropped")
        self._gone = True
        self._line.abort()
        self._go_on()

    def _go_on(self) -> None:
        self._may_go_on.set()

    def _check_time(self) -> None:
        """Close a connection that was silent for too long; one timer serves all frames."""
        now, settings = self._loop.time(), self._settings
        arrived, self._arrived = self._line.arrived - self._arrived, self._line.arrived
        if self._session is not None and (arrived > _MOVES or self._is_busy(self._session)):
            self._heard_at = now
        overdue = self._heard_at + (settings.idle_timeout if self._session else settings.auth_timeout)
        if now >= overdue:
            reason = "idle" if self._session else "not authenticated in time"
            self._closing = asyncio.ensure_future(self.close(1001, reason))
            return
        self._watch = self._loop.call_at(min(overdue, now + self._check_every), self._check_time)

    def _is_busy(self, session: Session) -> bool:
        """Whether the client waits for the server, or reads."""
        return (
            self._running > 0
            or self.unsent > 0
            or self._services.runner.works_for(session.account, session.uuid)
        )

    async def _receive_all(self, tasks: asyncio.TaskGroup) -> None:
        try:
            while not self._gone:
                await self._keep_pace()
                frame, holding = await self._receive()
                if self._session is not None:
                    self._heard_at = self._loop.time()
                begun: list[asyncio.Task[None]] = []
                try:
                    await self._take(frame, tasks, begun)
                finally:
                    _release_after(begun, holding)
        except WebSocketDisconnect as error:
            if error.code == CloseCode.MESSAGE_TOO_BIG and self._session is not None:
                self._services.sessions.note_too_large(self._session)
        finally:
            self._gone = True
            self._go_on()

    async def _receive(self) -> tuple[bytes | str, Holding]:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        data: bytes = message["bytes"]
        return data.decode() if message[IS_TEXT] and self.codec.binary else data, message[HOLDING]

    async def _keep_pace(self) -> None:
        """Before a frame, and what is done at once for one: who sends too many is read more slowly."""
        now = self._loop.time()
        wait = self._frame_rate.wait(None, now)
        self._frame_rate.spend(None, now)
        if wait:
            await asyncio.sleep(wait)

    async def _take(
        self, frame: bytes | str, tasks: asyncio.TaskGroup, all_begun: list[asyncio.Task[None]]
    ) -> None:
        """Begin the tasks of a frame, and put them into `all_begun`."""
        turn_until = self._loop.time() + _TURN
        for raw in await self._split(frame):
            if self._loop.time() > turn_until:  # a frame may hold thousands
                await asyncio.sleep(0)
                turn_until = self._loop.time() + _TURN
            if raw.task_type == "authentication" or self._session is None:
                await self._keep_pace()
                await self._authenticate(raw, tasks)
                if self._session is None:
                    break
            elif raw.task_type == "ping":
                await self._keep_pace()
                await self._reply(PONG)
            else:
                all_begun.append(await self._begin(raw, self._session, tasks))
        if self._session is None:
            await self.close(_POLICY_VIOLATION, "the first task must be a valid authentication")

    async def _split(self, frame: bytes | str) -> Iterable[RawTask]:
        """The tasks of a frame; what has none is answered."""
        try:
            raws = self.codec.split(frame)
        except FrameError as error:
            self._services.telemetry.metrics.error_sent(error.code)
            await self._reply(error.item(None, None, f"{self.base_url}/docs/errors"))
            return ()
        first = next(raws, None)
        if first is not None:
            return chain((first,), raws)
        if self._session is not None:
            await self._send(self.codec.data([]))
        return ()

    async def _begin(self, raw: RawTask, session: Session, tasks: asyncio.TaskGroup) -> asyncio.Task[None]:
        await self._room.acquire()
        self._running += 1
        begun = tasks.create_task(self._run(raw, session))
        begun.add_done_callback(self._make_room)
        if raw.task_type in _UPSCALES and raw.task_uuid is not None:
            self._accepting[raw.task_uuid.lower()] = begun
        return begun

    def _make_room(self, _: asyncio.Task[None]) -> None:
        self._running -= 1
        self._room.release()

    async def _run(self, raw: RawTask, session: Session) -> None:
        context = Context(
            services=self._services,
            login=session.login,
            session=session,
            base_url=self.base_url,
            raw=raw,
            results=self._results,
            accepting=self._accepting,
        )
        if raw.task_type in _QUESTIONS:
            await self._answer(raw, context)
        elif (reply := await dispatch(raw, context)) is not None:
            await self._services.sessions.send(session, reply)

    async def _answer(self, raw: RawTask, context: Context) -> None:
        """Answer a question, unless the client is gone: it can ask again. Answers may be many and large."""
        await self._until_room()
        answer = None if self._gone else await dispatch(raw, context)
        if answer is not None:
            await self._reply(answer)

    async def _authenticate(self, raw: RawTask, tasks: asyncio.TaskGroup) -> None:
        """Begin or resume the session; what waits for it is sent right after the reply."""
        try:
            task = raw.parse()
            if not isinstance(task, Authentication):
                raise AuthenticationError("missingApiKey", "the first task must be the authentication")
            login = await self._services.authenticate(
                task.api_key,
                self._visit.address,
                self._websocket.headers.get("origin"),
                previous=task.previous_api_key,
            )
            self._visit.welcome(login.account)
            self._line.belongs_to(login.account)
            self._outgoing.give_to(login.account)
        except DatabaseUnavailableError as error:
            await self.close(1013, error.message)  # clients connect again; at an error Runware's give up
            return
        except TaskError as error:
            await self._reply(as_item(error, raw, self.base_url, self._services))
            return
        self._heard_at = self._loop.time()
        self._session = await self._services.sessions.attach(
            login, task.connection_session_uuid, self, self._session
        )
        self._results.largest = self._services.sessions.largest(self._session)
        log.info("session begins", extra={"account": login.account, "session": self._session.uuid})
        await self._reply(
            AuthenticationResult(
                connection_session_uuid=self._session.name, expires_in=self._services.time_left(login)
            )
        )
        missed = tasks.create_task(self._services.sessions.deliver(login.account, self._session.uuid))
        await asyncio.wait([missed], timeout=_MISSED_FIRST)

    async def _reply(self, reply: Struct) -> None:
        """Send a reply that no session waits for."""
        await self._send(encode_reply(self.codec, reply))

    async def _send(self, frame: bytes) -> None:
        with contextlib.suppress(Disconnected):
            await self.send(frame)


def _release_after(tasks: list[asyncio.Task[None]], holding: Holding) -> None:
    """Release what a message holds when all its tasks have ended."""
    left = len(tasks)

    def end(_: asyncio.Task[None]) -> None:
        nonlocal left
        left -= 1
        if not left:
            holding.release()

    for task in tasks:
        task.add_done_callback(end)
    if not tasks:
        holding.release()
