"""One WebSocket connection: frames in, each task on its own, replies out.

The first task must be the authentication. Tasks of a frame are begun in order and answered as each is ready.
"""

import asyncio
import logging
from typing import Final

from msgspec import Struct
from starlette.websockets import WebSocket, WebSocketDisconnect

from server.protocol.codec import JSON, MESSAGEPACK, RawTask
from server.protocol.errors import AuthenticationError, FrameError, TaskError
from server.protocol.messages import Authentication, AuthenticationResult
from server.services import Services
from server.sessions import Disconnected, Session, encode_reply
from server.tasks import Context, as_item, dispatch

__all__ = ["SUBPROTOCOL", "Connection"]

log = logging.getLogger(__name__)

SUBPROTOCOL: Final = "tilewire.msgpack"
"""The WebSocket subprotocol of MessagePack frames; without it frames are JSON."""

_TASKS_AT_ONCE: Final = 64


class Connection:
    """Serves one WebSocket. To its session it is the `Link`."""

    def __init__(self, websocket: WebSocket, services: Services, base_url: str) -> None:
        self._websocket = websocket
        self._services = services
        self._settings = services.settings
        self._session: Session | None = None
        self._unsent = 0
        self._gone = False
        self._room = asyncio.Semaphore(_TASKS_AT_ONCE)
        self.base_url = base_url
        self.codec = MESSAGEPACK if SUBPROTOCOL in websocket.scope["subprotocols"] else JSON

    async def serve(self) -> None:
        """Accept the connection and serve it until it ends."""
        await self._websocket.accept(SUBPROTOCOL if self.codec.binary else None)
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._receive_all(tasks)
        finally:
            self._gone = True
            if self._session is not None:
                self._services.sessions.detach(self._session)

    async def send(self, frame: bytes) -> None:
        """Send one frame.

        Raises:
            Disconnected: if the client is gone, or has left too much unread for too long; it is dropped then.
        """
        if self._gone or (self._unsent and self._unsent + len(frame) > self._settings.max_unsent_bytes):
            await self._drop()
            raise Disconnected
        self._unsent += len(frame)
        try:
            async with asyncio.timeout(self._settings.send_timeout):
                if self.codec.binary:
                    await self._websocket.send_bytes(frame)
                else:
                    await self._websocket.send_text(frame.decode())
        except (WebSocketDisconnect, RuntimeError, TimeoutError) as error:
            await self._drop()
            raise Disconnected from error
        finally:
            self._unsent -= len(frame)

    async def close(self, code: int, reason: str) -> None:
        """Close the connection; harmless if it is closed."""
        self._gone = True
        try:
            async with asyncio.timeout(1):
                await self._websocket.close(code, reason)
        except (WebSocketDisconnect, RuntimeError, TimeoutError):
            return

    async def _drop(self) -> None:
        if not self._gone:
            log.info("a connection that does not read is dropped")
            await self.close(1008, "replies are not read")

    async def _receive_all(self, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        authenticate_by = loop.time() + self._settings.auth_timeout
        try:
            async with asyncio.timeout(None) as deadline:
                while not self._gone:
                    idle_until = loop.time() + self._settings.idle_timeout
                    deadline.reschedule(idle_until if self._session else min(idle_until, authenticate_by))
                    frame = await self._receive()
                    deadline.reschedule(None)
                    await self._take(frame, tasks)
        except WebSocketDisconnect:
            return
        except TimeoutError:
            await self.close(1001, "idle" if self._session else "not authenticated in time")

    async def _receive(self) -> bytes | str:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        data: bytes | str | None = message.get("bytes")
        return message["text"] if data is None else data

    async def _take(self, frame: bytes | str, tasks: asyncio.TaskGroup) -> None:
        """Begin the tasks of a frame."""
        try:
            raws = self.codec.split(frame)
        except FrameError as error:
            await self._reply(error.item(None, None, f"{self.base_url}/docs/errors"))
            return
        for raw in raws:
            if raw.task_type == "authentication" or self._session is None:
                await self._authenticate(raw)
            elif raw.task_type == "ping":
                await self._run(raw, self._session)
            else:
                await self._room.acquire()
                tasks.create_task(self._run(raw, self._session)).add_done_callback(
                    lambda _: self._room.release()
                )

    async def _run(self, raw: RawTask, session: Session) -> None:
        context = Context(
            services=self._services,
            account=session.account,
            session=session,
            base_url=self.base_url,
            raw=raw,
        )
        reply = await dispatch(raw, context)
        if reply is not None:
            await self._services.sessions.send(session, reply)

    async def _authenticate(self, raw: RawTask) -> None:
        """Begin or resume the session; what waits for it is sent right after the reply."""
        try:
            task = raw.parse()
            if not isinstance(task, Authentication):
                raise AuthenticationError("missingApiKey", "the first task must be the authentication")
            account = await self._services.authenticate(task.api_key)
            if account is None:
                raise AuthenticationError("invalidApiKey", "the API key is not valid", "apiKey")
        except TaskError as error:
            await self._reply(as_item(error, raw, self.base_url))
            return
        if self._session is not None:
            self._services.sessions.detach(self._session)
        self._session = await self._services.sessions.attach(account, task.connection_session_uuid, self)
        await self._reply(AuthenticationResult(connection_session_uuid=self._session.uuid))
        await self._services.sessions.deliver(account, self._session.uuid)

    async def _reply(self, reply: Struct) -> None:
        """Send a reply that no session waits for."""
        try:
            await self.send(encode_reply(self.codec, reply))
        except Disconnected:
            return
